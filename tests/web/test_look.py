"""What all pages have in common to the eye: few sizes of type, one heading that says what the page is, marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from tests.web import browser
from tests.web.crowded import ACCOUNT, LONG, PAID, fill, open_crowded
from tests.web.site import LiveSite
from tests.web.test_browser import visit
from tests.web.test_narrow import FRIENDS, OPEN, OPERATORS

pytestmark = pytest.mark.browser

SIZES = {13, 14, 18, 24}  # px: secondary, text, headings of sections, the focal line
TYPE = """
const found = {};
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const at = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || at.closest(".visually-hidden, script, option")) continue;
  const size = parseFloat(getComputedStyle(at).fontSize);
  found[size] ??= at.outerHTML.slice(0, 120);
}
return found;
"""
FOCAL = """
const heads = [...document.querySelectorAll("h1")].filter((one) => one.checkVisibility());
return heads.map((one) => parseFloat(getComputedStyle(one).fontSize));
"""
BLANK = """
return Promise.all([...document.querySelectorAll(".icon use")].map(async (one) => {
  const [sheet, name] = one.getAttribute("href").split("#");
  const drawn = new DOMParser().parseFromString(await (await fetch(sheet)).text(), "image/svg+xml");
  return drawn.getElementById(name) ? "" : name;
})).then((names) => names.filter(Boolean));
"""
# Figures of equal width make hyphens as wide: a name would be torn apart.
TORN = """
return [...document.querySelectorAll("td.named, .name, main tbody th:not(.values th), h1, h2, p")]
  .filter((one) => getComputedStyle(one).fontVariantNumeric.includes("tabular"))
  .map((one) => one.outerHTML.slice(0, 120));
"""

# A letter mark whose name begins on another line: a long name must break, not leave its mark alone.
LEFT_ALONE = """
return [...document.querySelectorAll(".swatch.mark")].filter((one) => {
  const range = document.createRange();
  const walk = document.createTreeWalker(one.parentElement, NodeFilter.SHOW_TEXT);
  const follows = (text) => one.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
  do { if (!walk.nextNode()) return false; } while (!follows(walk.currentNode) || !walk.currentNode.textContent.trim());
  range.setStart(walk.currentNode, 0);
  range.setEnd(walk.currentNode, 1);
  return one.checkVisibility() && range.getBoundingClientRect().top > one.getBoundingClientRect().bottom;
}).map((one) => one.parentElement.outerHTML.slice(0, 200));
"""
LISTS = ("/accounts", "/people", "/requests", "/admin/models", "/analytics/conversations")
EARLY = 480  # px: on a phone of 900 what a list is for begins in its upper half, whatever stands above it
FIRST_ROW = """
return document.querySelector("main table.rows tbody tr, .items > .item").getBoundingClientRect().top + scrollY;
"""


def strange(driver: webdriver.Chrome) -> list[Any]:
    """What of the open page has no size of the scale, no one focal line, no drawing, or torn hyphens."""
    sizes = {size: of for size, of in driver.execute_script(TYPE).items() if float(size) not in SIZES}
    heads = driver.execute_script(FOCAL)
    blank, torn = driver.execute_script(BLANK), driver.execute_script(TORN)
    return [one for one in (sizes, heads if heads != [24] else None, blank, torn) if one]


def test_pages_keep_to_the_scale_of_type_and_have_one_focal_line(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    browser.resize(chrome, 1440)
    found = []
    with LiveSite(lambda: open_crowded(tmp_path)) as site:
        chrome.get(site.url + "/healthz")
        who = {**fill(site), "account": ACCOUNT, "paid": PAID, "talk": LONG}
        for session, pages in (("", OPEN), (who["friend"], FRIENDS), (who["admin"], OPERATORS)):
            for page in pages:
                visit(chrome, site.url + page.format(**who), session)
                found += [(page, one) for one in strange(chrome)]
    assert not found, "\n".join(map(str, found))


def test_on_a_phone_lists_begin_early_and_long_names_stay_beside_their_marks(
    tmp_path: Path, chrome: webdriver.Chrome
) -> None:
    found: list[tuple[int, str, Any]] = []
    with LiveSite(lambda: open_crowded(tmp_path)) as site:
        chrome.get(site.url + "/healthz")
        who = {**fill(site), "account": ACCOUNT, "paid": PAID, "talk": LONG}
        for width in (360, 768):
            browser.resize(chrome, width, 900)
            for page in OPERATORS:
                visit(chrome, site.url + page.format(**who), who["admin"])
                found += [(width, page, one) for one in chrome.execute_script(LEFT_ALONE)]
                if width == 360 and page in LISTS:
                    top = chrome.execute_script(FIRST_ROW)
                    found += [(width, page, top)] if top > EARLY else []
    assert not found, "\n".join(map(str, found))
