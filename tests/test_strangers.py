"""What somebody without a key can make the server do: bodies, fields, batches, answers are bounded on every route."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Provider
from pool_server.core.settings import PoolUsers
from pool_server.gateway.emulation import answers, codex
from pool_server.gateway.emulation.types import LocalRequest
from pool_server.gateway.http.headers import credentials
from pool_server.http1.request import MOST_FIELDS, Headers
from pool_server.web.base.handler import Access
from pool_server.web.routes import TABLE
from tests.fakes import FakeProviders, account, fake_settings
from tests.process import PoolProcess

CAP = 16 << 10
# (method, path) of every call that is answered without a key; data-plane calls behind every prefix too.
CALLS = [
    ("POST", "/ps/mcp"), ("POST", "/backend-api/ps/mcp"), ("POST", "/api/codex/ps/mcp"), ("HEAD", "/"),
    ("HEAD", "/api/hello"), ("GET", "/api/hello"), ("POST", "/oauth/token"), ("POST", "/v1/oauth/token"),
]  # fmt: skip
PAGES = [
    ("GET", "/"), ("GET", "/healthz"), ("GET", "/health"), ("GET", "/readyz"), ("GET", "/setup/none/codex"),
    ("POST", "/contribute/none"), ("POST", "/api/friend/login"), ("POST", "/admin"), ("GET", "/admin"),
    ("GET", "/sign-in/openid"), ("GET", "/sign-in/openid/callback"), ("GET", "/language"), ("POST", "/language"),
    ("GET", "/favicon.ico"), ("GET", "/static/0/a.js"), ("GET", "/nothing"), ("POST", "/nothing"), ("DELETE", "/x"),
]  # fmt: skip
WALKED = [*((m, p + path) for p in ("", *(f"/{one.value}" for one in Provider)) for m, path in CALLS), *PAGES]


def test_the_walk_leaves_no_open_route_out() -> None:
    for method, pattern in answers.OPEN:
        assert any(m == method and pattern.fullmatch(path) for m, path in CALLS), pattern
    for pattern_, handler in TABLE:
        if handler.access is Access.OPEN:
            assert any(re.fullmatch(pattern_, path) for _, path in PAGES), pattern_


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolProcess]:
    folder = tmp_path_factory.mktemp("strangers")
    settings = {"friend_code": "swim", "pool_users": PoolUsers(admin_password="deep end")}
    with (
        FakeProviders([account("claude:a")]) as fakes,
        PoolProcess(folder, fake_settings(folder, fakes, **settings)) as p,
    ):
        yield p


def say(pool: PoolProcess, head: str, *pieces: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to one request, sent byte by byte as it stands here."""
    port = int(pool.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as wire:
        wire.sendall(head.encode("latin-1"))
        for piece in pieces:
            wire.sendall(piece)
        answer = http.client.HTTPResponse(wire, method=head.split(" ")[0])
        answer.begin()
        body = answer.read()
        answer.close()
        return answer.status, body


def head(method: str, target: str, *lines: str) -> str:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""))


@pytest.mark.parametrize(("method", "path"), WALKED, ids=[f"{m} {p}" for m, p in WALKED])
def test_a_body_of_more_than_16_kib_is_refused(pool: PoolProcess, method: str, path: str) -> None:
    much = b"[" * (CAP + 1)
    missing = say(pool, head(method, path))[0] in (404, 405)  # needs no body to say so
    refusals = {413, 404, 405} if missing else {413}
    status, body = say(pool, head(method, path, f"Content-Length: {len(much)}"), much)
    assert status in refusals
    assert len(body) < 4096
    chunks = [b"800\r\n" + b"[" * 2048 + b"\r\n" for _ in range(9)]
    status, body = say(pool, head(method, path, "Transfer-Encoding: chunked"), *chunks, b"0\r\n\r\n")
    assert status in refusals
    assert len(body) < 4096


