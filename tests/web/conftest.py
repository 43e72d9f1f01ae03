from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from pool_server.core.settings import Settings
from tests.web import browser
from tests.web.pool import friends_settings, open_context
from tests.web.site import Site


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Site]:
    """A pool in local mode."""
    with Site(lambda: open_context(tmp_path, Settings())) as site:
        yield site


@pytest.fixture
def friends(tmp_path: Path) -> Iterator[Site]:
    """A pool in friends mode; the code is "swim", the admin password "deep end"."""
    with Site(lambda: open_context(tmp_path, friends_settings())) as site:
        yield site


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A headless browser; the test is skipped where there is none."""
    browser.need()
    with browser.chromium(tmp_path / "profile") as driver:
        yield driver
