"""No page is wider than its window, from a desk to a phone of 320 px at twice the size, whatever people call things."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from selenium import webdriver

from pool_server.texts import languages
from pool_server.web.base.assets.paths import templates_folder
from pool_server.web.base.page import PageHandler
from tests.web import browser
from tests.web.crowded import ACCOUNT, LONG, PAID, fill, open_crowded
from tests.web.site import LiveSite
from tests.web.test_browser import visit

pytestmark = pytest.mark.browser

WIDTHS = (160, 320, 360, 640, 768, 1440)  # CSS px; the first is a phone of 320 px at 200 %
TIGHT = WIDTHS[:2]  # where longer words in another language run over first
OPEN = ("/", "/?back=1", "/admin")
FRIENDS = (
    "/", "/?client=codex", "/keys/{key}", "/analytics", "/requests", "/requests/req-{user}-2", "/transcripts",
    "/analytics/conversations", "/analytics/conversations/{talk}", "/contribute", "/status", "/bill", "/not-here",
)  # fmt: skip
OPERATORS = (
    "/", "/analytics", "/requests", "/requests?account={account}", "/accounts", "/accounts?id={account}",
    "/admin/models", "/admin/models?id={talk}", "/admin/several-accounts",
    "/people", "/people/{user}", "/people/{user}/keys/{key}", "/audit", "/log", "/settings", "/bill", "/transcripts",
    "/whats-new", "/admin/what-if", "/admin/accounts/{paid}/spend", "/sign-ins/{sign_in}", "/analytics/conversations",
)  # fmt: skip
# Of these nothing is to be seen for longer than a moment, or only when a form was sent.
PASSING = {"signed_in.html", "done.html"}
WIDEST = """
const clipped = (one) => one && (getComputedStyle(one).overflowX !== "visible" || clipped(one.parentElement));
const over = [...document.querySelectorAll("main *, header *, footer *")].filter((one) =>
  one.getBoundingClientRect().right > arguments[0] + 0.5 && !clipped(one.parentElement));
return over.slice(0, 4).map((one) => `${Math.round(one.getBoundingClientRect().right)} ${one.outerHTML.slice(0, 110)}`);
"""


def too_wide(driver: webdriver.Chrome, page: str, widths: tuple[int, ...]) -> list[Any]:
    """Each width that the page that is open does not fit, folded and unfolded, and what runs over its edge."""
    found = []
    for unfolded in (False, True):
        if unfolded:
            driver.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
        for width in widths:
            browser.resize(driver, width)
            across = driver.execute_script("return document.documentElement.scrollWidth")
            if across > width:
                found.append((page, width, across, driver.execute_script(WIDEST, width)))
    return found


@pytest.mark.parametrize("spoken", languages.NAMES)
def test_no_page_is_wider_than_its_window(tmp_path: Path, chrome: webdriver.Chrome, spoken: str) -> None:
    shown: set[str] = set()
    page = PageHandler.page

    def noted(handler: PageHandler, template: str, **values: Any) -> None:
        shown.add(template)
        page(handler, template, **values)

    language = {"headers": {"Accept-Language": languages.TAGS[spoken]}}
    chrome.execute_cdp_cmd("Network.enable", {})
    chrome.execute_cdp_cmd("Network.setExtraHTTPHeaders", language)
    with LiveSite(lambda: open_crowded(tmp_path)) as site, mock.patch.object(PageHandler, "page", noted):
        chrome.get(site.url + "/healthz")
        who = {**fill(site), "account": ACCOUNT, "paid": PAID, "talk": LONG}
        wide = []
        for session, pages in (("", OPEN), (who["friend"], FRIENDS), (who["admin"], OPERATORS)):
            for one in pages:
                visit(chrome, site.url + one.format(**who), session)
                wide += too_wide(chrome, one, WIDTHS if spoken == "en" else TIGHT)
    assert not wide, "\n".join(map(str, wide))
    every = {path.name for path in (templates_folder() / "pages").glob("*.html") if "extends " in path.read_text()[:30]}
    assert shown == every - PASSING
