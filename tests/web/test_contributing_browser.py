"""In a real browser: the operator's invitation, the friend who follows it, brings an account and takes it out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.select import Select

from tests.fakes import account, key_account
from tests.web import browser
from tests.web.browser import complaints, find, text, wait
from tests.web.server import Running, running
from tests.web.test_adding_browser import enter

pytestmark = pytest.mark.browser


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Running]:
    browser.need()
    cast = [key_account("mistral:key"), account("claude:work", used_5h=20, used_7d=10)]
    with running(tmp_path, cast, presets=("mistral",)) as made:
        yield made


def follow(driver: webdriver.Chrome, url: str) -> None:
    """Through the door by the invitation's link, to one's own accounts."""
    driver.delete_all_cookies()
    driver.get(url)
    form = find(driver, "form")
    form.find_element("name", "name").send_keys("Ada")
    form.find_element("name", "passphrase").send_keys("correct horse battery")
    form.submit()
    wait(driver, lambda d: text(d, "#first-key"))
    find(driver, "nav a[href='/contribute']").click()
    wait(driver, lambda d: "Bring an account" in text(d))


def test_invited_brought_and_withdrawn(chrome: webdriver.Chrome, pool: Running) -> None:
    enter(chrome, pool, "/people")
    find(chrome, "#add summary").click()
    form = find(chrome, "form[data-call='POST /admin/invitations']:has([value=account])")
    form.find_element("name", "label").send_keys("for Ada")
    form.find_element("css selector", "button").click()
    url = str(wait(chrome, lambda d: text(d, "#new-invitation code")))
    assert url.startswith(pool.url + "/?code=")
    wait(chrome, lambda d: "for Ada" in text(d, "#codes"))
    follow(chrome, url)
    assert "sold to you; sharing it may break its terms" in text(chrome)
    form = find(chrome, "form[data-call='POST /api/accounts']")
    form.find_element("name", "credential").send_keys(pool.fakes.accounts["mistral:key"].access)
    Select(form.find_element("name", "provider")).select_by_value("mistral")
    form.find_element("css selector", "button").click()
    wait(chrome, lambda d: "You share 1 account" in text(d))
    assert pool.row("mistral:key")["owner"].startswith("u_")
    find(chrome, "#own button.danger").click()
    wait(chrome, lambda d: find(d, "dialog button.primary")).click()
    wait(chrome, lambda d: "You share no account" in text(d, "h1"))
    assert pool.ask("GET", "/admin/accounts")[1]["accounts"] == [] and complaints(chrome) == []


def test_a_subscription_is_signed_in_with_a_line(chrome: webdriver.Chrome, pool: Running) -> None:
    made = pool.ask("POST", "/admin/invitations", {"kind": "account", "provider": "claude"})[1]
    follow(chrome, made["url"])
    form = find(chrome, "form[data-call='POST /api/sign-ins']")
    form.find_element("css selector", "button").click()
    wait(chrome, lambda d: "Tick that you have read this" in text(d))
    form.find_element("name", "consent").click()
    form.find_element("css selector", "button").click()
    wait(chrome, lambda d: "/contribute/" in text(d, ".copy code"))
    find(chrome, "button.plain.flush").click()
    wait(chrome, lambda d: d.current_url.endswith("/contribute"))


@pytest.mark.parametrize("width", [320, 360, 1440])
def test_nothing_runs_over_the_edge(chrome: webdriver.Chrome, pool: Running, width: int) -> None:
    made = pool.ask("POST", "/admin/invitations", {"kind": "account"})[1]
    browser.resize(chrome, width)
    follow(chrome, made["url"])
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
