"""HTTP/1.1 on the wire, both ways: the server's front toward clients, connections toward upstreams.

Written for the data path, where each request and each event of a stream passes: llhttp (httptools) parses, asyncio
carries, nothing else stands between. Pages are Tornado's, behind the same front.
"""

from pool_server.http1.client import Answer, Body, Broken, TooLate, request_head
from pool_server.http1.front import Front
from pool_server.http1.lines import CONNECT_S, Line, Lines, NotReached, proxy_authorization
from pool_server.http1.request import Headers, Request
from pool_server.http1.server import Gone, Response, Taker
from pool_server.http1.tornado import TornadoConnection, TornadoTaker

__all__ = [
    "CONNECT_S",
    "Answer",
    "Body",
    "Broken",
    "Front",
    "Gone",
    "Headers",
    "Line",
    "Lines",
    "NotReached",
    "Request",
    "Response",
    "Taker",
    "TooLate",
    "TornadoConnection",
    "TornadoTaker",
    "proxy_authorization",
    "request_head",
]
