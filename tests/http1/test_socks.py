"""SOCKS5 proxies: asked as RFC 1928 and 1929 say, and nothing goes anywhere when they refuse."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.models import HttpRequest
from pool_server.core.origins import PUBLIC_ONLY, origins
from pool_server.gateway.upstream import Upstream
from pool_server.http1 import is_public
from pool_server.http1.socks import SocksRefusedError, _address
from tests.http1.wire import passing, raw_server, read_request, run


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
    await writer.drain()
    writer.close()


class Proxy:
    """A SOCKS5 proxy that leads every name to one port of this machine. `reply` other than 0 refuses."""

    def __init__(self, to: int, *, user: str = "", reply: int = 0, cut: int | None = None, **more: Any) -> None:
        """`version` and `replied` are those of its first and second answer."""
        self.to, self.user, self.reply, self.cut = to, user, reply, cut
        self.split = bool(more.get("split"))
        self.version, self.replied = more.get("version", 5), more.get("replied", 5)
        self.asked: list[tuple[int, bytes, int]] = []
        self.signed_in = ""

    async def say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for piece in [data[i : i + 1] for i in range(len(data))] if self.split else [data]:
            writer.write(piece)
            await writer.drain()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if self.cut == 0:
            return
        if self.user:
            await self.say(writer, b"\x05\x02" if 2 in methods else b"\x05\xff")
            _, length = await reader.readexactly(2)
            name = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.signed_in = (name + b":" + password).decode()
            await self.say(writer, b"\x01\x00" if self.signed_in == self.user else b"\x01\x01")
        else:
            await self.say(writer, bytes((self.version, 0)))
        _, _, _, kind = await reader.readexactly(4)
        size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host = await reader.readexactly(size)
        self.asked.append((kind, host, int.from_bytes(await reader.readexactly(2), "big")))
        if self.cut == 1:
            return
        await self.say(writer, bytes((self.replied, self.reply, 0, 1)) + b"\x00" * 6)
        if self.reply or self.replied != 5:
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", self.to)
        await asyncio.gather(passing(reader, outer), passing(inner, writer))


def through(proxy: Proxy, url: str, *, scheme: str = "socks5", sign_in: str = "") -> tuple[int, bytes, str]:
    told: list[tuple[int, bytes, str]] = []

    async def test() -> None:
        async with raw_server(answer) as target:
            proxy.to = target
            async with raw_server(proxy) as port:
                upstream = Upstream()
                way = f"{scheme}://{sign_in}127.0.0.1:{port}"
                got = await upstream.send(HttpRequest("GET", url, proxy_url=way, egress=origins(url), timeout_s=10))
                told.append((got.status, got.body, got.error))
                await upstream.close()

    run(test)
    return told[0]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("url", "kind", "host", "port"),
    [
        ("http://api.example.test/v1", 3, b"api.example.test", 80),
        ("http://api.example.test:8443/v1", 3, b"api.example.test", 8443),
        ("http://192.0.2.7/v1", 1, bytes((192, 0, 2, 7)), 80),
        ("http://[2001:db8::1]/v1", 4, bytes.fromhex("20010db8000000000000000000000001"), 80),
    ],
)
def test_the_proxy_looks_the_name_up(url: str, kind: int, host: bytes, port: int, split: bool) -> None:
    proxy = Proxy(0, split=split)
    assert through(proxy, url)[:2] == (200, b"hello")
    assert proxy.asked == [(kind, host, port)]


def test_with_user_and_password() -> None:
    proxy = Proxy(0, user="ada:p@ss:word")
    assert through(proxy, "http://api.example.test/", sign_in="ada:p%40ss%3Aword@")[0] == 200
    assert proxy.signed_in == "ada:p@ss:word"


@pytest.mark.parametrize(
    ("proxy", "sign_in", "says"),
    [
        (Proxy(0, reply=2), "", "not allowed"),
        (Proxy(0, reply=5), "", "connection refused"),
        (Proxy(0, reply=99), "", "unknown reply"),
        (Proxy(0, user="ada:right"), "ada:wrong@", "user or password is wrong"),
        (Proxy(0, user="ada:right"), "", "another way to sign in"),
        (Proxy(0, cut=0), "", "closed the connection"),
        (Proxy(0, cut=1), "", "closed the connection"),
        (Proxy(0), "a" * 300 + ":b@", "too long"),
        (Proxy(0, version=4), "", "no SOCKS5 proxy"),
        (Proxy(0, replied=4), "", "no SOCKS5 proxy"),
    ],
)
def test_a_refusal_is_an_end(proxy: Proxy, sign_in: str, says: str) -> None:
    status, _, error = through(proxy, "http://api.example.test/", sign_in=sign_in)
    assert status == 0 and says in error and "right" not in error and "wrong@" not in error


@pytest.mark.parametrize(
    ("host", "sent", "says"),
    [
        ("bücher.example", b"\x03\x15xn--bcher-kva.example", ""),
        ("a" * 256 + ".example", b"", "too long"),
        ("ü" * 70, b"", "is none"),
        ("a..ü", b"", "is none"),
    ],
)
def test_a_host_s_name_goes_to_the_proxy_in_ascii_or_not_at_all(host: str, sent: bytes, says: str) -> None:
    if says:
        with pytest.raises(SocksRefusedError, match=says):
            _address(host)
    else:
        assert _address(host) == sent


def test_what_is_no_socks_proxy_gets_nothing() -> None:
    told = []

    async def test() -> None:
        async with raw_server(answer) as port:
            upstream = Upstream()
            url = "http://api.example.test/"
            request = HttpRequest(
                "GET", url, proxy_url=f"socks5://127.0.0.1:{port}", egress=origins(url), timeout_s=0.5
            )
            told.append((await upstream.send(request)).status)
            await upstream.close()

    run(test)
    assert told == [0]


@pytest.mark.parametrize("scheme", ["socks5", "http"])
@pytest.mark.parametrize("url", ["https://localhost/", "https://10.0.0.7/", "https://[fd00::7]/", "http://localhost/"])
def test_what_must_be_public_is_not_asked_of_a_proxy_either(url: str, scheme: str) -> None:
    """The proxy may stand in the pool's own network."""
    proxy, told = Proxy(0), []

    async def test() -> None:
        async with raw_server(proxy) as port:
            upstream, way = Upstream(), f"{scheme}://127.0.0.1:{port}"
            request = HttpRequest("GET", url, proxy_url=way, egress=origins(url) | {PUBLIC_ONLY}, timeout_s=10)
            told.append((await upstream.send(request)).error)
            await upstream.close()

    run(test)
    assert "own network" in told[0] or "must be public" in told[0]
    assert proxy.asked == []


