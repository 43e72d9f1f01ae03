"""The pages one signs in by: in the middle at every width, the rule before the error, the code filled in."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains

from tests.web import browser
from tests.web.browser import all_of, complaints, find, text, wait
from tests.web.pool import ADMIN, CODE
from tests.web.site import LiveSite
from tests.web.test_browser import WORDS, busy

pytestmark = pytest.mark.browser

WIDTHS = (320, 360, 412, 600, 768, 1024, 1440, 2560)
PLACE = """
const box = document.querySelector(".card").getBoundingClientRect();
return [box.left, innerWidth - box.right, box.width, document.documentElement.scrollWidth - innerWidth];
"""


@pytest.mark.parametrize("page", ["/", "/?back=1", "/admin", "/?code=swim"])
def test_it_stands_in_the_middle_at_every_width(tmp_path: Path, chrome: webdriver.Chrome, page: str) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        for width in WIDTHS:
            browser.resize(chrome, width)
            chrome.get(site.url + page)
            left, right, wide, over = chrome.execute_script(PLACE)
            assert abs(left - right) <= 1 and wide <= 400 and over <= 0, (width, left, right)
        assert complaints(chrome) == []


def test_a_link_a_name_and_a_passphrase_are_all_it_takes(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        chrome.get(f"{site.url}/?code={CODE}")
        assert [tab.text for tab in all_of(chrome, ".tabs a")] == ["New here", "Back again"]
        assert "At least 8 characters" in text(chrome, "#rule"), "before anything was typed"
        assert find(chrome, "input[name=code]").get_attribute("value") == CODE
        find(chrome, "input[name=name]").send_keys("Ada")
        field = find(chrome, "input[name=passphrase]")
        field.send_keys(WORDS)
        find(chrome, "[data-show]").click()
        assert field.get_attribute("type") == "text"
        ActionChains(chrome).double_click(find(chrome, "form .primary")).perform()
        wait(chrome, lambda d: "Welcome, Ada" in text(d, "h1"))
        everybody = site.run(lambda: site.ctx.users.people.list_users(limit=9)[0])
        assert [one["name"] for one in everybody] == ["Ada"], "pressed twice, in once"
        chrome.refresh()
        wait(chrome, lambda d: "You can use the pool now" in text(d, "h1"))
        assert not all_of(chrome, "#first-key"), "a key is shown once"


def test_the_operators_password_twice_wrong_and_then_right(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        chrome.get(site.url + "/admin")
        for said in ("wrong", ADMIN):
            find(chrome, "input[type=password]").send_keys(said)
            find(chrome, "form .primary").click()
            if said == "wrong":
                problem = wait(chrome, lambda d: find(d, "#problem"))
                described = find(chrome, "input[type=password]").get_attribute("aria-describedby")
                assert problem.text and described == "problem"
        wait(chrome, lambda d: "needs attention" in text(d, "main"))


TOPS = """return [...document.querySelectorAll(".masthead, main, .card h1, .card form:not([hidden]) .primary")]
  .map((one) => Math.round(one.getBoundingClientRect().bottom));"""


def test_nothing_moves_once_the_script_has_run(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    """Its place is kept for what only a script can do: the switch of colours, the tick that shows the passphrase."""
    browser.resize(chrome, 412)
    chrome.execute_cdp_cmd("Network.enable", {})
    with LiveSite(lambda: busy(tmp_path)) as site:
        for page in ("/", "/?back=1"):
            tops = []
            for blocked in (["*.js*"], []):
                chrome.execute_cdp_cmd("Network.setBlockedURLs", {"urls": blocked})
                chrome.get(site.url + page)
                shown = chrome.execute_script("return !document.querySelector('[data-theme-switch]').hidden")
                assert shown or blocked
                tops.append(chrome.execute_script(TOPS))
            assert len(tops[0]) >= 4 and tops[0] == tops[1], page
