"""The dashboard and the request log in a real browser: drawn, live, within every width, readable in both colours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.web import browser, usage
from tests.web.browser import all_of, chromium, complaints, find, text, wait
from tests.web.pool import exchange, seen
from tests.web.site import LiveSite, Site

pytestmark = pytest.mark.browser
DRAWN = "return [...document.querySelectorAll('canvas')].map(c => Chart.getChart(c)?.data.datasets.length ?? 0)"
# WCAG's contrast of every piece of text against the nearest ground that is painted behind it.
CONTRAST = """
const lin = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgb = (colour) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([r, g, b]) => 0.2126 * lin(r) + 0.7152 * lin(g) + 0.0722 * lin(b);
const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
  if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
const poor = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || !e.checkVisibility() || e.closest(".visually-hidden, .heat td")) continue;
  const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push([walk.currentNode.textContent.trim(), ratio.toFixed(2)]);
}
return poor;
"""
NAMELESS = """
const named = (e) => (e.labels?.length || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
  || e.textContent.trim());
return [...document.querySelectorAll("a, button, input:not([type=hidden]), select, canvas, svg[role=img]")]
  .filter((e) => !named(e)).map((e) => e.outerHTML);
"""


@pytest.fixture(autouse=True)
def _possible() -> None:
    browser.need()


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[tuple[Site, dict[str, usage.Looker]]]:
    """Ada's, Bo's and the operator's browsers over some weeks of history."""
    with LiveSite(usage.pool(tmp_path, usage.discreet("names"))) as site:
        who = {"ada": usage.friend(site, "Ada"), "bo": usage.friend(site, "Bo"), "boss": usage.admin(site)}
        usage.keep(site, usage.past((who["ada"].user, who["bo"].user), now=time.time()))
        seen(site.ctx, "claude:work", 63.0)
        seen(site.ctx, "claude:work", 31.0, window="7d", seconds=604_800)
        yield site, who


def visit(driver: webdriver.Chrome, site: Site, path: str, who: usage.Looker) -> None:
    if not driver.current_url.startswith(site.url):
        driver.get(site.url + "/healthz")
    driver.delete_all_cookies()
    driver.add_cookie({"name": "pool_session", "value": who.session, "path": "/"})
    browser.resize(driver, 1280, 4000)  # charts are drawn when they come near the window
    driver.get(site.url + path)


@pytest.mark.parametrize("dark", [False, True])
def test_everything_fits_reads_well_and_complains_of_nothing(
    tmp_path: Path, filled: tuple[Site, dict[str, usage.Looker]], dark: bool
) -> None:
    site, who = filled
    one = f"/requests/req-{who['ada'].user}-"
    own = next(r["id"] for r in who["ada"].json("/api/usage/requests?limit=1")["requests"])
    assert own.startswith(one.rpartition("/")[2])
    pages = [("/analytics?range=30d", "boss"), ("/analytics?range=24h&by=account&metric=cost", "boss"),
             ("/analytics?user=all&by=user", "ada"), ("/requests?failed=1", "boss"), (f"/requests/{own}", "boss"),
             (f"/requests/{own}", "ada"), ("/requests?account=claude:work", "boss")]  # fmt: skip
    with chromium(tmp_path / "eyes", dark=dark) as driver:
        for path, name in pages:
            visit(driver, site, path, who[name])
            for width in (320, 360, 768, 1440):
                browser.resize(driver, width)
                across = driver.execute_script("return document.documentElement.scrollWidth")
                assert across <= width, f"{path} is {across} px wide at {width}"
            for details in all_of(driver, "details:not([open]) > summary"):
                details.click()
            assert driver.execute_script(CONTRAST) == [], path
            assert driver.execute_script(NAMELESS) == [], path
        assert complaints(driver) == []


