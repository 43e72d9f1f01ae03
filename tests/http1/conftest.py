"""pytest-tornado's fixtures for the adapter of this package: its server, on either event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop
from tornado.web import Application

from pool_server.http1 import HttpServer
from pool_server.http1.tornado import TornadoRequestHandler
from tests.http1 import pages
from tests.http1.wire import LOOPS


@pytest.fixture(params=LOOPS)
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        asyncio.set_event_loop(runner.get_loop())
        made = IOLoop(asyncio_loop=runner.get_loop(), make_current=False)
        yield made
        asyncio.set_event_loop(None)
    made.close()


@pytest.fixture
def app() -> Application:
    for events in (pages.left, pages.looked, pages.opened):
        events.clear()
    return Application(list(pages.PAGES.items()), log_function=lambda handler: None)


@pytest.fixture
def http_server(io_loop: IOLoop, app: Application, _unused_port: tuple[socket.socket, int]) -> Iterator[HttpServer]:
    """The adapter's server where pytest-tornado would start Tornado's."""
    server = HttpServer(lambda request, response: TornadoRequestHandler(app, request, response))
    io_loop.run_sync(lambda: server.listen([_unused_port[0]]))
    yield server
    io_loop.run_sync(server.close, timeout=30)
    _unused_port[0].close()


@pytest.fixture
def port(http_server: HttpServer, http_port: int) -> int:
    """The port of the adapter's server, which listens."""
    return http_port
