"""In a real browser: accounts added, changed, removed and brought back on the accounts page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.support.select import Select

from tests.fakes import account, key_account
from tests.web import browser
from tests.web.browser import complaints, find, text, wait
from tests.web.pool import ADMIN
from tests.web.server import Running, running

pytestmark = pytest.mark.browser


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Running]:
    browser.need()
    cast = [account("claude:work", used_5h=20, used_7d=10), key_account("openai:key"), key_account("mistral:key")]
    with running(tmp_path, cast, presets=("mistral",)) as made:
        yield made


def enter(driver: webdriver.Chrome, pool: Running, path: str = "/accounts") -> None:
    driver.get(pool.url + "/admin")
    form = find(driver, "form[action='/admin']")
    form.find_element("name", "password").send_keys(ADMIN)
    form.submit()
    wait(driver, lambda d: "/admin" not in d.current_url)
    driver.get(pool.url + path)


def drop(driver: webdriver.Chrome, name: str, content: str) -> None:
    """A file dropped on the field, as the browser tells a page of it."""
    driver.execute_script(
        """const [name, content] = arguments, data = new DataTransfer();
        data.items.add(new File([content], name, {type: "application/json"}));
        document.querySelector("[data-drop]").dispatchEvent(
          new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: data}));""",
        name,
        content,
    )


def open_form(driver: webdriver.Chrome) -> Any:
    details = find(driver, "#add")
    if details.get_attribute("open") is None:
        find(driver, "#add > summary").click()
    return find(driver, "form[data-call='POST /admin/accounts']")


def test_from_an_empty_pool_to_a_working_account(chrome: webdriver.Chrome, pool: Running) -> None:
    enter(chrome, pool)
    form = open_form(chrome)
    form.find_element("name", "credential").send_keys(pool.fakes.accounts["openai:key"].access)
    form.find_element("css selector", "button.primary").click()
    wait(chrome, lambda d: "choose the vendor" in text(d, "[data-said]"))
    Select(form.find_element("name", "provider")).select_by_value("openai")
    form.find_element("css selector", "button.primary").click()
    wait(chrome, lambda d: "openai:key was added and takes requests now." in text(d))
    assert len(pool.fakes.made("openai:key")) == 1
    assert [noise for noise in complaints(chrome) if "422" not in noise] == []


def test_a_subscription_needs_a_tick_which_the_audit_log_keeps(chrome: webdriver.Chrome, pool: Running) -> None:
    enter(chrome, pool)
    form = open_form(chrome)
    drop(chrome, ".credentials.json", json.dumps(pool.fakes.accounts["claude:work"].file()))
    wait(chrome, lambda d: "claudeAiOauth" in d.execute_script("return document.querySelector('[data-drop]').value"))
    form.find_element("name", "name").send_keys("mine")
    form.find_element("css selector", "button.primary").click()
    wait(chrome, lambda d: "Anthropic's terms do not allow it" in text(d, "[data-said]"))
    assert pool.fakes.calls == [] and list(pool.pool.iterdir()) == []
    form.find_element("name", "consent").click()
    form.find_element("css selector", "button.primary").click()
    wait(chrome, lambda d: "claude:mine was added" in text(d))
    rows = pool.ask("GET", "/admin/audit?action=account.add")[1]["rows"]
    assert rows[0]["detail"]["consent"].startswith("Anthropic's terms")


def test_changed_removed_and_undone(chrome: webdriver.Chrome, pool: Running) -> None:
    body = {"provider": "mistral", "api_key": pool.fakes.accounts["mistral:key"].access, "name": "k", "label": "Old"}
    made, said = pool.ask("POST", "/admin/accounts?test=0", body)
    assert made == 201, said
    enter(chrome, pool, "/accounts?id=mistral:k")
    find(chrome, "details.edit > summary").click()
    form = find(chrome, "form[data-changes]")
    field = form.find_element("name", "label")
    field.clear()
    field.send_keys("Office")
    form.find_element("css selector", "button").click()
    wait(chrome, lambda d: pool.file("mistral_k.json").get("label") == "Office")
    assert pool.file("mistral_k.json").keys() == {"api_key", "label"}, "only what was changed is written"
    wait(chrome, lambda d: find(d, "form[data-changes] input[name=label]").get_attribute("defaultValue") == "Office")
    find(chrome, "form[data-after='removed'] button").click()
    wait(chrome, lambda d: find(d, "dialog button.primary")).click()
    wait(chrome, lambda d: "mistral:k was removed" in text(d))
    assert not (pool.pool / "mistral_k.json").exists()
    find(chrome, "form.note button").click()
    wait(chrome, lambda d: (pool.pool / "mistral_k.json").exists() and d.current_url.endswith("/accounts"))
    assert complaints(chrome) == []


def test_the_forms_work_without_scripts(pool: Running, tmp_path: Path) -> None:
    options_off = tmp_path / "no-scripts"
    with browser.chromium(options_off) as driver:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        enter(driver, pool)
        form = open_form(driver)
        form.find_element("name", "credential").send_keys(pool.fakes.accounts["openai:key"].access)
        Select(form.find_element("name", "provider")).select_by_value("openai")
        form.find_element("css selector", "button.primary").click()
        wait(driver, lambda d: "openai:key was added" in text(d))
        find(driver, "details.edit > summary").click()
        field = find(driver, "details.edit input[name=priority]")
        field.clear()
        field.send_keys("7")
        find(driver, "details.edit form button").click()
        wait(driver, lambda d: pool.file("openai_key.json").get("priority") == 7)


def test_two_tabs_keep_each_others_changes_and_what_is_emptied_is_taken_away(
    chrome: webdriver.Chrome, pool: Running
) -> None:
    made = {"provider": "mistral", "api_key": "gk1234567", "name": "k", "priority": 3, "reserve": 0.5}
    pool.ask("POST", "/admin/accounts?test=0", made)
    enter(chrome, pool, "/accounts?id=mistral:k")
    first = chrome.current_window_handle
    chrome.switch_to.new_window("tab")
    chrome.get(pool.url + "/accounts?id=mistral:k")
    second = chrome.current_window_handle

    def save(tab: str, name: str, value: str) -> None:
        chrome.switch_to.window(tab)
        wait(chrome, lambda d: d.execute_script("return document.querySelector('details.edit') !== null"))
        chrome.execute_script("document.querySelector('details.edit').open = true")
        field = find(chrome, f"details.edit input[name={name}]")
        field.clear()
        field.send_keys(value)
        find(chrome, "details.edit form button").click()

    save(second, "weight", "2.5")
    wait(chrome, lambda _: pool.file("mistral_k.json").get("weight") == 2.5)
    save(second, "reserve", "7")
    wait(chrome, lambda _: pool.file("mistral_k.json").get("reserve") == 0.07)
    save(first, "priority", "")
    wait(chrome, lambda _: pool.file("mistral_k.json").get("priority", 3) is None)
    kept = pool.file("mistral_k.json")
    assert (kept["weight"], kept["reserve"], pool.row("mistral:k")["priority"]) == (2.5, 0.07, 100)
    assert complaints(chrome) == []


@pytest.mark.parametrize("width", [320, 360, 1440])
def test_nothing_runs_over_the_edge(chrome: webdriver.Chrome, pool: Running, width: int) -> None:
    pool.ask("POST", "/admin/accounts?test=0", {"provider": "mistral", "api_key": "gk1234567", "name": "k" * 100})
    browser.resize(chrome, width)
    enter(chrome, pool, "/accounts?added=mistral:" + "k" * 100)
    open_form(chrome)
    chrome.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
