"""HTTP/1.1 on the wire, both ways: the server's front toward clients, connections toward upstreams.

Written for the data path, where each request and each event of a stream passes: llhttp (httptools) parses, asyncio
carries, nothing else stands between. Pages are Tornado's, behind the same front.
"""

from pool_server.http1.admission import ConnectionLimits, ConnectionTable, TooMany
from pool_server.http1.client import Answer, Body, ResponseTimeoutError, UpstreamDisconnectedError, request_head
from pool_server.http1.front import HttpServer
from pool_server.http1.lines import CONNECT_S, ConnectError, ConnectionPool, Origin, proxy_authorization
from pool_server.http1.request import Headers, Request
from pool_server.http1.server import ClientDisconnectedError, RequestHandler, Response, ServerConnection
from pool_server.http1.tornado import TornadoConnection, TornadoRequestHandler

__all__ = [
    "CONNECT_S",
    "Answer",
    "Body",
    "ClientDisconnectedError",
    "ConnectError",
    "ConnectionLimits",
    "ConnectionPool",
    "ConnectionTable",
    "Headers",
    "HttpServer",
    "Origin",
    "Request",
    "RequestHandler",
    "Response",
    "ResponseTimeoutError",
    "ServerConnection",
    "TooMany",
    "TornadoConnection",
    "TornadoRequestHandler",
    "UpstreamDisconnectedError",
    "proxy_authorization",
    "request_head",
]
