"""Where connections to upstreams lead, how they are made, and which are kept for the next exchange."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import SplitResult, unquote, urlsplit

import aiohappyeyeballs

from pool_server.http1 import socks
from pool_server.http1.client_connection import ClientConnection

CONNECT_S = 5.0  # for the name, the connection, a proxy's consent and TLS together
STALLED_S = 0.5  # by which a timer that is later tells that the process could not run
KEPT_S = 60.0  # how long an idle connection is kept
_SECOND_FAMILY_S = 0.25  # after so long IPv4 is tried beside IPv6 (RFC 8305)
_PROXY_HEAD_CAP = 64 << 10
_ASKED_OF_PROXY = 4  # addresses of one host
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_HANDED_OUT = ipaddress.IPv6Network("2000::/3")
# What the interpreter's own list has as global: for documentation (RFC 9637), for protocols, given up (RFC 7526), and
# the address under which Azure hands out a machine's own settings and certificates.
_NOT_GLOBAL = [*map(ipaddress.ip_network, ("3fff::/20", "192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"))]


P = TypeVar("P", bound=asyncio.BaseProtocol)


class ConnectError(Exception):
    """No connection came about. The text names the cause and no address."""


class Origin(NamedTuple):
    """Where a connection leads. `proxy` is the address of the proxy on the way, None for a direct connection.
    `public`: the host's name must lead to the public internet alone, and is looked up here, at each connection."""

    secure: bool
    host: str
    port: int
    proxy: str | None = None
    public: bool = False

    @property
    def whole(self) -> bool:
        """Whether requests name their whole address: an HTTP proxy is asked so for what is not encrypted."""
        return self.proxy is not None and not self.secure and urlsplit(self.proxy).scheme not in socks.SCHEMES


class ConnectionPool:
    """Makes connections and keeps idle ones; one instance an event loop."""

    def __init__(self) -> None:
        self._idle: defaultdict[Origin, list[ClientConnection]] = defaultdict(list)
        self._tls: ssl.SSLContext | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def kept(self, origin: Origin) -> ClientConnection | None:
        """An idle connection, the one used last, None when there is none."""
        idle = self._idle.get(origin)
        oldest = time.monotonic() - KEPT_S
        while idle:
            connection = idle.pop()
            if connection.closed:
                continue
            if connection.idle_since >= oldest:
                return connection
            connection.fail("")
        return None

    async def dial(self, origin: Origin) -> ClientConnection:
        """A new connection. Raises `ConnectError`."""
        return await self._dial(origin, lambda: ClientConnection(partial(self._keep, origin)), whole=origin.whole)

    async def carry(self, origin: Origin, make: Callable[[], P]) -> P:
        """A protocol of the caller's own over a new connection, which is never kept. An HTTP proxy is asked for a
        tunnel even without TLS (RFC 6455 §4.1). Raises `ConnectError`."""
        return await self._dial(origin, make, whole=False)

    async def _dial(self, origin: Origin, make: Callable[[], P], *, whole: bool, again: bool = True) -> P:
        """`whole`: the proxy is asked for each URL, not for a tunnel. A time that ran out while this process stood
        still says nothing of the other side, which may have answered meanwhile: then it is tried once more."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._way(origin, make, whole=whole)
        except TimeoutError:
            if again and time.monotonic() - began > CONNECT_S + STALLED_S:
                return await self._dial(origin, make, whole=whole, again=False)
            raise ConnectError("no connection in time") from None
        except (ssl.SSLError, ssl.CertificateError):
            raise ConnectError("TLS handshake failed") from None
        except socket.gaierror:
            raise ConnectError("host name not found") from None
        except (OSError, ValueError):
            why = "proxy not reachable" if origin.proxy else "connection refused or host not reachable"
            raise ConnectError(why) from None

    def _keep(self, origin: Origin, idle: ClientConnection) -> None:
        if self._closed:
            idle.fail("")
            return
        idle.idle_since = time.monotonic()
        self._idle[origin].append(idle)
        if self._sweep is None:
            self._sweep = idle.loop.call_later(KEPT_S / 2, self._close_old)

    async def _way(self, origin: Origin, make: Callable[[], P], *, whole: bool) -> P:
        if origin.proxy is None:
            tls = await self._context() if origin.secure else None
            opened = await _open(origin.host, origin.port, public=origin.public)
            return (await _over(opened, make, tls, origin.host))[1]
        *others, last = await _beyond(origin, whole=whole)
        for beyond in others:
            try:
                async with asyncio.timeout(CONNECT_S / (len(others) + 1)):
                    return await self._through(origin, beyond, make, whole=whole)
            except (ConnectError, OSError):
                continue  # which a proxy says of an address it cannot reach, or says nothing
        return await self._through(origin, last, make, whole=whole)

    async def _through(self, origin: Origin, beyond: str, make: Callable[[], P], *, whole: bool) -> P:
        assert origin.proxy is not None
        proxy = urlsplit(origin.proxy)
        if proxy.scheme in socks.SCHEMES:
            return await self._through_socks(origin, beyond, proxy, make)
        host, secure = proxy.hostname or "", proxy.scheme == "https"
        tls = await self._context() if secure else None
        opened = await _open(host, proxy.port or (443 if secure else 80))
        if whole:  # `Upstream` writes requests so
            return (await _over(opened, make, tls, host))[1]
        transport, tunnel = await _over(opened, _Tunnel, tls, host)
        try:
            await tunnel.ask(beyond, origin.port, proxy_authorization(origin.proxy))
            protocol = make()
            inner: asyncio.Transport | None = transport
            if origin.secure:
                inner = await asyncio.get_running_loop().start_tls(
                    transport, protocol, await self._context(), server_hostname=origin.host
                )
            else:
                transport.set_protocol(protocol)
        except BaseException:
            transport.abort()
            raise
        lost = isinstance(protocol, ClientConnection) and protocol.closed
        if inner is None or inner.is_closing() or lost:  # lost as soon as it was there
            raise ConnectionResetError
        protocol.connection_made(inner)
        return protocol

    async def _through_socks(self, origin: Origin, beyond: str, proxy: SplitResult, make: Callable[[], P]) -> P:
        tls = await self._context() if origin.secure else None
        opened = await _open(proxy.hostname or "", proxy.port or socks.PORT)
        try:
            await socks.ask(opened, proxy, beyond, origin.port)
        except BaseException as error:
            opened.close()
            if isinstance(error, socks.SocksRefusedError):
                raise ConnectError(f"the proxy refused the connection ({error})") from None
            raise
        return (await _over(opened, make, tls, origin.host))[1]

    async def _context(self) -> ssl.SSLContext:
        """The system's certificates, read once, beside the event loop."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _close_old(self) -> None:
        oldest = time.monotonic() - KEPT_S
        for origin, idle in list(self._idle.items()):
            for connection in idle:
                if connection.idle_since < oldest:
                    connection.fail("")
            idle[:] = [connection for connection in idle if not connection.closed]
            if not idle:
                del self._idle[origin]
        self._sweep = asyncio.get_running_loop().call_later(KEPT_S / 2, self._close_old) if self._idle else None

    def close(self) -> None:
        """Closes what is idle; what is in use goes on to its own end and is not kept."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for idle in self._idle.values():
            for connection in idle:
                connection.fail("")
        self._idle.clear()


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel (RFC 9110 §9.3.6) and reads its answer's head."""

    def __init__(self) -> None:
        self._head = b""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if (b"\r\n\r\n" in self._head or len(self._head) > _PROXY_HEAD_CAP) and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def ask(self, host: str, port: int, authorization: str) -> None:
        """Raises `ConnectError` when the proxy refuses."""
        assert self._transport is not None
        host = f"[{host}]" if ":" in host else host
        lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
        if authorization:
            lines.append(f"Proxy-Authorization: {authorization}")
        self._transport.write("\r\n".join((*lines, "", "")).encode("latin-1"))
        await self._done
        status = self._head[9:12]
        if not self._head.startswith(b"HTTP/1.") or not status.startswith(b"2"):
            said = status.decode("latin-1") if status.isdigit() else "no HTTP"
            raise ConnectError(f"the proxy refused the connection ({said})")


