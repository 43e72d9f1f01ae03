"""HTTP/1.1 on the wire, both ways: a server toward clients, a pool of connections toward upstreams.

Written for the data path, where each request and each event of a stream passes: llhttp (httptools) parses, asyncio
carries, nothing else stands between. It knows nothing of what it carries.

`HttpServer` takes connections, judges each by a `ConnectionTable`, and makes a `ServerConnection` of it; for every
request on it `serve(request, response)` returns a `RequestHandler`, which is told of the request's body and writes the
`Response`. `TornadoRequestHandler` (`tornado.py`) is one, behind which a Tornado application sees the connection it
knows.

`ConnectionPool` keeps and makes `ClientConnection`s to an `Origin`, directly or through a proxy; `exchange` on one
sends a request and returns an `Answer`, whose body is read as it comes.

Both kinds of connection are state machines whose tables stand in `states.py`, with `FlowControl` beside the state.
"""

from pool_server.http1.admission import ConnectionLimits, ConnectionTable, TooMany
from pool_server.http1.client_connection import (
    Answer,
    Body,
    ResponseTimeoutError,
    UpstreamDisconnectedError,
    head_start,
    with_length,
)
from pool_server.http1.connection_pool import (
    CONNECT_S,
    ConnectError,
    ConnectionPool,
    Origin,
    is_public,
    proxy_authorization,
)
from pool_server.http1.request import Headers, Request
from pool_server.http1.response import ClientDisconnectedError, RequestHandler, Response
from pool_server.http1.server import HttpServer
from pool_server.http1.server_connection import ServerConnection

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
    "UpstreamDisconnectedError",
    "head_start",
    "is_public",
    "proxy_authorization",
    "with_length",
]
