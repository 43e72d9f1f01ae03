"""In a real browser: what somebody sees of a sign-in that fails, in each of its states, and how they go on."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from selenium import webdriver
from selenium.webdriver.support.select import Select

from pool_server.core.settings import PoolUsers
from tests.fakes import FakeProviders, account, fake_settings
from tests.fakes.openai_auth import CALLBACK, FakeSignInService
from tests.process import PoolProcess, until
from tests.web import browser
from tests.web.browser import all_of, find, text, wait
from tests.web.pool import ADMIN
from tests.web.server import Running, running
from tests.web.test_adding_browser import enter
from tests.web.test_contributing_browser import follow
from tests.web.test_sign_ins import begin, paste, person, state
from tests.web.test_sign_ins_browser import quiet

pytestmark = pytest.mark.browser


@pytest.fixture
def vendor() -> Iterator[FakeSignInService]:
    with FakeSignInService() as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path, vendor: FakeSignInService) -> Iterator[Running]:
    browser.need()
    cast = [account("claude:work", used_5h=20, used_7d=10)]
    with running(tmp_path, cast, sign_in=vendor.urls(), codex_tokens=vendor.origin) as made:
        yield made


def open_page(driver: webdriver.Chrome, pool: Any, **more: Any) -> dict[str, Any]:
    """A sign-in by address, and its page."""
    made = begin(pool, flow="browser", **more)
    enter(driver, pool, f"/sign-ins/{made['id']}")
    return made


def type_in(driver: webdriver.Chrome, words: str) -> None:
    """At once: a page under way may draw its field anew at any moment."""
    wait(driver, lambda d: all_of(d, "textarea[name=code]"))
    driver.execute_script(
        """const field = document.querySelector("textarea[name=code]");
        field.value = arguments[0];
        field.form.querySelector("button.primary").click();""",
        words,
    )


def start_again(driver: webdriver.Chrome) -> None:
    """The failed page leads to a new sign-in of the same kind."""
    before = driver.current_url
    button = next(one for one in all_of(driver, "main form button") if one.text == "Start again")
    button.click()
    wait(driver, lambda d: d.current_url != before and "/sign-ins/" in d.current_url)
    wait(driver, lambda d: all_of(d, "textarea[name=code]"))


def of(driver: webdriver.Chrome, pool: Running) -> dict[str, Any]:
    return state(pool, {"id": driver.current_url.rsplit("/", 1)[1]})


REFUSED = {
    "cancelled": ("error=access_denied", "cancelled"),
    "denied": ("error=access_denied&error_description=missing_codex_entitlement", "admin"),
    "a vendor's fault": ("error=server_error", "refused"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_refused_on_the_vendors_page(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService, how: str
) -> None:
    query, words = REFUSED[how]
    made = open_page(chrome, pool, name="mine")
    type_in(chrome, f"{CALLBACK}?{query}&state={made['url'].split('state=')[1].split('&')[0]}")
    wait(chrome, lambda d: "It did not work" in text(d))
    assert words in text(chrome).lower() and "/oauth/token" not in [path for path, _ in vendor.calls]
    start_again(chrome)
    ada = pool.fakes.add(person("ada"))
    type_in(chrome, vendor.consent(of(chrome, pool)["url"], ada))
    wait(chrome, lambda d: "codex:mine is signed in" in text(d))
    assert quiet(chrome)


EXCHANGES = {
    "a spent code": ((400, {"error": "invalid_grant"}), "start again"),
    "another country": ((403, {"error": {"code": "unsupported_country_region_territory"}}), "the place"),
    "a bot check": ((403, "<html><title>Just a moment...</title></html>"), "start again"),
    "too often": ((429, {"error": {"message": "slow"}}), "start again"),
    "half the tokens": ((200, {"access_token": "only"}), "start again"),
}


@pytest.mark.parametrize("how", EXCHANGES)
def test_an_exchange_that_fails(chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService, how: str) -> None:
    answer, words = EXCHANGES[how]
    vendor.exchange.append(answer)
    made = open_page(chrome, pool)
    type_in(chrome, vendor.consent(made["url"], person("ada")))
    wait(chrome, lambda d: "It did not work" in text(d))
    shown = text(chrome)
    assert words in shown and "ac_0" not in shown and list(pool.pool.glob("*.json")) == [] and quiet(chrome)
    start_again(chrome)


@pytest.mark.parametrize("flow", ["line", "device", "browser"])
def test_its_time_ends_under_the_eyes(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService, flow: str
) -> None:
    made = begin(pool, flow=flow)
    enter(chrome, pool, f"/sign-ins/{made['id']}")
    if flow == "browser":
        find(chrome, "textarea[name=code]").send_keys(vendor.consent(made["url"], person("ada")))

    def over(record: Any) -> bool:
        record.deadline = record.created - 1
        return True

    pool.call(pool.server.accounts.sign_ins.records.change(made["id"], over))
    wait(chrome, lambda d: "The time is over" in text(d))
    assert paste(pool, made, "ac_0-late-0123456789")[0] in (409, 422)
    assert "/oauth/token" not in [path for path, _ in vendor.calls] and quiet(chrome)
    button = next(one for one in all_of(chrome, "main form button") if one.text == "Start again")
    button.click()
    wait(chrome, lambda d: made["id"] not in d.current_url and "Sign in to" in text(d, "h1"))


def test_two_tabs_each_with_a_sign_in(chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService) -> None:
    """The address of one pasted into the other is said; each then comes to its end."""
    add = pool.fakes.add(person("old", user="u-old"))
    pool.ask("POST", "/admin/accounts", {"name": "old", "credential": add.file()})
    ada = pool.fakes.add(person("ada", user="u-ada"))
    first = open_page(chrome, pool, name="ada")
    second = begin(pool, flow="browser", account="codex:old")
    chrome.switch_to.new_window("tab")
    chrome.get(f"{pool.url}/sign-ins/{second['id']}")
    good = vendor.consent(first["url"], ada)
    type_in(chrome, good)
    wait(chrome, lambda d: "of another sign-in of yours" in text(d))
    old = person("old", workspace=add.account_id, user=add.user_id, token=1)
    type_in(chrome, vendor.consent(second["url"], pool.fakes.add(old)))
    wait(chrome, lambda d: "codex:old is signed in" in text(d))
    chrome.close()
    chrome.switch_to.window(chrome.window_handles[0])
    type_in(chrome, good)
    wait(chrome, lambda d: "codex:ada is signed in" in text(d))


def test_one_sign_in_in_two_tabs(chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService) -> None:
    """What is pasted in one is at work in the other, and both show the account."""
    ada = pool.fakes.add(person("ada"))
    made = open_page(chrome, pool, name="ada")
    chrome.switch_to.new_window("tab")
    chrome.get(f"{pool.url}/sign-ins/{made['id']}")
    vendor.gate = threading.Event()
    type_in(chrome, vendor.consent(made["url"], ada))
    until(lambda: [path for path, _ in vendor.calls].count("/oauth/token"), "the code is at the vendor's")
    chrome.switch_to.window(chrome.window_handles[0])
    wait(chrome, lambda d: not all_of(d, "textarea[name=code]"))
    vendor.gate.set()
    for window in reversed(chrome.window_handles):
        chrome.switch_to.window(window)
        wait(chrome, lambda d: "codex:ada is signed in" in text(d))
    assert [path for path, _ in vendor.calls].count("/oauth/token") == 1
    chrome.switch_to.window(chrome.window_handles[1])
    chrome.close()
    chrome.switch_to.window(chrome.window_handles[0])


@pytest.mark.parametrize("choice", ["Replace codex:old", "Add as a new account", "Cancel"])
def test_another_persons_sign_in(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService, choice: str
) -> None:
    old = pool.fakes.add(person("ada", workspace="ws-1", user="u-1"))
    pool.ask("POST", "/admin/accounts", {"name": "old", "credential": old.file()})
    before = (pool.pool / "codex_old.json").read_bytes()
    made = open_page(chrome, pool, account="codex:old")
    bob = pool.fakes.add(person("bob", workspace="ws-1", user="u-2", token=1))
    type_in(chrome, vendor.consent(made["url"], bob))
    wait(chrome, lambda d: choice in text(d))
    next(one for one in all_of(chrome, "main button") if one.text == choice).click()
    if choice == "Cancel":
        wait(chrome, lambda d: d.current_url.endswith("/accounts"))
        assert (pool.pool / "codex_old.json").read_bytes() == before
        assert vendor.revoked == [bob.refresh], "what nobody wants is ended"
        return
    wait(chrome, lambda d: "is signed in" in text(d))
    kept = json.loads((pool.pool / "codex_old.json").read_text())["tokens"]["access_token"]
    assert kept == (bob.access if choice.startswith("Replace") else old.access)


def test_a_friend_cannot_take_anothers_account(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService
) -> None:
    """Who signs in is already in the pool, as the operator's: neither replaced nor added twice."""
    ada = pool.fakes.add(person("ada"))
    pool.ask("POST", "/admin/accounts", {"name": "ada", "credential": ada.file()})
    before = (pool.pool / "codex_ada.json").read_bytes()
    follow(chrome, pool.ask("POST", "/admin/invitations", {"kind": "account", "provider": "codex"})[1]["url"])
    form = find(chrome, "form[data-call='POST /api/sign-ins']")
    Select(form.find_element("name", "flow")).select_by_value("browser")
    form.find_element("css selector", "button").click()
    wait(chrome, lambda d: "Tick that you have read this" in text(d))
    form.find_element("name", "consent").click()
    form.find_element("css selector", "button").click()
    wait(chrome, lambda d: "/sign-ins/" in d.current_url)
    page = find(chrome, "main ol a").get_attribute("href")
    again = person("ada", workspace=ada.account_id, user=ada.user_id, token=1)
    type_in(chrome, vendor.consent(page, pool.fakes.add(again)))
    wait(chrome, lambda d: "It did not work" in text(d))
    assert (pool.pool / "codex_ada.json").read_bytes() == before and len(list(pool.pool.glob("*.json"))) == 1
    assert ada.email not in text(chrome), "whose account it is, is not theirs to know"


