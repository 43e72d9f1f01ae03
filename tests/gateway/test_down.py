"""What goes down to a client: nothing of the account, nothing a browser would act on, whatever the upstream sends."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import zstandard
from aiohttp import web
from aiohttp.test_utils import TestServer

from pool_server.core.settings import Upstreams
from tests.fakes import account
from tests.gateway.sockets import create, socket
from tests.gateway.stack import Stack, run
from tests.gateway.test_relay import ASKED, PATH, delta, event, stack_before
from tests.http1.wire import read_request

SECRET = "sk-raw"  # the key of `stack_before`'s account
SAFE = {
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ERROR = json.dumps({"error": {"message": f"bad key {SECRET}", "type": "invalid_request_error"}}).encode()
WHOLE = json.dumps({"id": "c", "choices": [{"message": {"content": f"my key is {SECRET}, yes"}}]}).encode()
DONE = event(b"[DONE]")


def head(status: int = 200, kind: str = "application/json", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", "Transfer-Encoding: chunked", *more, "", ""]
    return "\r\n".join(lines).encode()


def packed(data: bytes, coding: str) -> bytes:
    if coding == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    return gzip.compress(data) if coding == "gzip" else zlib.compress(data)


def sized(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def told(folder: Path, answer: bytes, pieces: list[bytes], body: Any = ASKED) -> tuple[Any, bytes]:
    """What a client gets of an upstream that sends these pieces, each in a chunk of its own."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    found: list[tuple[Any, bytes]] = []

    async def test() -> None:
        async with stack_before(folder, talk) as stack, stack.client.post(stack.url + PATH, json=body) as got:
            said = b""
            with contextlib.suppress(aiohttp.ClientError):  # after an error event
                while piece := await got.content.readany():
                    said += piece
            found.append((got, said))

    run(test)
    return found[0]


def shows(headers: Any, body: bytes) -> bool:
    return SECRET.encode() in body or any(SECRET in f"{name} {value}".lower() for name, value in headers.items())