@pytest.mark.parametrize(("method", "path"), WALKED, ids=[f"{m} {p}" for m, p in WALKED])
def test_what_fits_gets_a_bounded_answer(pool: PoolProcess, method: str, path: str) -> None:
    call = {"jsonrpc": "2.0", "id": "x", "method": "initialize"}
    bodies = [b"a=1&" * (CAP // 4), b"[" * CAP, b"{}", b"[" + b"1," * (CAP // 2 - 2) + b"1]"]
    bodies.append(json.dumps([call] * 200).encode())
    for body in bodies:
        status, answer = say(pool, head(method, path, f"Content-Length: {len(body)}"), body)
        assert status < 500
        assert len(answer) <= 2 * CAP, (path, body[:20])


def test_a_stranger_is_told_at_once_where_no_end_of_the_body_is_in_sight(pool: PoolProcess) -> None:
    for path in ("/v1/messages", "/oauth/token", "/claude/v1/messages"):
        status, _ = say(pool, head("POST", path, "Content-Length: 9000000"), b"x" * 1000)
        assert status == (413 if "oauth" in path else 401)
        pieces = [b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(20)]
        status, _ = say(pool, head("POST", path, "Transfer-Encoding: chunked"), *pieces)
        assert status == (413 if "oauth" in path else 401)


@pytest.mark.parametrize(
    ("target", "lines", "status"),
    [
        ("/?" + "a=1&" * MOST_FIELDS, (), 200),
        ("/?" + "a=1&" * (MOST_FIELDS + 1), (), 431),
        ("/healthz?" + "&" * 8_000, (), 431),
        ("/healthz?" + "&" * 30_000, (), 414),
        ("/" + "a/" * 50_000, (), 414),
        ("/v1/files/" + "%2e" * 30_000, (), 414),
        ("/v1/models?" + "x" * 9_000, (), 414),
        ("/v1/files/" + "%2e" * 2_500, (), 404),
        ("/claude/v1/messages/" + "a/" * 3_000, (), 404),
        ("/healthz?" + "x" * 8_000, (), 200),
        ("/", ("a: b",) * 140, 431),
        ("/", ("a: b",) * 100, 200),
        ("/", ("Cookie: " + "a=b;" * (MOST_FIELDS + 1),), 431),
        ("/", ("Cookie: a=b", "Cookie: " + ";" * 30_000), 431),
        ("/", ("Cookie: pool_session=" + "a" * 20_000,), 431),
        ("/", ("a: b",) * 300, 431),
        ("/v1/messages", ("a: b",) * 300, 431),
        ("/v1/messages", ("a: b",) * 200, 401),
    ],
    ids=str,
)  # fmt: skip
def test_fields_of_a_head_are_few(pool: PoolProcess, target: str, lines: tuple[str, ...], status: int) -> None:
    method = "POST" if target.startswith("/v1") else "GET"
    assert say(pool, head(method, target, *lines))[0] == status


def test_a_form_of_many_fields_is_not_taken_apart(pool: PoolProcess) -> None:
    _, made = pool.call("POST", "/admin/pool-users", {"name": "Ada"}, Authorization="Bearer deep end")
    token = "refresh_token=" + made["key"]
    for more, status in ((31, 200), (32, 401), (4000, 401)):
        body = (token + "&a=1" * more).encode()
        assert say(pool, head("POST", "/oauth/token", f"Content-Length: {len(body)}"), body)[0] == status


def test_few_keys_of_a_query_are_tried() -> None:
    headers = Headers([])
    assert credentials(headers, "key=a&x=b&key=c&key=a&key=") == ["a", "c"]
    assert credentials(headers, "&".join(f"key=k{number}" for number in range(20_000))) == ["k0", "k1", "k2", "k3"]
    assert credentials(headers, "monkey=a&key") == []


def mcp(message: Any) -> Any:
    body = json.dumps(message).encode()
    request = LocalRequest("POST", "/ps/mcp", "", {}, body, None, None, "http://x", Dialect.RESPONSES)
    said = codex.mcp(request)
    assert len(said.body) <= len(request.body) + 32 * 256
    return json.loads(said.body) if said.body else None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=20,
)
CALL = st.fixed_dictionaries(
    {"method": st.sampled_from(["initialize", "ping", "tools/list", "no"]) | JSON, "id": JSON},
    optional={"params": JSON | st.fixed_dictionaries({"protocolVersion": JSON})},
)


@given(JSON | CALL | st.lists(CALL, max_size=40))
def test_an_mcp_answer_is_no_longer_than_its_question_allows(message: Any) -> None:
    answer = mcp(message)
    for reply in answer if isinstance(answer, list) else [answer] if answer else []:
        assert reply["jsonrpc"] == "2.0"
        assert ("result" in reply) != ("error" in reply)


def test_a_batch_holds_32_calls() -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert len(mcp([ping] * 32)) == 32
    for wrong in ([ping] * 33, [], [1] * 5000):
        assert mcp(wrong)["error"]["code"] == -32600
    assert mcp(ping | {"id": "x" * 200})["error"]["message"] == "not a JSON-RPC id"
    asked = {"protocolVersion": "9" * 5000}
    assert mcp(ping | {"method": "initialize", "params": asked})["result"]["protocolVersion"] == "2025-06-18"