@pytest.mark.slow
def test_the_server_ends_in_between(chrome: webdriver.Chrome, tmp_path: Path, vendor: FakeSignInService) -> None:
    """The page stays open over a restart, and over kill -9 of all while a code is exchanged."""
    browser.need()
    with FakeProviders() as fakes:
        settings = fake_settings(tmp_path, fakes, workers=2, sign_in=vendor.urls())
        ada = fakes.add(person("ada"))
        urls = msgspec.structs.replace(settings.token_urls, codex=f"{vendor.origin}/oauth/token")
        settings = msgspec.structs.replace(settings, pool_users=PoolUsers(admin_password=ADMIN), token_urls=urls)
        admin = {"Authorization": f"Bearer {ADMIN}"}
        with PoolProcess(tmp_path, settings) as pool:
            settings = msgspec.structs.replace(settings, listen_addr=pool.url.removeprefix("http://"))
            asked = {"provider": "codex", "flow": "browser", "name": "ada"}
            made = pool.call("POST", "/admin/sign-ins", asked, **admin)[1]
            enter(chrome, pool, f"/sign-ins/{made['id']}")  # type: ignore[arg-type]
        vendor.gate = threading.Event()
        with PoolProcess(tmp_path, settings) as pool:
            type_in(chrome, vendor.consent(made["url"], ada))
            until(lambda: [path for path, _ in vendor.calls].count("/oauth/token"), "it is exchanged")
            for pid in [*pool.children(), pool.process.pid]:
                os.kill(pid, signal.SIGKILL)
            pool.process.wait()
        vendor.gate.set()
        with PoolProcess(tmp_path, settings) as pool:
            wait(chrome, lambda d: "The server was stopped in the middle; start again" in text(d))
            start_again(chrome)
            anew = pool.call("GET", f"/admin/sign-ins/{chrome.current_url.rsplit('/', 1)[1]}", **admin)[1]
            type_in(chrome, vendor.consent(anew["url"], ada))
            wait(chrome, lambda d: "codex:ada is signed in" in text(d))
