"""Rows that open: by their whole width, by Enter and without a script; and a row never has two bars of one name."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from pool_server.web.base.shared import headroom
from tests.web.browser import complaints, find, wait
from tests.web.site import LiveSite
from tests.web.test_browser import busy, signed_in, visit

# Page of the operator → where its first row leads.
ROWS = {
    "/people": "/people/u_",
    "/requests": "/requests/req-",
    "/": "/requests/req-",
    "/people/{user}": "/requests/req-",
}


@given(
    st.lists(
        st.builds(
            headroom.Gauge,
            st.text(max_size=5),
            st.none() | st.floats(0, 100),
            st.none(),
            st.none(),
            st.sampled_from(["", "extra credits: none"]),
            st.sampled_from(["5h", "7d", "1d"]),
        )
    )
)
def test_a_slim_row_has_one_bar_a_length_and_the_fullest(gauges: list[headroom.Gauge]) -> None:
    shown = headroom.slim(gauges)
    assert len({one.short for one in shown}) == len(shown) <= 2
    for one in shown:
        assert not one.bare
        assert (one.used or 0) == max(g.used or 0 for g in gauges if g.short == one.short and not g.bare)


def press(driver: webdriver.Chrome, way: str) -> bool:
    """Enter on the first row's heading, or a click beside everything of the row that has a use of its own."""
    if way == "enter":
        find(driver, "main tbody tr > th[scope=row] > a").send_keys(Keys.ENTER)
    else:
        driver.execute_script(
            "const row = document.querySelector('main tbody tr > th[scope=row] > a').closest('tr');"
            "[...row.cells].find((cell) => !cell.querySelector('a, button')).click()"
        )
    return True


def is_at(driver: webdriver.Chrome, address: str) -> bool:
    return driver.current_url.startswith(address)


@pytest.mark.browser
def test_a_row_is_opened_by_its_whole_width_and_by_enter(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        for page, target in ROWS.items():
            for way in ("click", "enter"):
                visit(chrome, site.url + page.format(**who), who["admin"])
                wait(chrome, partial(press, way=way))
                wait(chrome, partial(is_at, address=site.url + target.format(**who)))
        assert complaints(chrome) == []


@pytest.mark.browser
def test_marking_a_word_of_a_row_or_pressing_its_button_leads_nowhere(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(lambda: busy(tmp_path)) as site:
        who = signed_in(site)
        visit(chrome, f"{site.url}/people/{who['user']}", who["admin"])
        here = chrome.current_url
        chrome.execute_script(
            "[...document.querySelectorAll('main tbody button')].find((b) => b.checkVisibility()).click()"
        )
        assert chrome.current_url == here
        visit(chrome, site.url + "/requests", who["admin"])
        chrome.execute_script(
            "const cell = document.querySelector('main tbody td.named');"
            "getSelection().selectAllChildren(cell); cell.click()"
        )
        assert chrome.current_url == site.url + "/requests"
