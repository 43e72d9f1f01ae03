"""Headless Chromium, as the tests and the screenshots use it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
PATIENCE_S = 60
_REPLACED = "does not belong to the document"  # what Chromium says of an element in a page that is just leaving


def need() -> None:
    """Skips the test, saying why, where there is no browser or no driver."""
    for tool in ("chromium", "chromedriver"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@contextmanager
def chromium(profile: Path, *, width: int = 1280, dark: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser with a profile folder of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        resize(driver, width)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int = 1000) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait(driver: webdriver.Chrome, what: Callable[[webdriver.Chrome], Any]) -> Any:
    """The first true value; elements that are being replaced are looked for again."""

    def look(driver: webdriver.Chrome) -> Any:
        try:
            return what(driver)
        except WebDriverException as error:
            if isinstance(error, StaleElementReferenceException) or _REPLACED in str(error.msg):
                return False
            raise

    return WebDriverWait(driver, PATIENCE_S, 0.1).until(look)


def find(driver: webdriver.Chrome, css: str) -> Any:
    return driver.find_element(By.CSS_SELECTOR, css)


def all_of(driver: webdriver.Chrome, css: str) -> list[Any]:
    return driver.find_elements(By.CSS_SELECTOR, css)


def text(driver: webdriver.Chrome, css: str = "main") -> str:
    return str(find(driver, css).text)


def complaints(driver: webdriver.Chrome) -> list[str]:
    """What the browser's console complained of: script errors, refused resources, content security."""
    return [f"{entry['level']} {entry['message']}" for entry in driver.get_log("browser")]  # type: ignore[no-untyped-call]
