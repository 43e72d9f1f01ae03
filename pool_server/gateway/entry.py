"""The data plane's entry: picks the requests that are its own out of the server's traffic."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from pool_server.core.enums import Operation
from pool_server.gateway.http.handler import HttpExchange
from pool_server.gateway.routes import Route, match
from pool_server.gateway.service import DataPlane
from pool_server.http1 import Request, RequestHandler, Response

if TYPE_CHECKING:
    from tornado.web import Application

    from pool_server.gateway.websocket.relay import RelaySocket


class Gateway(DataPlane):
    """The data plane with its transports. Each request is offered to it first; other paths belong to the pages."""

    @functools.cached_property
    def _sockets(self) -> dict[type[RelaySocket], Application]:
        """Tornado's application for each kind of socket that was asked for."""
        return {}

    def take(self, request: Request, response: Response) -> RequestHandler | None:
        """Who answers a request of the data plane; None for all others."""
        route = match(request.method, request.path, request.headers)
        if route is None:
            return None
        if route.websocket:
            return self._socket(route, request, response)
        return HttpExchange(self, request, response, route)

    def _socket(self, route: Route, request: Request, response: Response) -> RequestHandler:
        """Tornado, which holds the clients' sockets, is loaded with the first one: a start need not wait for it."""
        from pool_server.gateway.websocket.handler import CodexSocket
        from pool_server.gateway.websocket.live_socket import RealtimeSocket
        from pool_server.gateway.websocket.relay import socket_application
        from pool_server.http1.tornado import TornadoRequestHandler

        kind = RealtimeSocket if route.operation is Operation.REALTIME else CodexSocket
        if kind not in self._sockets:
            self._sockets[kind] = socket_application(self, kind)
        return TornadoRequestHandler(self._sockets[kind], request, response)
