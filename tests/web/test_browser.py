"""In a real browser: a friend's first minutes, the operator's hand, and every page at every width."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from pool_server.core.settings import Limits, PoolUsers
from pool_server.texts import client_settings
from tests.clients.cases import missing, path
from tests.clients.jail import Jail, why_not
from tests.clients.stage import ServerThread
from tests.fakes import FakeProviders, account, fake_settings, key_account, plays
from tests.web import browser
from tests.web.browser import all_of, complaints, find, text, wait
from tests.web.pool import ADMIN, CODE, exchange, friends_settings, open_context, seen
from tests.web.site import LiveSite, Site

pytestmark = pytest.mark.browser
WORDS = "correct horse battery"


@pytest.fixture(autouse=True)
def _possible() -> None:
    browser.need()


class Everywhere(ServerThread):
    """The server, for a jailed CLI and for a browser outside of the jail at once."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._outside = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._outside.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def _start(self, listening: Sequence[Any]) -> None:
        self._outside.setblocking(False)
        await super()._start([self._outside, *listening])


@pytest.fixture
def cast() -> Iterator[FakeProviders]:
    accounts = [account("claude:a", used_5h=20, used_7d=10), account("codex:a", used_5h=30, used_7d=10)]
    with FakeProviders([*accounts, key_account("qwen:a")]) as fakes:
        fakes.always("claude:a", plays.ok(None, ["Hello", " from", " the fake."]))
        yield fakes


def enter(driver: webdriver.Chrome, url: str, name: str = "Ada") -> str:
    """Through the door by code; returns the first key."""
    driver.get(url)
    form = find(driver, "form")
    for field, value in (("code", CODE), ("name", name), ("passphrase", WORDS)):
        form.find_element("name", field).send_keys(value)
    form.submit()
    return str(wait(driver, lambda d: text(d, "#first-key")))


def ask(url: str, key: str, prompt: str = "say hi") -> urllib.request.Request:
    body = {"model": "claude-sonnet-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": prompt}]}
    headers = {"x-api-key": key, "Content-Type": "application/json", "anthropic-version": "2023-06-01"}
    return urllib.request.Request(f"{url}/v1/messages", json.dumps({**body, "stream": True}).encode(), headers)


def operator(url: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url + path, b"{}", headers)) as answer:
        assert answer.status == 200


class Stream(threading.Thread):
    """A friend's answer under way; `ended` is set when it is over, however that came."""

    def __init__(self, request: urllib.request.Request) -> None:
        super().__init__(daemon=True)
        self.request, self.begun, self.ended = request, threading.Event(), threading.Event()

    def run(self) -> None:
        try:
            with urllib.request.urlopen(self.request, timeout=60) as answer:
                self.begun.set()
                while answer.read1(4096):
                    pass
        except (OSError, http.client.HTTPException):
            pass
        finally:
            self.ended.set()