def test_charts_are_drawn_from_the_tables_and_follow_the_colours(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome
) -> None:
    site, who = filled
    visit(chrome, site, "/analytics?range=30d&by=user", who["boss"])
    wait(chrome, lambda d: d.execute_script(DRAWN) == [2, 1, 2, 2])
    values = "return Chart.getChart(document.querySelector('canvas')).data.datasets.map(d => d.data)"
    have = chrome.execute_script(values)
    asked = who["boss"].json("/api/usage/series?range=30d&by=user&bucket=day")
    drawn = [line["values"][len(line["values"]) - len(have[0]) :] for line in asked["series"]]
    assert have == drawn
    border = "return Chart.getChart(document.querySelectorAll('canvas')[1]).data.datasets[0].borderColor"
    light = chrome.execute_script(border)
    chrome.execute_script("document.documentElement.dataset.theme = 'dark'; "
                          "document.dispatchEvent(new CustomEvent('themechange'))")  # fmt: skip
    wait(chrome, lambda d: d.execute_script(border) != light)
    assert complaints(chrome) == []


def test_an_open_page_follows_what_happens(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome
) -> None:
    site, who = filled
    visit(chrome, site, "/analytics?range=24h&by=model", who["ada"])
    wait(chrome, lambda d: sum(d.execute_script(DRAWN)) > 3)
    find(chrome, "#use details summary").click()
    before = int(text(chrome, "#totals dd").replace(",", ""))
    chrome.execute_script("window.marked = document.querySelector('canvas')")
    usage.keep(site, [exchange(who["ada"].user, 9001, model="a-new-model", at=time.time())])
    wait(chrome, lambda d: int(text(d, "#totals dd").replace(",", "")) == before + 1)
    wait(chrome, lambda d: "a-new-model" in text(d, "#use-legend"))
    assert chrome.execute_script("return window.marked === document.querySelector('canvas')"), "nothing jumps"
    labels = "return Chart.getChart(document.querySelector('canvas')).data.datasets.map(d => d.label)"
    wait(chrome, lambda d: "a-new-model" in d.execute_script(labels))
    assert complaints(chrome) == []


def test_a_chart_is_drawn_when_it_comes_near_and_on_paper(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome
) -> None:
    site, who = filled
    visit(chrome, site, "/healthz", who["boss"])
    browser.resize(chrome, 1280, 300)
    chrome.get(site.url + "/analytics?range=30d&by=user")
    wait(chrome, lambda d: len(all_of(d, "[data-sheet]")) == 4)
    assert chrome.execute_script(DRAWN) == [0, 0, 0, 0]
    chrome.execute_script("document.querySelector('#use').scrollIntoView()")
    wait(chrome, lambda d: chrome.execute_script(DRAWN)[0] == 2)
    chrome.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert chrome.execute_script(DRAWN) == [2, 1, 2, 2]


