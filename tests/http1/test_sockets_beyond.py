"""Upstream WebSockets go the ways that requests go: directly, within TLS, through proxies of both kinds, and to public
addresses alone where that is the account's bound."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from pool_server.core.models import UpstreamRequest
from pool_server.core.origins import PUBLIC_ONLY, origins
from pool_server.gateway.upstream import HandshakeRefusedError, Upstream, UpstreamError
from tests.http1 import test_connection_pool, test_socks
from tests.http1.tls import contexts
from tests.http1.wire import LOOPS, raw_server, run

HEADERS = [("Authorization", "Bearer t")]


@contextlib.asynccontextmanager
async def echo(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A provider whose socket says everything again; `/closed` refuses with 403."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        assert request.headers["Authorization"] == "Bearer t" and "Proxy-Authorization" not in request.headers
        if request.path == "/closed":
            raise web.HTTPForbidden
        answered = web.WebSocketResponse()
        await answered.prepare(request)
        async for message in answered:
            await answered.send_str(message.data)
        return answered

    app = web.Application()
    app.router.add_get("/{any:.*}", talk)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def dial(
    upstream: Upstream, url: str, way: str | None, *bounds: str
) -> tuple[aiohttp.ClientWebSocketResponse, dict[str, str]]:
    prepared = UpstreamRequest("GET", url, HEADERS, egress=origins(url) | {*bounds})
    return await upstream.dial(prepared, proxy_url=way, frame_cap=1 << 20, timeout_s=9)


async def said_again(upstream: Upstream, url: str, way: str | None) -> None:
    link, headers = await dial(upstream, url, way)
    assert headers["upgrade"] == "websocket"
    for text in ("one", "two" * 50_000):
        await link.send_str(text)
        assert await link.receive_str(timeout=9) == text
    await link.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("secure", [False, True])
def test_through_every_kind_of_proxy(loop: str, secure: bool, tmp_path: Path) -> None:
    server, client = contexts(tmp_path)

    async def test() -> None:
        socks, http = test_socks.Proxy(0, user="ada:pass"), test_connection_pool.Proxy()
        async with (
            echo(server if secure else None) as port,
            raw_server(socks) as by_socks,
            raw_server(http) as by_http,
            raw_server(http, ssl=server) as by_https,
        ):
            upstream, socks.to = Upstream(), port
            upstream._lines._tls = client
            url = f"{'wss' if secure else 'ws'}://localhost:{port}/v1/realtime?model=m"
            for way in (
                None,
                f"socks5://ada:pass@127.0.0.1:{by_socks}",
                f"socks5h://ada:pass@127.0.0.1:{by_socks}",
                f"http://ada:pass@127.0.0.1:{by_http}",
                f"https://ada:pass@localhost:{by_https}",
            ):
                await said_again(upstream, url, way)
            assert socks.asked == [(3, b"localhost", port)] * 2
            for head in http.asked:
                assert head.startswith(f"CONNECT localhost:{port} ".encode()) and b"Bearer" not in head
                assert b"Proxy-Authorization: Basic YWRhOnBhc3M=" in head
            assert len(http.asked) == 2
            with pytest.raises(HandshakeRefusedError) as refused:
                await dial(upstream, url.replace("/v1/realtime", "/closed"), f"socks5://ada:pass@127.0.0.1:{by_socks}")
            assert refused.value.status == 403
            await upstream.close()

    run(test, loop)


def test_what_fails_on_the_way_is_said_without_an_address() -> None:
    async def test() -> None:
        refusing = test_socks.Proxy(0, reply=2)
        with socket.socket() as closed:  # bound, but nobody listens
            closed.bind(("127.0.0.1", 0))
            await all_fail(refusing, closed.getsockname()[1])

    async def all_fail(refusing: test_socks.Proxy, nobody: int) -> None:
        async with echo() as port, raw_server(refusing) as proxy, raw_server(test_connection_pool.answer_all) as plain:
            upstream = Upstream()
            no_proxy = f"http://secret:word@127.0.0.1:{nobody}"
            for url, way, why in (
                (f"ws://127.0.0.1:{port}/", f"socks5://127.0.0.1:{proxy}", "the proxy refused the connection"),
                (f"ws://127.0.0.1:{port}/", no_proxy, "proxy not reachable"),
                (f"ws://127.0.0.1:{nobody}/", None, "connection refused or host not reachable"),
                (f"wss://127.0.0.1:{port}/", None, "TLS handshake failed"),
                ("ws://name.invalid/", None, "host name not found"),
            ):
                with pytest.raises(UpstreamError, match=why) as failed:
                    await dial(upstream, url, way)
                assert "127.0.0.1" not in str(failed.value) and "secret" not in str(failed.value)
            with pytest.raises(HandshakeRefusedError):
                await dial(upstream, f"ws://127.0.0.1:{plain}/", None)
            await upstream.close()

    run(test)


@pytest.mark.parametrize("scheme", ["", "socks5://", "http://"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "rebound.example.test"])
def test_a_socket_bound_to_public_addresses_does_not_lead_inside(
    host: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor through a proxy, which may stand in the pool's own network."""
    looked_up = socket.getaddrinfo

    def found(name: object, *rest: object, **more: object) -> object:
        known = name in ("rebound.example.test", b"rebound.example.test")
        return looked_up("10.0.0.7" if known else name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", found)

    async def test() -> None:
        proxy = test_socks.Proxy(0)
        async with echo() as port, raw_server(proxy) as by:
            proxy.to = port
            upstream, way = Upstream(), f"{scheme}127.0.0.1:{by}" if scheme else None
            with pytest.raises(UpstreamError, match="own network"):
                await dial(upstream, f"ws://{host}:{port}/", way, PUBLIC_ONLY)
            assert proxy.asked == []
            await upstream.close()

    run(test)


def test_a_public_address_is_reached_by_the_address_that_was_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = socket.getaddrinfo

    def found(name: object, *rest: object, **more: object) -> object:
        known = name in ("public.example.test", b"public.example.test")
        return looked_up("2600::7" if known else name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", found)

    async def test() -> None:
        proxy = test_socks.Proxy(0)
        async with echo() as port, raw_server(proxy) as by:
            proxy.to = port
            upstream = Upstream()
            link, _ = await dial(upstream, "ws://public.example.test/", f"socks5://127.0.0.1:{by}", PUBLIC_ONLY)
            await link.send_str("hi")
            assert await link.receive_str(timeout=9) == "hi"
            assert proxy.asked == [(4, socket.inet_pton(socket.AF_INET6, "2600::7"), 80)]
            await link.close()
            await upstream.close()

    run(test)


def test_who_gives_up_dialling_leaves_nothing_open() -> None:
    async def test() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            left.set()

        left = asyncio.Event()
        async with raw_server(silent) as port:
            upstream = Upstream()
            url = f"ws://127.0.0.1:{port}/"
            prepared = UpstreamRequest("GET", url, HEADERS, egress=origins(url))
            with pytest.raises(UpstreamError, match="no answer in time"):
                await upstream.dial(prepared, proxy_url=None, frame_cap=1, timeout_s=0.1)
            await left.wait()
            await upstream.close()

    run(test)