@pytest.mark.clis
def test_a_friends_first_minutes_with_the_real_cli(
    tmp_path: Path, cast: FakeProviders, chrome: webdriver.Chrome
) -> None:
    if reason := missing("claude") or why_not():
        pytest.skip(reason)
    more: dict[str, Any] = {"friend_code": CODE, "public_url": Jail.url, "drain_s": 1.0}
    settings = fake_settings(tmp_path, cast, pool_users=PoolUsers(admin_password=ADMIN), **more)
    home = tmp_path / "home"
    for folder in (home / "project", tmp_path / "logs"):
        folder.mkdir(parents=True)
    jail, pool = Jail(tmp_path / "logs"), Everywhere(settings)
    try:
        pool.start(jail.listening)
        key = enter(chrome, pool.url)
        assert chrome.current_url == pool.url + "/"
        assert "Waiting for your first request" in text(chrome)
        find(chrome, "#tab-claude").click()
        line = text(chrome, "[data-command=claude]")
        env = {"PATH": path(), "HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        for command in (["sh", "-c", line], ["claude", "-p", "say hi"]):
            ran = jail.run(command, env=env, cwd=home / "project")
            assert ran.code == 0, (ran.out, ran.err)
        wait(chrome, lambda d: "✓" in text(d, "#first"))
        assert "claude-" in text(chrome, "#first")
        wait(chrome, lambda d: "answered" in text(d, "#latest"))
        assert text(chrome, "#mine tbody tr td") == str(len(pool.records))
        _switched_off_and_on(chrome, pool, cast, key)
        assert complaints(chrome) == []
    finally:
        pool.stop()
        jail.close()


def _switched_off_and_on(chrome: webdriver.Chrome, pool: Everywhere, cast: FakeProviders, key: str) -> None:
    """The operator's switch ends the open stream and the open page; back on, the friend comes in again."""
    user = pool.records[0].user
    gate = plays.Gate()
    cast.then("claude:a", plays.stall(gate))
    stream = Stream(ask(pool.url, key))
    stream.start()
    assert stream.begun.wait(10)
    assert gate.wait_reached()
    operator(pool.url, f"/admin/pool-users/{user}/disable")
    assert stream.ended.wait(2), "the open stream ends within a second or so"
    wait(chrome, lambda d: "Friend code" in text(d))
    operator(pool.url, f"/admin/pool-users/{user}/enable")
    find(chrome, "main nav a[href*=back]").click()
    form = wait(chrome, lambda d: find(d, "main form") if "Sign in" in text(d) else None)
    form.find_element("name", "name").send_keys("Ada")
    form.find_element("name", "passphrase").send_keys(WORDS)
    form.submit()
    wait(chrome, lambda d: "You can use the pool now" in text(d))
    gate.open()


def busy(folder: Path) -> Any:
    """A pool in friends mode with something on every page."""
    context = open_context(folder, friends_settings(limits=Limits(tokens_day=2_000_000, cost_week=50.0)))
    seen(context, "claude:work", 63.0)
    seen(context, "claude:work", 31.0, window="7d", seconds=604_800)
    return context


def signed_in(site: Site) -> dict[str, str]:
    """The session cookies of a friend with some use and of the admin."""
    come = {"code": CODE, "name": "Ada", "passphrase": WORDS}
    entered = site.post("/api/friend/login", come)
    user = entered.json()["user"]["id"]
    for number in range(4):
        bad = {"status": 429, "outcome": "exhausted", "message": "no room"} if number == 2 else {}
        site.run(partial(site.ctx.ledger.record, exchange(user, number, **bad)))
    admin = site.post("/admin", {"password": ADMIN})
    return {
        "friend": entered.cookies()["pool_session"],
        "admin": admin.cookies()["pool_session"],
        "user": user,
        "key": site.run(lambda: site.ctx.users.people.list_keys(user))[0]["id"],
    }


def visit(driver: webdriver.Chrome, url: str, session: str) -> None:
    driver.delete_all_cookies()
    if session:
        if not driver.current_url.startswith("http"):
            driver.get(url)  # a cookie belongs to the page that is open
        driver.add_cookie({"name": "pool_session", "value": session, "path": "/"})
    driver.get(url)


def test_a_name_without_a_break_widens_no_page(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        entered = site.post("/api/friend/login", {"code": CODE, "name": "w" * 64, "passphrase": WORDS})
        user = entered.json()["user"]["id"]
        long = {"model": "m" * 64, "message": "x" * 400, "status": 400, "outcome": "request_fault"}
        site.run(lambda: site.ctx.ledger.record(exchange(user, 1, **long)))
        admin = site.post("/admin", {"password": ADMIN}).cookies()["pool_session"]
        chrome.get(site.url + "/healthz")
        own = ("/people", f"/people/{user}", "/audit", "/requests", f"/requests/req-{user}-1", "/analytics")
        for page in own:
            visit(chrome, site.url + page, admin)
            _fits(chrome, page)
        visit(chrome, site.url + "/", entered.cookies()["pool_session"])
        _fits(chrome, "/")


def _fits(driver: webdriver.Chrome, page: str) -> None:
    for width in (320, 768, 1440):
        browser.resize(driver, width)
        across = driver.execute_script("return document.documentElement.scrollWidth")
        assert across <= width, f"{page} is {across} px wide at {width}"


def test_a_page_catches_up_with_what_came_while_it_was_hidden(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    """A friend copies the line and turns to the terminal: the page is hidden when the first request comes."""
    with LiveSite(lambda: busy(tmp_path)) as site:
        entered = site.post("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": WORDS})
        visit(chrome, site.url + "/", entered.cookies()["pool_session"])
        hide = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => arguments_[0]});"
        chrome.execute_script(f"const arguments_ = arguments; {hide}", True)
        chrome.execute_script(
            "window.told = 0; const source = new EventSource('/api/live');"
            "source.addEventListener('request', () => { window.told += 1; });"
            "source.addEventListener('open', () => { window.open_ = true; });"
        )
        wait(chrome, lambda d: d.execute_script("return window.open_"))
        site.run(lambda: site.ctx.ledger.record(exchange(entered.json()["user"]["id"])))
        wait(chrome, lambda d: d.execute_script("return window.told"))
        time.sleep(1)
        assert "Waiting for your first request" in text(chrome, "#first")
        chrome.execute_script(f"const arguments_ = arguments; {hide}", False)
        chrome.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
        wait(chrome, lambda d: "✓" in text(d, "#first"))


