"""The client toward the providers: no cookies, no redirects, no host beyond the account's own, bytes as they come.

Requests go over the data path's own connections (`http1`), WebSockets over aiohttp, which is loaded with the first.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pool_server.core.models import HttpAnswer, HttpRequest, UpstreamRequest
from pool_server.core.origins import PUBLIC_ONLY, origin
from pool_server.http1 import (
    Answer,
    Body,
    ConnectError,
    ConnectionPool,
    Origin,
    ResponseTimeoutError,
    UpstreamDisconnectedError,
    head_start,
    proxy_authorization,
    with_length,
)

if TYPE_CHECKING:
    import aiohttp

_ANSWER_CAP = 4 << 20  # bytes kept of a refusal, or of the answer to a call of our own
_REFUSAL_S = 30.0
_CLOSE_S = 2.0  # for the other end to answer a close
_ORIGIN = re.compile(r"https?://[^/?#]+")
_PLACE = re.compile(r"(?:https?|wss?)://[^/?#]+")
_REDIRECTS = frozenset({301, 302, 303, 305, 307, 308})
_REDIRECTED = "answered with a redirect, which is not followed"
_UNWRITABLE = "the request cannot be written as HTTP"
_BROKEN = "connection closed before the answer was complete"


class UpstreamError(Exception):
    """No answer: refused, reset, timed out, TLS. The text names the cause and no address of ours."""


class NoConnectionError(UpstreamError):
    """Nothing of the request has left."""


class HandshakeRefusedError(Exception):
    """The upstream answered a WebSocket handshake with an HTTP status other than 101."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"handshake refused with {status}")
        self.status = status
        self.headers = headers


class WrittenHead(NamedTuple):
    """A request's head up to the length of its body, and the connection it goes over."""

    line: Origin
    proxy_url: str | None
    method: str
    start: bytes


class Upstream:
    """Connections are kept per (host, proxy); one instance a process, used within one event loop."""

    def __init__(self) -> None:
        self._lines = ConnectionPool()
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}

    def open(
        self, prepared: UpstreamRequest, payload: Body, *, size: int, proxy_url: str | None, first_byte_s: float
    ) -> Coroutine[Any, Any, Answer]:
        """Sends a prepared request once it is awaited, and returns when the headers are here. Raises `UpstreamError`,
        here or there.

        `size` is the payload's length in bytes; `first_byte_s` bounds the wait for the answer's headers.
        """
        head = prepared.written
        if head is None or head.proxy_url != proxy_url:
            head = prepared.written = _written(prepared, proxy_url)
        return self._ask(head, payload, size, within_s=first_byte_s)

    async def send(self, request: HttpRequest) -> HttpAnswer:
        """A call of the pool's own (refresh, usage, test). Never raises: status 0 and `error` say what failed."""
        body = request.body
        try:
            head = _written(request, request.proxy_url)
            async with asyncio.timeout(request.timeout_s):
                answer = await self._ask(head, body, len(body), within_s=request.timeout_s)
                try:
                    read = await read_capped(answer, _ANSWER_CAP)
                finally:
                    answer.close()
        except TimeoutError:
            return HttpAnswer(0, {}, error="no answer in time")
        except UpstreamError as error:
            return HttpAnswer(0, {}, error=str(error), unsent=isinstance(error, NoConnectionError))
        except UpstreamDisconnectedError:
            return HttpAnswer(0, {}, error=_BROKEN)
        return HttpAnswer(answer.status, answer.fields, read)

    async def _ask(self, written: WrittenHead, body: Body, size: int, *, within_s: float) -> Answer:
        """One request over a kept connection or a new one. A kept one that the upstream closed just now, before a
        byte of an answer, says nothing of the upstream: then another is tried, if the body can be sent again."""
        line, method = written.line, written.method
        head = with_length(written.start, method, size)
        again = isinstance(body, bytes)
        while True:
            kept = self._lines.kept(line) if again else None
            try:
                connection = kept or await self._lines.dial(line)
                answer = await connection.exchange(head, body, within_s=within_s, without_body=method == "HEAD")
            except ConnectError as error:
                raise NoConnectionError(str(error)) from None
            except ResponseTimeoutError as error:
                raise UpstreamError(str(error)) from None
            except UpstreamDisconnectedError:
                if kept is None or not kept.untouched:
                    raise UpstreamError(_BROKEN) from None
            else:
                if answer.status in _REDIRECTS:
                    answer.close()
                    raise UpstreamError(_REDIRECTED)
                return answer

    def _sockets(self, proxy_url: str | None, public: bool) -> aiohttp.ClientSession:
        """The session behind WebSockets that go this way."""
        import aiohttp

        session = self._sessions.get((proxy_url, public))
        if session is None:
            session = self._sessions[proxy_url, public] = aiohttp.ClientSession(
                connector=_connector(self._lines, proxy_url, public),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                trust_env=False,
                trace_configs=[_never_redirected()],
            )
        return session

    async def dial(
        self, prepared: UpstreamRequest, *, proxy_url: str | None, frame_cap: int, timeout_s: float
    ) -> tuple[aiohttp.ClientWebSocketResponse, dict[str, str]]:
        """Opens an upstream WebSocket; also the handshake's headers (lower-case names).

        Raises `HandshakeRefusedError` with the HTTP status, `UpstreamError` when nothing answered.
        """
        _within_bounds(prepared)
        import aiohttp
        from multidict import CIMultiDict
        from yarl import URL

        try:
            async with asyncio.timeout(timeout_s):
                socket = await self._sockets(proxy_url, PUBLIC_ONLY in prepared.egress).ws_connect(
                    URL(prepared.url, encoded=True),
                    headers=CIMultiDict(prepared.headers),
                    max_msg_size=frame_cap,
                    autoping=False,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                    compress=15,
                )
        except TimeoutError:
            raise UpstreamError("no answer in time") from None
        except ConnectError as error:
            raise UpstreamError(str(error)) from None
        except aiohttp.WSServerHandshakeError as error:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            raise HandshakeRefusedError(error.status, headers) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamError(_cause(error)) from None
        # aiohttp has no public way to the headers of a handshake it accepted.
        return socket, {name.lower(): value for name, value in socket._response.headers.items()}

    async def close(self) -> None:
        self._lines.close()
        while self._sessions:
            await self._sessions.popitem()[1].close()