STREAM = event({"choices": [{"index": 0, "delta": {"content": f"a {SECRET} b"}}]})
PLAIN = ASKED | {"stream": False}
FORMS: dict[str, tuple[bytes, list[bytes], Any]] = {
    "an error": (head(400), [ERROR], ASKED),
    "an error cut in two": (head(400), sized(ERROR, len(ERROR) // 2), ASKED),
    "a header's name": (head(400, "text/plain", f"X-Ratelimit-{SECRET}: 1"), [b"no"], ASKED),
    "a header's value": (head(400, "text/plain", f"X-Request-Id: {SECRET.upper()}"), [b"no"], ASKED),
    "a good header": (head(200, "application/json", f"X-Request-Id: r-{SECRET}"), [WHOLE], PLAIN),
    "a body": (head(), [WHOLE], PLAIN),
    "a body byte by byte": (head(), sized(WHOLE, 1), PLAIN),
    "a body in threes": (head(), sized(WHOLE, 3), PLAIN),
    "a stream": (head(200, "text/event-stream"), [delta("a"), STREAM, DONE], ASKED),
    "a stream at its first event": (head(200, "text/event-stream"), [STREAM, DONE], ASKED),
    "a stream byte by byte": (head(200, "text/event-stream"), sized(delta("a") + STREAM + DONE, 1), ASKED),
    "an event cut in two": (
        head(200, "text/event-stream"),
        [delta("a"), STREAM[: STREAM.index(b"raw")], STREAM[STREAM.index(b"raw") :], DONE],
        ASKED,
    ),
    "an event too large to hold": (
        head(200, "text/event-stream"),
        [delta("a"), *sized(event({"x": "y" * (300 << 10) + SECRET + "z" * (300 << 10)}), 99_991), DONE],
        ASKED,
    ),
    "a comment": (head(200, "text/event-stream"), [delta("a"), f": {SECRET}\n\n".encode(), DONE], ASKED),
    "an error event": (
        head(200, "text/event-stream"),
        [delta("a"), event({"error": {"message": SECRET, "code": 500}})],
        ASKED,
    ),
    "what follows the end": (head(200, "text/event-stream"), [delta("a"), DONE, f": {SECRET}\n\n".encode()], ASKED),
}
for coding in ("gzip", "deflate", "zstd"):
    named = f"Content-Encoding: {coding}"
    FORMS |= {
        f"an error in {coding}": (head(400, "application/json", named), [packed(ERROR, coding)], ASKED),
        f"a body in {coding}": (head(200, "application/json", named), sized(packed(WHOLE, coding), 7), PLAIN),
        f"a stream in {coding}": (
            head(200, "text/event-stream", named),
            sized(packed(delta("a") + STREAM + DONE, coding), 9),
            ASKED,
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_an_echo_of_the_accounts_key_does_not_reach_the_client(tmp_path: Path, form: str) -> None:
    answer, pieces, body = FORMS[form]

    got, said = told(tmp_path, answer, pieces, body)
    assert not shows(got.headers, said)
    assert "Content-Encoding" not in got.headers
    if "header" not in form and form != "an error event":  # the connection is aborted behind that
        assert b"*" * len(SECRET) in said


def test_an_answer_of_known_length_keeps_it(tmp_path: Path) -> None:
    length = f"Content-Length: {len(WHOLE)}"
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode() + WHOLE

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in sized(answer, 40):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)

    async def test() -> None:
        async with stack_before(tmp_path, talk) as stack:
            status, said = await stack.post(PATH, PLAIN)
            assert (status, said) == (200, WHOLE.replace(SECRET.encode(), b"*" * len(SECRET)))

    run(test)


ACTED_ON = [
    "Set-Cookie: a=1",
    "Clear-Site-Data: *",
    "Refresh: 0;url=http://evil.example",
    "Access-Control-Allow-Origin: *",
    "Access-Control-Allow-Credentials: true",
    "Content-Security-Policy: default-src *",
    "Content-Security-Policy-Report-Only: default-src *",
    "Location: http://evil.example",
    "Link: <http://evil.example>; rel=preload",
    "X-Accel-Redirect: /internal",
    "X-Accel-Buffering: yes",
    "X-Sendfile: /etc/passwd",
    "Cache-Control: public, max-age=31536000, immutable",
    "CDN-Cache-Control: public",
    "Surrogate-Control: max-age=9",
    "Expires: Thu, 01 Jan 2099 00:00:00 GMT",
    "Age: 1",
    "Strict-Transport-Security: max-age=9",
    "Service-Worker-Allowed: /",
    "SourceMap: http://evil.example",
    "OpenAI-Organization: org-of-the-account",
    "Anthropic-Organization-Id: org-of-the-account",
    "Cross-Origin-Resource-Policy: cross-origin",
    "Www-Authenticate: Basic",
]


@pytest.mark.parametrize(("status", "kind"), [(200, "text/html"), (400, "text/html"), (200, "text/event-stream")])
def test_nothing_a_browser_or_a_proxy_acts_on_comes_down(tmp_path: Path, status: int, kind: str) -> None:
    stream = kind == "text/event-stream"
    pieces = [delta("a"), DONE] if stream else [WHOLE if status == 200 else ERROR]
    got, _ = told(tmp_path, head(status, kind, *ACTED_ON), pieces, ASKED if stream else PLAIN)
    assert got.status == status
    wanted = SAFE | ({"X-Accel-Buffering": "no"} if stream else {})
    assert {name: got.headers.getall(name) for name in wanted} == {name: [value] for name, value in wanted.items()}
    names = {line.partition(":")[0].lower() for line in ACTED_ON} - {name.lower() for name in wanted}
    assert not names & {name.lower() for name in got.headers}


def test_every_answer_of_the_data_plane_is_safe_to_show(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="c") as stack:
            key = {"Authorization": f"Bearer {await stack.key()}"}
            for method, path, headers in (
                ("GET", "/v1/models", key),
                ("GET", "/v1/nothing", key),
                ("POST", "/v1/messages", {}),
                ("POST", "/v1/responses", key),
                ("GET", "/backend-api/codex/responses", {}),
                ("HEAD", "/api/hello", {}),
            ):
                async with stack.client.request(method, stack.url + path, headers=headers) as got:
                    assert {name: got.headers.get(name) for name in SAFE} == SAFE, path
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with socket(stack):
                    pass
            assert refused.value.headers is not None
            assert {name: refused.value.headers.get(name) for name in SAFE} == SAFE

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    "browser",
    [
        {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Dest": "object"},
        {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},  # over plain http to a name
    ],
)
def test_a_navigation_to_the_data_plane_is_refused(tmp_path: Path, browser: dict[str, str], local: bool) -> None:
    async def test() -> None:
        settings: dict[str, Any] = {} if local else {"friend_code": "c"}
        async with Stack(tmp_path, [account("codex:one")], **settings) as stack:
            key = "" if local else await stack.key()
            for path in ("/openai/v1/files/x", "/v1/models", "/v1/files/file-1/content"):
                async with stack.client.get(f"{stack.url}{path}?key={key}", headers=browser) as got:
                    assert got.status == 403
                    assert b"browser" in await got.read()
            assert stack.fakes.calls == []

    run(test)


def test_a_key_in_the_query_is_taken_from_a_client_and_not_from_a_browser(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="c") as stack:
            url = f"{stack.url}/v1/models?key={await stack.key()}"
            told = []
            for headers in (
                {},
                {"Sec-Fetch-Mode": "cors"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Dest": "empty"},
            ):
                async with stack.client.get(url, headers=headers) as got:
                    told.append(got.status)
            assert told == [200, 200, 401, 401], "Node's fetch sends its mode, browsers the rest"

    run(test)


def test_an_echo_over_a_socket_does_not_reach_the_client(tmp_path: Path) -> None:
    one = account("codex:one")

    async def answer(request: web.Request) -> web.WebSocketResponse:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        up = web.WebSocketResponse()
        up.headers["X-Request-Id"] = token
        await up.prepare(request)
        await up.receive_str()
        for text in (token, one.account_id):
            await up.send_json({"type": "response.output_text.delta", "delta": f"{text} twice {text}"})
            await up.send_bytes(text.encode())
        error = {"code": "invalid_prompt", "message": token}
        await up.send_json({"type": "response.failed", "response": {"status": "failed", "error": error}})
        await up.send_str(f"between turns {token}")
        await up.close(code=4000, message=f"bye {token}"[:120].encode())
        return up

    async def test() -> None:
        app = web.Application()
        app.router.add_get("/responses", answer)
        async with TestServer(app) as provider:
            leads = Upstreams(codex=str(provider.make_url("")).rstrip("/"))
            async with Stack(tmp_path, [one], upstreams=leads) as stack, socket(stack) as client:
                got = str(client.connection._response.headers)
                await client.connection.send_json(create())
                async for message in client.connection:
                    got += str(message.data)
                assert "between turns" in got and "twice" in got
                assert one.access not in got and one.account_id not in got

    run(test)