def test_times_keep_the_pages_language_whatever_the_browsers(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    chrome.execute_cdp_cmd("Emulation.setLocaleOverride", {"locale": "de-DE"})
    chrome.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    with LiveSite(lambda: busy(tmp_path)) as site:
        user = signed_in(site)
        midnight = datetime(2026, 1, 4, 15, 5, tzinfo=UTC).timestamp()  # five past midnight in Tokyo
        site.run(lambda: site.ctx.ledger.record(exchange(user["user"], 9, at=midnight)))
        visit(chrome, site.url + "/requests", user["friend"])
        shown = [cell.text for cell in all_of(chrome, "#log time")]
        assert any(words in ("5 Jan 00:05", "5 Jan 2026 00:05", "Mon 00:05") for words in shown), shown


def test_the_operator_changes_things_by_hand(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        visit(chrome, site.url + "/accounts", who["admin"])
        find(chrome, ".item summary").click()

        def press(label: str) -> None:
            wait(chrome, lambda d: [b for b in all_of(d, "button") if b.text == label])[0].click()

        press("Turn off")
        wait(chrome, lambda d: "Off" in text(d, ".item .state.quiet"))
        assert "answers in flight are finished" in text(chrome, ".toast")
        assert "Off" in text(chrome, ".item[open] summary"), "the row that was acted on stays open"
        press("Undo")
        wait(chrome, lambda d: site.ctx.accounts.ready()[1] == 2 and not all_of(d, ".toast"))
        find(chrome, "main").click()
        find(chrome, "body").send_keys("?")
        assert "g a\nAccounts" in text(chrome, "dialog")
        press("Close")
        find(chrome, "body").send_keys("/off")
        assert find(chrome, "input[type=search]").get_attribute("value") == "off", "what is typed is no shortcut"
        find(chrome, ".item summary").send_keys("gp")
        wait(chrome, lambda d: d.current_url == site.url + "/people")
        visit(chrome, f"{site.url}/people/{who['user']}", who["admin"])
        field = find(chrome, "[name='limits.tokens_week']")
        field.send_keys("1234")
        find(chrome, "[data-none='limits.cost_week']").click()
        find(chrome, "form[data-limits] button").click()
        wait(chrome, lambda d: "Saved." in text(d))
        override = site.run(lambda: site.ctx.users.people.get(who["user"]))["limits"]
        assert override == {"tokens_week": 1234, "cost_week": None}
        assert complaints(chrome) == []


def test_a_new_key_is_shown_once_and_put_into_the_lines(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        visit(chrome, site.url + "/", who["friend"])
        find(chrome, '#keys form[action="/api/keys"] [name=label]').send_keys("laptop")
        find(chrome, '#keys form[action="/api/keys"] button').click()
        key = wait(chrome, lambda d: text(d, "#new-key code"))
        assert site.get("/status", Authorization=f"Bearer {key}").status == 200
        lines = [str(code.get_attribute("textContent")) for code in all_of(chrome, "code[data-keyed]")]
        assert lines
        assert not any("YOUR-POOL-KEY" in line for line in lines)
        chrome.refresh()
        assert key not in chrome.page_source
        assert complaints(chrome) == []


def test_tabs_go_by_keyboard_and_the_colours_are_remembered(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        visit(chrome, site.url + "/", who["friend"])
        find(chrome, "#setup summary").click()
        first, second = (str(tab.get_attribute("id"))[4:] for tab in all_of(chrome, "[role=tab]")[:2])
        find(chrome, f"#tab-{first}").send_keys("\ue014")  # the right arrow
        assert find(chrome, f"#client-{second}").is_displayed()
        assert not find(chrome, f"#client-{first}").is_displayed()
        assert chrome.switch_to.active_element.get_attribute("id") == f"tab-{second}"
        find(chrome, "[data-theme-switch]").click()
        chrome.refresh()
        assert find(chrome, "html").get_attribute("data-theme") == "light"
        assert set(client_settings.CLIS) <= {str(tab.get_attribute("id"))[4:] for tab in all_of(chrome, "[role=tab]")}


def test_without_scripts_the_pages_are_complete(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        visit(chrome, site.url + "/", who["friend"])
        find(chrome, "#setup summary").click()  # the browser opens it by itself
        shown = text(chrome)
        for words in (
            "You can use the pool now",
            "Tokens a day",
            "irm ",
            "curl -fsSL",
            "no headroom left",
            "first key",
        ):
            assert words in shown, words