async def read_capped(answer: Answer, cap: int) -> bytes:
    """The answer's body, cut after `cap` bytes. Raises `UpstreamDisconnectedError`."""
    pieces: list[bytes] = []
    size = 0
    while piece := await answer.read():
        pieces.append(piece)
        size += len(piece)
        if size >= cap:
            answer.close()
            break
    return b"".join(pieces)[:cap]


async def refusal_body(answer: Answer) -> bytes:
    """The body of an answer that is no success, b"" when it is not here within half a minute."""
    try:
        async with asyncio.timeout(_REFUSAL_S):
            return await read_capped(answer, _ANSWER_CAP)
    except (TimeoutError, UpstreamDisconnectedError):
        return b""


def _written(request: UpstreamRequest | HttpRequest, proxy_url: str | None) -> WrittenHead:
    """A request's head, written. Raises `UpstreamError`, also for an address it may not go to."""
    _within_bounds(request)
    try:
        line, host, target = _place(request.url, proxy_url, PUBLIC_ONLY in request.egress)
        start = head_start(request.method, target, host, _with_proxy(line, request.headers))
    except ValueError:
        raise UpstreamError(_UNWRITABLE) from None
    return WrittenHead(line, proxy_url, request.method, start)


def _within_bounds(request: UpstreamRequest | HttpRequest) -> None:
    """Refuses an address beyond those the account's file and vendor name. Raises `UpstreamError`."""
    found = _PLACE.match(request.url)
    if found is not None and found[0] in request.egress:  # as it nearly always stands there
        return
    place = origin(found[0]) if found is not None else ""
    if not place:
        raise UpstreamError(_UNWRITABLE)
    if place not in request.egress:
        raise UpstreamError("the address is none of the hosts this account may reach")


def _connector(connections: ConnectionPool, proxy_url: str | None, public: bool) -> aiohttp.BaseConnector:
    """Has aiohttp's sockets carried by the connections that requests go over: proxies and bounds hold for both."""
    import aiohttp
    from aiohttp.client_proto import ResponseHandler

    class Connector(aiohttp.BaseConnector):
        async def _create_connection(self, req: aiohttp.ClientRequest, *_: object) -> ResponseHandler:
            url = req.url
            origin = Origin(url.scheme in ("https", "wss"), url.raw_host or "", url.port or 80, proxy_url, public)
            return await connections.carry(origin, self._factory)

    return Connector(limit=0, force_close=True)


def _never_redirected() -> aiohttp.TraceConfig:
    """A handshake that is sent elsewhere ends there: the account's token and the client's headers do not go along."""
    import aiohttp

    async def refuse(*_: object) -> None:
        raise UpstreamError(_REDIRECTED)

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


def _with_proxy(line: Origin, headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """A proxy that is asked for plain URLs wants its authorization with each of them."""
    authorization = proxy_authorization(line.proxy) if line.proxy and line.whole else ""
    return [*headers, ("Proxy-Authorization", authorization)] if authorization else headers


def _place(url: str, proxy_url: str | None, public: bool) -> tuple[Origin, str, str]:
    """Where a URL's connection leads, its Host, and the request target. Raises ValueError."""
    origin = _ORIGIN.match(url)
    if origin is None:
        raise ValueError("no http address")
    line, host = _line(origin[0], proxy_url, public)
    target = url[origin.end() :].partition("#")[0]
    if not target.startswith("/"):
        target = f"/{target}"
    return line, host, f"{origin[0]}{target}" if line.whole else target


@lru_cache(maxsize=256)
def _line(origin: str, proxy_url: str | None, public: bool) -> tuple[Origin, str]:
    parts = urlsplit(origin)
    secure = parts.scheme == "https"
    if not parts.hostname or parts.username is not None:
        raise ValueError("no host")
    return Origin(secure, parts.hostname, parts.port or (443 if secure else 80), proxy_url, public), parts.netloc


def _cause(error: BaseException) -> str:
    """A short cause without URL or header text in it."""
    import aiohttp

    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionResetError):
        return _BROKEN
    return type(error).__name__
