"""What is typed into a page stays there when the session ends, and a page finds its server again."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from selenium import webdriver

from pool_server.users.models import AuditActor
from pool_server.web.base.assets.bundle import assets
from tests.web.browser import complaints, find, text, wait
from tests.web.pool import ADMIN, exchange
from tests.web.site import LiveSite
from tests.web.test_browser import busy, signed_in, visit

pytestmark = pytest.mark.browser


def typed(driver: webdriver.Chrome, url: str, session: str) -> str:
    """A note for a person, in a page that is live (its banner would be)."""
    visit(driver, url, session)
    field = find(driver, "[name='note']")
    field.send_keys("met at the lake")
    return str(field.get_attribute("value"))


def sign_in(driver: webdriver.Chrome, session: str) -> None:
    """As in another tab: the page that is open stays."""
    driver.delete_all_cookies()
    driver.add_cookie({"name": "pool_session", "value": session, "path": "/"})


def test_a_session_that_ends_takes_nothing_typed_with_it(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        assert typed(chrome, f"{site.url}/people/{who['user']}", who["admin"]) == "met at the lake"
        signed_out = site.post("/api/friend/logout", {}, Cookie=f"pool_session={who['admin']}", **{
            "X-XSRFToken": site.ctx.users.page_token(who["admin"]), "Content-Type": "application/json",
        })  # fmt: skip
        assert signed_out.status < 400, signed_out.text
        save = "form.column button"
        find(chrome, save).click()
        wait(chrome, lambda d: "You were signed out. Sign in again in another tab" in text(d))
        assert find(chrome, "[name='note']").get_attribute("value") == "met at the lake"
        # Another person's session does not send what this one has typed.
        sign_in(chrome, who["friend"])
        find(chrome, save).click()
        wait(chrome, lambda d: "reload" in text(d) or "not yours" in text(d))
        assert site.run(lambda: site.ctx.users.people.get(who["user"]))["note"] == ""
        sign_in(chrome, site.post("/admin", {"password": ADMIN}).cookies()["pool_session"])
        find(chrome, save).click()
        wait(chrome, lambda d: site.run(lambda: site.ctx.users.people.get(who["user"]))["note"] == "met at the lake")


def test_a_live_page_that_is_signed_out_keeps_what_is_typed(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        visit(chrome, site.url + "/requests", who["friend"])
        find(chrome, "[name='id']").send_keys("req-1")
        site.run(lambda: site.ctx.users.people.end_sessions(who["user"], actor=AuditActor("admin")))
        wait(chrome, lambda d: "what you typed here stays" in text(d, "body"))
        assert find(chrome, "[name='id']").get_attribute("value") == "req-1"


def test_a_live_part_with_something_typed_waits(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        visit(chrome, site.url + "/requests", who["admin"])
        before = text(chrome, "#log")
        chrome.execute_script(
            "const field = document.createElement('input'); field.id = 'mine'; field.value = 'typed';"
            "document.getElementById('log').append(field);"
        )
        site.run(partial(site.ctx.ledger.record, exchange(who["user"], 9)))
        chrome.execute_script(
            "window.told = 0; new EventSource('/api/live').addEventListener('request', () => window.told++)"
        )
        site.run(partial(site.ctx.ledger.record, exchange(who["user"], 10)))
        wait(chrome, lambda d: d.execute_script("return window.told") > 0)
        assert find(chrome, "#mine").get_attribute("value") == "typed"
        chrome.execute_script("document.getElementById('mine').value = ''; document.body.focus();"
                              "document.dispatchEvent(new Event('focusout'))")  # fmt: skip
        wait(chrome, lambda d: text(d, "#log") != before)


def test_a_page_that_is_open_while_the_server_is_upgraded(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        here = "return document.querySelector('link[rel=stylesheet]').href"
        visit(chrome, site.url + "/requests", who["admin"])
        chrome.execute_script("document.querySelector('[name=id]').value = 'typed'; window.before = true")
        with mock.patch.object(assets(), "version", "0" * 16):
            site.run(partial(site.ctx.ledger.record, exchange(who["user"], 9)))
            wait(chrome, lambda d: "The pool was upgraded" in text(d, "body"))
            assert find(chrome, "[name=id]").get_attribute(
                "value"
            ) == "typed" and "0" * 16 not in chrome.execute_script(here)
            chrome.execute_script("document.querySelector('[name=id]').value = ''")
            site.run(partial(site.ctx.ledger.record, exchange(who["user"], 10)))
            wait(chrome, lambda d: "0" * 16 in d.execute_script(here))
            assert not chrome.execute_script("return window.before") and complaints(chrome) == []
            # What scripts of the version before still ask for is there, and not kept for long.
            old = site.get(chrome.execute_script(here).removeprefix(site.url).replace("0" * 16, "f" * 16))
            assert old.status == 200 and old.headers["Cache-Control"] == "no-cache"


def test_a_page_finds_its_server_again_behind_a_proxy(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    """While the server starts, a proxy answers 502: for the browser's own trying that is an end."""
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": """
            const Real = EventSource; window.made = 0;
            window.EventSource = class extends Real {
              constructor(url) { super(window.made++ === 0 ? "/not-here" : url); }
            };
        """})  # fmt: skip
        visit(chrome, site.url + "/requests", who["admin"])
        wait(chrome, lambda d: d.execute_script("return window.made") == 2)
        before = text(chrome, "#log")

        async def record() -> None:
            await asyncio.sleep(0)
            await site.ctx.ledger.record(exchange(who["user"], 9))

        site.run(record)
        wait(chrome, lambda d: text(d, "#log") != before)
        assert all("404" in line or "MIME" in line for line in complaints(chrome))
