from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.web import Application

from pool_server.core.settings import Settings
from pool_server.http1 import HttpServer
from pool_server.web import WebContext, application
from tests.web import browser
from tests.web.pool import close_context, friends_settings, open_context
from tests.web.site import WITHIN_S, LiveSite, Site, serve


@pytest.fixture
def no_loop() -> None:
    asyncio.set_event_loop(None)  # where none was ever set, Tornado would have one made that nobody closes


@pytest.fixture
def io_loop(no_loop: None, io_loop: IOLoop) -> IOLoop:
    return io_loop


@pytest.fixture
def ctx(request: pytest.FixtureRequest, io_loop: IOLoop, tmp_path: Path) -> Iterator[WebContext]:
    """The rooms of a pool in local mode; in friends mode for `friends`; with the settings of `@pytest.mark.pool`."""
    mark = request.node.get_closest_marker("pool")
    settings = friends_settings() if "friends" in request.fixturenames else Settings()

    async def build() -> WebContext:
        return open_context(tmp_path, mark.args[0] if mark else settings)

    context: WebContext = io_loop.run_sync(build)
    yield context
    io_loop.run_sync(lambda: close_context(context), timeout=WITHIN_S)


@pytest.fixture
def app(ctx: WebContext) -> Application:
    return application(ctx)


@pytest.fixture
def http_server(
    io_loop: IOLoop, ctx: WebContext, app: Application, _unused_port: tuple[socket.socket, int]
) -> Iterator[HttpServer]:
    """The product's server where pytest-tornado would start Tornado's."""
    front = serve(app)
    io_loop.run_sync(lambda: front.listen([_unused_port[0]]))
    yield front
    ctx.draining = True
    io_loop.run_sync(front.close, timeout=WITHIN_S)


@pytest.fixture
def base_url(http_port: int) -> str:
    """By address: what pages are told of the host they are called by is compared."""
    return f"http://127.0.0.1:{http_port}"


@pytest.fixture
def site(ctx: WebContext, io_loop: IOLoop, http_client: AsyncHTTPClient, base_url: str) -> Site:
    return Site(ctx, io_loop, http_client, base_url)


@pytest.fixture
def local(site: Site) -> Site:
    """A pool in local mode."""
    return site


@pytest.fixture
def friends(site: Site) -> Site:
    """A pool in friends mode; the code is "swim", the admin password "deep end"."""
    return site


@pytest.fixture
def live_friends(tmp_path: Path) -> Iterator[LiveSite]:
    """`friends` for whoever calls from outside the test's process."""
    with LiveSite(lambda: open_context(tmp_path, friends_settings())) as site:
        yield site


@pytest.fixture
def chrome(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A headless browser; the test is skipped where there is none."""
    browser.need()
    with browser.chromium(tmp_path / "profile") as driver:
        yield driver
