"""TLS on the server's side: what passes through it, what fails within it, and that a handshake waits for nobody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from pool_server.http1.tls import NOT_TLS, TlsState, TlsTransport
from tests.http1.secured import Tls, gone, serving, shaken
from tests.http1.wire import GET, LOOPS, Echo, Mute, run


def blocking(tls: Tls) -> bytes:
    """All that a client gets who waits for each piece."""
    pieces = []
    plain = socket.create_connection(("127.0.0.1", tls.port))
    with tls.client.wrap_socket(plain, server_hostname="localhost") as secured:
        secured.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        while piece := secured.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("loop", LOOPS)
def test_requests_and_answers_of_any_size_pass(tmp_path: Path, loop: str, version: ssl.TLSVersion) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            tls.client.maximum_version = version
            tls.client.set_alpn_protocols(["h2", "http/1.1"])
            reader, writer = await tls.connect()
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            for size in (0, 1, 16_384, 16_385, 3_000_000):
                writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                assert await reader.readexactly(size + 8) == b"POST /a " + b"x" * size
            writer.write(GET.replace(b"1.1", b"1.0"))
            assert (await reader.read()).startswith(b"HTTP/1.1 200 "), "then the server says goodbye"
            writer.close()
            await gone(tls)
            assert tls.told == []

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_is_slow_to_read_gets_all_of_it(tmp_path: Path, loop: str) -> None:
    class Much(Mute):
        def finish(self) -> None:
            asyncio.get_running_loop().create_task(self.send())

        async def send(self) -> None:
            self.response.start(200, [])
            for _ in range(200):
                waiting = self.response.write(b"y" * 100_000)
                if waiting is not None:
                    paused.append(True)
                    await waiting
            self.response.finish()

    paused: list[bool] = []

    async def test() -> None:
        async with serving(tmp_path, Much) as tls:
            answer = await asyncio.to_thread(blocking, tls)  # uvloop's own client drops what comes just before the end
            assert answer.count(b"y") == 200 * 100_000
            assert answer.endswith(b"y\r\n0\r\n\r\n")
            assert paused

    run(test, loop)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_no_more_is_read_of_a_client_than_is_served(tmp_path: Path, loop: str) -> None:
    class Held(Echo):
        def finish(self) -> None:
            if released:
                super().finish()
            else:
                held.append(self)

    released: list[bool] = []
    held: list[Held] = []

    async def test() -> None:
        async with serving(tmp_path, Held) as tls:
            reader, writer = await tls.connect()
            writer.write(GET * 10_000)
            connection = next(iter(tls.server.connections))
            while connection._flow._reading:
                await asyncio.sleep(0.001)
            released.append(True)
            held[0].finish()
            for _ in range(10_000):
                await reader.readuntil(b"GET /get ")
            writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_client_s_goodbye_ends_the_connection(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        async with serving(tmp_path, Mute) as tls:
            _reader, writer = await tls.connect()
            writer.write(GET)
            writer.close()
            await gone(tls)

            raw, incoming, outgoing = await shaken(tls)
            raw.tls.write(GET)
            with contextlib.suppress(ssl.SSLWantReadError):
                raw.tls.unwrap()
            raw.writer.write(outgoing.read())
            raw.writer.write(b"what comes behind it is nobody's")
            while data := await raw.reader.read(9999):
                incoming.write(data)
            with pytest.raises(ssl.SSLZeroReturnError):  # the server has said goodbye too
                raw.tls.read()
            raw.writer.close()
            await gone(tls)

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_may_come_in_pieces_and_with_a_request_behind_it(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            raw, incoming, outgoing = await shaken(tls, piece=7)
            raw.tls.write(GET + GET)
            sent = outgoing.read()
            for number in range(len(sent)):
                raw.writer.write(sent[number : number + 1])
                await asyncio.sleep(0)
            answer = b""
            while answer.count(b"GET /get") < 2:
                incoming.write(await raw.reader.read(9999))
                with contextlib.suppress(ssl.SSLWantReadError):
                    while True:
                        answer += raw.tls.read()
            raw.writer.close()

    run(test, loop)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (GET, "plain"),
        (b"\r\n" + GET, "plain"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "plain"),
        (b"\x80\x2e\x01\x00\x02", "plain"),
        (b"\x16\x03\x01\x00\x05hello", "handshake"),
        (b"\x16" + b"\0" * 400, "handshake"),
        (b"\x16" + b"\xff" * 70_000, "handshake"),
    ],
)
@pytest.mark.parametrize("loop", LOOPS)
def test_whoever_speaks_no_tls_is_told_and_ends(tmp_path: Path, loop: str, sent: bytes, told: str) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            reader, writer = await tls.plain()
            writer.write(sent)
            with contextlib.suppress(ConnectionError):
                answer = await reader.read()
                assert answer == NOT_TLS if told == "plain" else answer[:1] in (b"", b"\x15"), answer
            writer.close()
            await gone(tls)
            assert tls.told == [told]

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_does_not_trust_the_certificate_or_knows_no_cipher_is_counted(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            tls.client = ssl.create_default_context()
            with pytest.raises(ssl.SSLCertVerificationError):
                await tls.connect()
            tls.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.client.check_hostname, tls.client.verify_mode = False, ssl.CERT_NONE
            tls.client.set_ciphers("AES128-SHA:@SECLEVEL=0")
            tls.client.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await tls.connect()
            while len(tls.told) < 2:
                await asyncio.sleep(0.001)
            await gone(tls)
            assert tls.told == ["handshake", "handshake"]

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_garbage_behind_the_handshake_ends_the_connection(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            raw, _, _ = await shaken(tls)
            raw.writer.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            with contextlib.suppress(ConnectionError):
                await raw.reader.read()
            raw.writer.close()
            await gone(tls)
            assert tls.told == ["handshake"]

    run(test, loop)


@pytest.mark.parametrize("begun", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_handshake_that_is_not_finished_ends_like_a_silent_connection(
    tmp_path: Path, loop: str, begun: bytes
) -> None:
    async def test() -> None:
        async with serving(tmp_path, first_byte_s=10.0) as tls:
            reader, writer = await tls.plain()
            writer.write(begun)
            while not tls.server.table.new:
                await asyncio.sleep(0.001)
            waiting = next(iter(tls.server.table.new))
            waiting.tidy(asyncio.get_running_loop().time() + 9.0)
            assert tls.told == []
            waiting.tidy(asyncio.get_running_loop().time() + 11.0)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            await gone(tls)
            assert tls.told == ["silent"]

    run(test, loop)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("loop", LOOPS)
def test_each_step_of_a_handshake_has_its_time_anew_and_a_part_of_one_has_not(
    tmp_path: Path, loop: str, newest: ssl.TLSVersion
) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            trusting = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
            trusting.maximum_version = newest
            client = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
            reader, writer = await tls.plain()
            while not tls.server.table.new:
                await asyncio.sleep(0.001)
            connection = next(iter(tls.server.table.new))
            steps = []
            while True:
                before = connection.since
                try:
                    client.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                else:
                    break
                hello = outgoing.read()
                for piece in (hello[:1], hello[1:-1]):
                    writer.write(piece)
                    await asyncio.sleep(0.01)
                assert connection.since == before, "a part is no step"
                writer.write(hello[-1:])
                while connection.since == before:
                    await asyncio.sleep(0.001)
                steps.append(connection.since)
                incoming.write(await reader.read(1 << 16))
            before = connection.since
            writer.write(outgoing.read())
            while newest == ssl.TLSVersion.TLSv1_3 and connection.since == before:
                await asyncio.sleep(0.001)
            assert len(steps) == (1 if newest == ssl.TLSVersion.TLSv1_3 else 2)
            writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_session_without_a_request_ends_like_a_silent_connection(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            reader, writer = await tls.connect()
            connection = next(iter(tls.server.table.new))
            transport = connection._flow.transport
            assert isinstance(transport, TlsTransport)
            while transport._state is not TlsState.OPEN:
                await asyncio.sleep(0.001)
            connection.tidy(asyncio.get_running_loop().time() + 11.0)
            assert await reader.read() == b""
            writer.close()
            assert tls.told == ["silent"]

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_handshakes_count_against_the_budgets_and_give_way(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        async with serving(tmp_path, Mute, total=2) as tls:
            first, second = await tls.plain(), await tls.plain()
            while len(tls.server.connections) < 2:
                await asyncio.sleep(0.001)
            working = [await tls.connect(), await tls.connect()]
            for _, writer in working:
                writer.write(GET)
            while sum(one.state.name == "RESPONSE" for one in tls.server.connections) < 2:
                await asyncio.sleep(0.001)
            assert tls.told == ["ended total", "ended total"]
            late, late_writer = await tls.plain()
            assert await late.read() == b"", "no plain answer within TLS"
            assert tls.told[2:] == ["refused total"]
            for _, writer in (first, second, (late, late_writer), *working):
                writer.close()

    run(test, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_that_is_refused_early_gets_to_read_why(tmp_path: Path, loop: str) -> None:
    async def test() -> None:
        async with serving(tmp_path) as tls:
            reader, writer = await tls.connect()
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + b"x" * 100_000)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
            await gone(tls)

    run(test, loop)


def test_the_transport_says_where_it_stands(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, Mute) as tls:
            reader, writer = await tls.connect()
            writer.write(GET)
            while not any(one.state.name == "RESPONSE" for one in tls.server.connections):
                await asyncio.sleep(0.001)
            transport = next(iter(tls.server.connections))._flow.transport
            assert isinstance(transport, TlsTransport)
            assert transport.can_write_eof() and not transport.is_closing()
            assert transport.get_extra_info("peername")[0] == "127.0.0.1"
            transport.close()
            transport.close()
            transport.write(b"nobody's")
            assert transport.is_closing()
            assert await reader.read() == b""
            writer.close()

    run(test)
