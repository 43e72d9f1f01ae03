"""The client toward the providers: one pooled aiohttp session, no cookies, no redirects, bytes as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pool_server.records import HttpAnswer, HttpRequest, Prepared

_CONNECT_S = 15.0
_ANSWER_CAP = 4 << 20  # bytes kept of the answer to a call of our own
_HEADER_CAP = 64 << 10
_PIECE = 1 << 20  # bytes of a body handed to the socket at once
_CLOSE_S = 2.0  # for the other end to answer a close
_PING_S = 30.0  # finds an upstream socket whose other end is gone
_SILENT = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})


class UpstreamFailed(Exception):
    """No answer: refused, reset, timed out, TLS. The text names the cause and no address of ours."""


class HandshakeRefused(Exception):
    """The upstream answered a WebSocket handshake with an HTTP status other than 101."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"handshake refused with {status}")
        self.status = status
        self.headers = headers


class Upstream:
    """Connections are pooled per (host, proxy); one instance a process, made inside its event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0, ttl_dns_cache=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=None),
                skip_auto_headers=_SILENT,
                auto_decompress=False,
                max_line_size=_HEADER_CAP,
                max_field_size=_HEADER_CAP,
                trust_env=False,
            )
        return self._session

    async def open(
        self,
        prepared: Prepared,
        payload: bytes | AsyncIterator[bytes],
        *,
        size: int,
        proxy_url: str | None,
        first_byte_s: float,
    ) -> aiohttp.ClientResponse:
        """Sends a prepared request and returns once the headers are here. Raises `UpstreamFailed`.

        `size` is the payload's length in bytes; `first_byte_s` bounds the wait for the answer's headers.
        """
        headers = CIMultiDict(prepared.headers)
        if isinstance(payload, bytes) and size > _PIECE:
            payload = _pieces(payload)  # one huge write would hold up everybody else
        if not isinstance(payload, bytes):
            headers["Content-Length"] = str(size)
        try:
            async with asyncio.timeout(first_byte_s):
                return await self.session().request(
                    prepared.method,
                    URL(prepared.url, encoded=True),
                    headers=headers,
                    data=payload if size else None,
                    allow_redirects=False,
                    proxy=proxy_url,
                )
        except TimeoutError:
            raise UpstreamFailed("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(_cause(error)) from None

    async def send(self, request: HttpRequest) -> HttpAnswer:
        """A call of the pool's own (refresh, usage, test). Never raises: status 0 and `error` say what failed."""
        try:
            async with (
                asyncio.timeout(request.timeout_s),
                self.session().request(
                    request.method,
                    URL(request.url, encoded=True),
                    headers=CIMultiDict(request.headers),
                    data=request.body or None,
                    allow_redirects=False,
                    proxy=request.proxy_url,
                    compress=None,
                ) as answer,
            ):
                body = await read_capped(answer, _ANSWER_CAP)
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return HttpAnswer(answer.status, headers, body)
        except TimeoutError:
            return HttpAnswer(0, {}, error="no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return HttpAnswer(0, {}, error=_cause(error))

    async def dial(
        self, prepared: Prepared, *, proxy_url: str | None, frame_cap: int, timeout_s: float
    ) -> tuple[aiohttp.ClientWebSocketResponse, dict[str, str]]:
        """Opens an upstream WebSocket; also the handshake's headers (lower-case names).

        Raises `HandshakeRefused` with the HTTP status, `UpstreamFailed` when nothing answered.
        """
        try:
            async with asyncio.timeout(timeout_s):
                socket = await self.session().ws_connect(
                    URL(prepared.url, encoded=True),
                    headers=CIMultiDict(prepared.headers),
                    max_msg_size=frame_cap,
                    heartbeat=_PING_S,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                    compress=15,
                    proxy=proxy_url,
                )
        except TimeoutError:
            raise UpstreamFailed("no answer in time") from None
        except aiohttp.WSServerHandshakeError as error:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            raise HandshakeRefused(error.status, headers) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(_cause(error)) from None
        # aiohttp has no public way to the headers of a handshake it accepted.
        return socket, {name.lower(): value for name, value in socket._response.headers.items()}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _pieces(whole: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), _PIECE):
        yield whole[start : start + _PIECE]


async def read_capped(answer: aiohttp.ClientResponse, cap: int) -> bytes:
    """The answer's body, cut after `cap` bytes."""
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size >= cap:
            answer.close()
            break
    return b"".join(pieces)[:cap]


def _cause(error: BaseException) -> str:
    """A short cause without URL or header text in it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "TLS handshake failed"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "host name not found"
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return "proxy not reachable"
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError):
        return "connection refused or host not reachable"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionResetError):
        return "connection closed before the answer was complete"
    return type(error).__name__