def test_a_bar_shows_what_it_is_made_of(filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome) -> None:
    site, who = filled
    visit(chrome, site, "/analytics?range=30d&by=model&compare=1", who["boss"])
    wait(chrome, lambda d: sum(d.execute_script(DRAWN)) > 5)
    # Two days ago: a whole day at any hour of the test, with fewer requests than the log shows on a page.
    data = "return Chart.getChart(document.querySelector('canvas')).data"
    drawn = chrome.execute_script(
        f"{data}.datasets.filter((line) => line.stack !== 'before').map((l) => l.data.at(-3))"
    )
    canvas = find(chrome, "#use canvas")
    canvas.send_keys(Keys.END, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    label = chrome.execute_script(f"{data}.labels.at(-3)")
    told = wait(chrome, lambda d: label in text(d, "#use-part") and text(d, "#use-part"))
    cells = [cell.text for cell in all_of(chrome, "#use-part tbody td:nth-child(2)")]
    assert cells == [f"{value:,}" for value in sorted(filter(None, drawn), reverse=True)]
    assert "100 %" not in told.splitlines()[0]
    canvas.send_keys(Keys.ARROW_LEFT)
    wait(chrome, lambda d: text(d, "#use-part") != told)
    canvas.send_keys(Keys.ARROW_RIGHT)
    wait(chrome, lambda d: text(d, "#use-part") == told)
    links = {one.text: one.get_attribute("href") for one in all_of(chrome, "#use-part a")}
    chrome.get(links["Its requests"])
    rows = len(all_of(chrome, "#log tbody th"))
    assert 0 < rows < 50
    chrome.get(links["by person"])
    assert text(chrome, "#totals dd") == str(rows)
    assert complaints(chrome) == []


def test_a_click_opens_a_bar_and_close_shuts_it(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome
) -> None:
    site, who = filled
    visit(chrome, site, "/analytics?range=7d&by=model", who["ada"])
    wait(chrome, lambda d: sum(d.execute_script(DRAWN)) > 3)
    find(chrome, "#use canvas").click()
    wait(chrome, lambda d: find(d, "#use-part").is_displayed())
    find(chrome, "#use canvas").send_keys(Keys.END)
    wait(chrome, lambda d: find(d, "#use-part button")).click()
    assert not find(chrome, "#use-part").is_displayed()


def test_the_values_of_every_chart_are_a_file(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome, tmp_path: Path
) -> None:
    site, who = filled
    chrome.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "got")})
    visit(chrome, site, "/analytics?range=30d&by=user", who["boss"])
    wait(chrome, lambda d: len(all_of(d, "[data-sheet]")) == 4)
    for details in all_of(chrome, "details:has([data-sheet]) > summary"):
        details.click()
    for button in all_of(chrome, "[data-sheet]"):
        button.click()
        time.sleep(0.2)  # a browser takes one download of a page at a time
    files = wait(chrome, lambda d: len(found := list((tmp_path / "got").glob("*.csv"))) == 4 and found)
    [use] = [one.read_text("utf-8-sig").splitlines() for one in files if one.name.startswith("Use")]
    drawn = chrome.execute_script("return JSON.parse(document.querySelector('#use [data-drawing]').dataset.drawing)")
    assert len(use) == 1 + len(drawn["labels"])
    assert use[0] == '"Time",' + ",".join(f'"{line["name"]}"' for line in drawn["lines"])
    assert use[-1].split(",")[1:] == [str(line["values"][-1]) for line in drawn["lines"]]


def test_the_first_request_of_an_empty_page_brings_its_charts(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    with LiveSite(usage.pool(tmp_path, usage.discreet("own"))) as site:
        ada = usage.friend(site)
        visit(chrome, site, "/analytics", ada)
        assert "Nothing was used" in text(chrome, "#use")
        usage.keep(site, [exchange(ada.user, 1, at=time.time())])
        wait(chrome, lambda d: d.execute_script(DRAWN) == [1, 1, 2, 2])
        assert complaints(chrome) == []


def test_the_page_is_whole_without_scripts(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome
) -> None:
    site, who = filled
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    visit(chrome, site, "/analytics?range=7d", who["boss"])
    assert "tokens in the last 7 days" in text(chrome, "#use")
    find(chrome, "#use summary").send_keys(Keys.ENTER)
    assert all_of(chrome, "#use-values tbody tr")


def test_the_viewers_zone_is_told_once_and_named(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome
) -> None:
    site, who = filled
    chrome.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    visit(chrome, site, "/analytics", who["boss"])
    wait(chrome, lambda d: any(c["name"] == "tz" for c in d.get_cookies()))
    chrome.refresh()
    assert "Times in Asia/Tokyo" in text(chrome, ".colophon")


def test_filters_and_ranges_go_by_keyboard_and_stay_in_the_address(
    filled: tuple[Site, dict[str, usage.Looker]], chrome: webdriver.Chrome
) -> None:
    site, who = filled
    visit(chrome, site, "/analytics", who["boss"])
    link = next(a for a in all_of(chrome, ".sections nav a") if a.text == "30 d")
    link.send_keys(Keys.ENTER)
    wait(chrome, lambda d: "range=30d" in d.current_url)
    find(chrome, "#range summary").send_keys(Keys.ENTER)
    find(chrome, "#range [name=provider]").send_keys("Claude")
    find(chrome, "#range form button").send_keys(Keys.ENTER)
    wait(chrome, lambda d: "provider=claude" in d.current_url)
    assert "in this range" in text(chrome, "#range h2")
