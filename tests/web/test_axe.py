"""axe finds nothing on any page, in either scheme, on the narrowest phone and on a desk; and nothing overflows."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.clients.cases import DIRECTORY
from tests.web import browser
from tests.web.pool import exchange
from tests.web.site import LiveSite
from tests.web.test_browser import busy, signed_in, visit

pytestmark = pytest.mark.browser

AXE = DIRECTORY / "axe/node_modules/axe-core/axe.min.js"
# Page → what its heading says, or part of it: with another heading it is another page, such as one that tells an error.
FRIENDS = {
    "/": "You can use the pool now.",
    "/?client=codex": "You can use the pool now.",
    "/keys/{key}": "first key",
    "/analytics": "You used",
    "/requests": "Your requests",
    "/analytics/conversations/c0ffee": "no price for 1 request",
    "/contribute": "You share no account",
    "/status": "The pool is up",
}
OPERATORS = {
    "/": "1 thing needs attention",
    "/analytics": "tokens in the last hour",
    "/analytics?compare=1&by=conversation": "tokens in the last hour",
    "/requests": "Requests",
    "/requests/req-none-9": "a-model-with-a-long-name",
    "/analytics/conversations": "Conversations, last 7 days",
    "/accounts?id=claude:work": "2 of 2 accounts are ready",
    "/admin/several-accounts": "Several accounts",
    "/admin/models": "Models",
    "/people": "1 person",
    "/people/{user}": "Ada",
    "/people/{user}/keys/{key}": "first key",
    "/audit": "Audit",
    "/log": "Log",
    "/whats-new": "What is new",
    "/settings": "differ from the default",
}
OPEN = {"/": "Blue pool", "/?back=1": "Blue pool", "/admin": "Operator"}
STATUS = "return performance.getEntriesByType('navigation')[0].responseStatus"
RUN = """
const done = arguments[0];
const told = (node) => node.html.slice(0, 160) + " " + node.any.map((check) => check.message).join("; ");
axe.run(document, {resultTypes: ["violations"], preload: false})
  .then((found) => done(found.violations.map((one) => [one.id, ...one.nodes.slice(0, 2).map(told)])));
"""


def faults(chrome: webdriver.Chrome, width: int) -> list[Any]:
    """What axe says of the page that is open, with all that is folded away unfolded; and whether it overflows."""
    chrome.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    found: list[Any] = chrome.execute_async_script(RUN)
    # Not against innerWidth: a phone zooms out, and its window is then as wide as what runs over.
    wide = chrome.execute_script("return document.documentElement.scrollWidth") - width
    return [*found, f"{wide} px too wide"] if wide > 0 else found


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1440, "light")])
def test_axe_finds_nothing(tmp_path: Path, chrome: webdriver.Chrome, width: int, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is missing (CLIENTS_DIR)")
    script = {"source": AXE.read_text(encoding="utf-8")}
    chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)  # not sent again for each page
    chrome.set_script_timeout(5 * browser.PATIENCE_S)  # axe looks at each element of a long page
    browser.resize(chrome, width)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        long = exchange(who["user"], 9, id="req-none-9", session="c0ffee", model="a-model-" + "with-a-long-name-" * 6)
        site.run(partial(site.ctx.ledger.record, long))
        for session, pages in (("", OPEN), (who["friend"], FRIENDS), (who["admin"], OPERATORS)):
            for page, heading in pages.items():
                visit(chrome, site.url + page.format(**who), session)
                assert chrome.execute_script(STATUS) == 200 and heading in browser.text(chrome, "h1"), page
                assert faults(chrome, width) == [], page
    assert browser.complaints(chrome) == []