def proxy_authorization(proxy: str) -> str:
    """The Proxy-Authorization that a proxy's address asks for, "" when it names no user."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


async def _over(
    opened: socket.socket, protocol: Callable[[], P], tls: ssl.SSLContext | None, host: str
) -> tuple[asyncio.Transport, P]:
    """A protocol over an open socket, within TLS when there is a context. The socket is closed when that fails.

    Whoever gives up waiting lets the making come to its own end first: a transport may be on the socket already, and
    a socket closed under it would give its number to the next one.
    """
    loop = asyncio.get_running_loop()
    making = loop.create_task(
        loop.create_connection(
            protocol,
            sock=opened,
            ssl=tls,
            server_hostname=host if tls else None,
            ssl_handshake_timeout=CONNECT_S if tls else None,
        )
    )
    making.add_done_callback(lambda done: opened.close() if done.cancelled() or done.exception() else None)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_drop)
        raise


def _drop(made: asyncio.Task[tuple[asyncio.Transport, P]]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result()[0].abort()


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet; an IPv4 address within IPv6 (mapped, 6to4, RFC 6052's NAT64) is
    judged itself, and of IPv6 only what is handed out for it counts (RFC 4291: 2000::/3)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if any(parsed in network for network in _NOT_GLOBAL):
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is None:
            return parsed in _HANDED_OUT and parsed.is_global
        return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


async def _beyond(origin: Origin, *, whole: bool) -> list[str]:
    """The host that a proxy is asked for. One that must be public is looked up here and asked for by its addresses, one
    after the other, the first of each family before the second: the proxy may stand in a network of its own, and find
    another address under the name. Raises ConnectError."""
    if not origin.public:
        return [origin.host]
    if whole:
        raise ConnectError("an address that must be public is not reached through this proxy without TLS")
    families: dict[int, dict[str, None]] = {}
    for family, *_, address in await _addresses(origin.host, origin.port, public=True):
        families.setdefault(family, {})[str(address[0])] = None
    rounds = zip_longest(*families.values())
    return [address for each in rounds for address in each if address is not None][:_ASKED_OF_PROXY]


async def _addresses(host: str, port: int, *, public: bool) -> list[Any]:
    """As `getaddrinfo` tells them."""
    found: list[Any] = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if public and not all(is_public(str(row[4][0])) for row in found):
        raise ConnectError("the address leads into the pool's own network")
    return found


async def _open(host: str, port: int, *, public: bool = False) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await _addresses(host, port, public=public)
    opened = await aiohappyeyeballs.start_connection(
        found, happy_eyeballs_delay=_SECOND_FAMILY_S, interleave=1, loop=loop
    )
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return opened
