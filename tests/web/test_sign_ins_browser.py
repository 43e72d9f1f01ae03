"""In a real browser: the page of a sign-in, live, with each way and its failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.select import Select

from tests.fakes import account
from tests.fakes.openai_auth import FakeSignInService
from tests.web import browser
from tests.web.browser import all_of, complaints, find, text, wait
from tests.web.server import Running, running
from tests.web.test_adding_browser import enter, open_form
from tests.web.test_sign_ins import person, ticket

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


def start(driver: webdriver.Chrome, pool: Running, provider: str, flow: str) -> str:
    """Begin on the accounts page, with the tick; the id of the sign-in."""
    enter(driver, pool)
    open_form(driver)
    form = find(driver, "form[data-call='POST /admin/sign-ins']")
    Select(form.find_element("name", "provider")).select_by_value(provider)
    Select(form.find_element("name", "flow")).select_by_value(flow)
    form.find_element("name", "name").send_keys("mine")
    form.find_element("css selector", "button").click()
    wait(driver, lambda d: "Tick that you have read this" in text(d))
    form.find_element("name", "consent").click()
    form.find_element("css selector", "button").click()
    wait(driver, lambda d: "/sign-ins/" in d.current_url)
    return str(driver.current_url.rsplit("/", 1)[1])


def quiet(driver: webdriver.Chrome) -> bool:
    return [noise for noise in complaints(driver) if "422" not in noise] == []


def test_a_line_is_shown_and_its_end_comes_by_itself(chrome: webdriver.Chrome, pool: Running) -> None:
    ident = start(chrome, pool, "claude", "line")
    made = pool.ask("GET", f"/admin/sign-ins/{ident}")[1]
    assert [one.text for one in all_of(chrome, ".copy code")] == [made["lines"]["sh"], made["lines"]["powershell"]]
    pool.ask("GET", f"/contribute/{ticket(made)}")
    wait(chrome, lambda d: "Finish the sign-in that the line has begun" in text(d))
    file = json.dumps(pool.fakes.accounts["claude:work"].file()).encode()
    assert pool.ask("POST", f"/contribute/{ticket(made)}", file, Authorization="", Content_Type="text/plain")[0] == 201
    wait(chrome, lambda d: "claude:mine is signed in" in text(d))
    find(chrome, "main a.button").click()
    wait(chrome, lambda d: "claude:mine was added and takes requests now." in text(d))
    row = pool.ask("GET", "/admin/audit?action=sign_in.start")[1]["rows"][0]
    assert row["detail"]["consent"].startswith("Anthropic's terms") and quiet(chrome)


def test_a_device_code_is_shown_and_its_end_comes_by_itself(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService
) -> None:
    start(chrome, pool, "codex", "device")
    assert text(chrome, ".copy code") == "ABCD-1234" and "device code authorization" in text(chrome)
    vendor.person = pool.fakes.add(person("ada"))
    wait(chrome, lambda d: "codex:mine is signed in" in text(d))
    assert vendor.person.email in text(chrome) and vendor.person.account_id in text(chrome) and quiet(chrome)


def test_no_device_codes_leads_to_the_browser(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService
) -> None:
    vendor.usercode = (404, {})
    start(chrome, pool, "codex", "device")
    assert "It did not work" in text(chrome)
    find(chrome, "main form button").click()
    wait(chrome, lambda d: "copy the whole address" in text(d))


def test_an_address_is_pasted_after_wrong_ones(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService
) -> None:
    ident = start(chrome, pool, "codex", "browser")
    ada = pool.fakes.add(person("ada"))
    good = vendor.consent(pool.ask("GET", f"/admin/sign-ins/{ident}")[1]["url"], ada)
    field = find(chrome, "textarea[name=code]")
    field.send_keys("123456")
    find(chrome, "main form button.primary").click()
    wait(chrome, lambda d: "it belongs into the vendor's page" in text(d))
    chrome.get(chrome.current_url)  # closed in the middle and opened again
    find(chrome, "textarea[name=code]").send_keys(good)
    find(chrome, "main form button.primary").click()
    wait(chrome, lambda d: "codex:mine is signed in" in text(d))
    assert quiet(chrome)


def test_another_persons_sign_in_asks_what_becomes_of_it(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService
) -> None:
    old = pool.fakes.add(person("ada", workspace="ws-1", user="u-1"))
    pool.ask("POST", "/admin/accounts", {"name": "old", "credential": old.file()})
    made = pool.ask("POST", "/admin/sign-ins", {"provider": "codex", "flow": "browser", "account": "codex:old"})[1]
    bob = pool.fakes.add(person("bob", workspace="ws-1", user="u-2", token=1))
    enter(chrome, pool, f"/sign-ins/{made['id']}")
    find(chrome, "textarea[name=code]").send_keys(vendor.consent(made["url"], bob))
    find(chrome, "main form button.primary").click()
    wait(chrome, lambda d: "Replace codex:old" in text(d))
    find(chrome, "main .actions form:nth-of-type(2) button").click()
    wait(chrome, lambda d: "is signed in" in text(d))
    assert pool.file("codex_old.json")["tokens"]["access_token"] == old.access


def test_cancelled(chrome: webdriver.Chrome, pool: Running) -> None:
    ident = start(chrome, pool, "claude", "line")
    find(chrome, "button.plain.flush").click()
    wait(chrome, lambda d: d.current_url.endswith("/accounts"))
    assert pool.ask("GET", f"/admin/sign-ins/{ident}")[0] == 404


@pytest.mark.parametrize("width", [320, 360, 1440])
def test_nothing_runs_over_the_edge(
    chrome: webdriver.Chrome, pool: Running, vendor: FakeSignInService, width: int
) -> None:
    browser.resize(chrome, width)
    enter(chrome, pool)
    for flow in ("line", "device", "browser"):
        made = pool.ask("POST", "/admin/sign-ins", {"provider": "codex", "flow": flow})[1]
        chrome.get(f"{pool.url}/sign-ins/{made['id']}")
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