def test_a_proxy_is_asked_for_the_address_that_was_found_public(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = socket.getaddrinfo

    def found(host: object, port: object, *rest: object, **more: object) -> object:
        known = host in ("rebound.example.test", b"rebound.example.test")
        return looked_up("2600::7" if known else host, port, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    proxy, url = Proxy(0), "http://rebound.example.test/"

    async def test() -> None:
        async with raw_server(answer) as target:
            proxy.to = target
            async with raw_server(proxy) as port:
                upstream, way = Upstream(), f"socks5://127.0.0.1:{port}"
                request = HttpRequest("GET", url, proxy_url=way, egress=origins(url) | {PUBLIC_ONLY}, timeout_s=10)
                assert (await upstream.send(request)).status == 200
                await upstream.close()

    run(test)
    assert proxy.asked == [(4, socket.inet_pton(socket.AF_INET6, "2600::7"), 80)]


@pytest.mark.parametrize("dead", [1, 3, 5])
def test_a_proxy_is_asked_for_each_address_until_one_answers(monkeypatch: pytest.MonkeyPatch, dead: int) -> None:
    """Of four at most, those of IPv6 and IPv4 by turns."""
    addresses = ["2600::1", "2600::2", "2600::3", "2600::4", "8.8.8.8", "2600::1"]
    looked_up = socket.getaddrinfo

    def found(host: object, port: object, *rest: object, **more: object) -> object:
        if host not in ("many.example.test", b"many.example.test"):
            return looked_up(host, port, *rest, **more)  # type: ignore[arg-type]
        return [row for one in addresses for row in looked_up(one, port, *rest, **more)]  # type: ignore[arg-type]

    class Some(Proxy):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.reply = 4 if len(self.asked) < dead else 0
            await super()._serve(reader, writer)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    proxy, url, said = Some(0), "http://many.example.test/", []

    async def test() -> None:
        async with raw_server(answer) as target:
            proxy.to = target
            async with raw_server(proxy) as port:
                upstream, way = Upstream(), f"socks5://127.0.0.1:{port}"
                request = HttpRequest("GET", url, proxy_url=way, egress=origins(url) | {PUBLIC_ONLY}, timeout_s=10)
                said.append(await upstream.send(request))
                await upstream.close()

    run(test)
    asked = [socket.inet_ntop(socket.AF_INET6 if kind == 4 else socket.AF_INET, host) for kind, host, _ in proxy.asked]
    assert asked == ["2600::1", "8.8.8.8", "2600::2", "2600::3"][: dead + 1]
    assert said[0].status == 200 if dead < 4 else "refused the connection" in said[0].error


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/"])
def test_a_name_that_leads_inside_is_refused_when_it_is_dialled(url: str) -> None:
    """The name was public when the account was added: what counts is where it leads at each connection."""
    told = []

    async def test() -> None:
        async with raw_server(answer) as port:
            upstream, place = Upstream(), url.format(port=port)
            for more in (frozenset({PUBLIC_ONLY}), frozenset()):
                got = await upstream.send(HttpRequest("GET", place, egress=origins(place) | more))
                told.append((got.status, got.error))
            await upstream.close()

    run(test)
    assert told == [(0, "the address leads into the pool's own network"), (200, "")]


@given(st.ip_addresses())
def test_inside_is_never_public(address: object) -> None:
    import ipaddress

    inner = ipaddress.ip_address(str(address))
    if inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        assert not is_public(str(address))


@pytest.mark.parametrize(
    "address",
    ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "fe80::1%eth0", "64:ff9b::a00:1", "64:ff9b:1::808:808",
     "::7f00:1", "fec0::1", "::808:808", "3fff::1", "192.0.0.8", "::ffff:192.88.99.1", "x", "",
     "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254",
     "100.100.100.200", "168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110"],
)  # fmt: skip
def test_other_spellings_of_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_what_is_public_in_any_spelling_is_let_through(address: str) -> None:
    assert is_public(address)
