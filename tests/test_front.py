"""The whole server from a stranger's view: who may call what, and that no odd request goes around the door."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pool_server.core.settings import Choosing, PoolUsers
from tests.fakes import FakeAccount, FakeProviders, account, fake_settings, key_account
from tests.process import PoolProcess

ADMIN, CODE = "deep end", "swim"
MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "BREW")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes  # what came after the answer: nothing may


class Front:
    """A running pool, and requests to it byte by byte, as no library would send them."""

    def __init__(self, pool: PoolProcess, fakes: FakeProviders) -> None:
        self.pool, self.fakes = pool, fakes
        self.port = int(pool.url.rpartition(":")[2])
        self.callers: dict[str, dict[str, str]] = {"nobody": {}}

    def send(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        data = b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"} | named
        if data:
            sent = {"Content-Length": str(len(data)), "Content-Type": "application/json"} | sent
        lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items()), "", ""]
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:
            wire.sendall("\r\n".join(lines).encode("latin-1") + data)
            answer = http.client.HTTPResponse(wire, method=method)
            answer.begin()
            whole = answer.read()
            told = {k.lower(): ", ".join(answer.headers.get_all(k) or []) for k in answer.headers}
            found = Answer(answer.status, told, whole, b"")
            answer.close()
            return found._replace(rest=wire.recv(1))

    def ask(self, who: str, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        return self.send(method, target, body, **(self.callers[who] | headers))


def cast() -> list[FakeAccount]:
    accounts = [account("claude:a"), account("codex:a"), account("gemini:a")]
    return [*accounts, key_account("gemini:k"), key_account("openai:k")]


@pytest.fixture(scope="module")
def friends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("friends")
    settings = {"friend_code": CODE, "pool_users": PoolUsers(admin_password=ADMIN), "choosing": Choosing(wait_s=0)}
    with FakeProviders(cast()) as fakes, PoolProcess(folder, fake_settings(folder, fakes, **settings)) as pool:
        front = Front(pool, fakes)
        entered = front.send(
            "POST", "/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": "correct horse battery"}
        )
        assert entered.status == 200
        session = re.search(r"pool_session=[^;]+", entered.headers["set-cookie"])
        assert session is not None
        front.callers |= {
            "key": {"Authorization": f"Bearer {json.loads(entered.body)['key']}"},
            "session": {"Cookie": session[0], "Sec-Fetch-Site": "same-origin"},
            "admin": {"Authorization": f"Bearer {ADMIN}"},
        }
        yield front


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("local")
    with FakeProviders(cast()) as fakes, PoolProcess(folder, fake_settings(folder, fakes)) as pool:
        yield Front(pool, fakes)


# (method, path, who may: any status but 401 and 403, body)
OPEN = ("nobody", "key", "session", "admin")
FRIEND, KEY, ADMINS = ("session", "admin"), ("key",), ("admin",)
ROUTES: list[tuple[str, str, tuple[str, ...], Any]] = [
    ("GET", "/", OPEN, None),
    ("GET", "/healthz", OPEN, None),
    ("GET", "/status", ("key", "session", "admin"), None),
    ("GET", "/api/me", FRIEND, None),
    ("GET", "/api/me/requests", FRIEND, None),
    ("GET", "/analytics", FRIEND, None),
    ("GET", "/api/usage/summary", FRIEND, None),
    ("GET", "/setup/none/codex", OPEN, None),
    ("GET", "/admin/accounts", ADMINS, None),
    ("POST", "/admin/accounts/claude:a/disable", ADMINS, {}),
    ("POST", "/admin/accounts/claude:a/enable", ADMINS, {}),
    ("POST", "/admin/accounts/claude:a/refresh", ADMINS, {}),
    ("POST", "/admin/accounts/claude:a/test", ADMINS, {}),
    ("POST", "/admin/accounts/claude:a/reset", ADMINS, {}),
    ("POST", "/admin/reload", ADMINS, {}),
    ("GET", "/admin/pool-users", ADMINS, None),
    ("POST", "/admin/pool-users", ADMINS, {}),
    ("PATCH", "/admin/pool-users/none", ADMINS, {}),
    ("DELETE", "/admin/pool-users/none", ADMINS, {}),
    ("GET", "/admin/requests", ADMINS, None),
    ("GET", "/metrics", ADMINS, None),
    ("POST", "/v1/messages", KEY, MESSAGE),
    ("POST", "/claude/v1/messages", KEY, MESSAGE),
    ("POST", "/v1/messages/count_tokens", KEY, MESSAGE),
    ("GET", "/v1/models", KEY, None),
    ("GET", "/backend-api/wham/usage", KEY, None),
    ("GET", "/api/codex/usage", KEY, None),
    ("POST", "/v1internal:loadCodeAssist", KEY, {}),
    ("GET", "/v1beta/models", KEY, None),
    ("POST", "/v1/embeddings", KEY, {"model": "m"}),
]


@pytest.mark.parametrize(("method", "path", "may", "body"), ROUTES, ids=[f"{r[0]} {r[1]}" for r in ROUTES])
def test_each_route_has_its_callers(friends: Front, method: str, path: str, may: tuple[str, ...], body: Any) -> None:
    for who in friends.callers:
        answer = friends.ask(who, method, path, body)
        turned_away = answer.status in (401, 403)
        changes = who == "session" and method != "GET"  # without the page's token: 403 even where it may
        assert turned_away is (who not in may) or changes, (who, answer.status)
        assert answer.status < 500
        assert answer.rest == b""
    friends.ask("admin", "POST", "/admin/accounts/claude:a/enable", {})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/keys"),
        ("DELETE", "/api/keys/none"),
        ("POST", "/api/setup-tickets"),
        ("POST", "/api/friend/logout"),
    ],
)
def test_changes_by_session_need_the_pages_token(friends: Front, method: str, path: str) -> None:
    for who in ("nobody", "key", "session"):
        assert friends.ask(who, method, path, {}).status in (401, 403), who


SHAPES: list[tuple[str, str, set[str]]] = [
    ("nobody", "/healthz", {"status", "version", "uptime_s", "accounts"}),
    ("session", "/api/me", {"user", "limits", "used", "keys"}),
    ("session", "/api/usage/summary", {"total"}),
    ("admin", "/admin/accounts", {"accounts"}),
    ("admin", "/admin/pool-users", {"users"}),
    ("admin", "/admin/requests", {"requests"}),
]


@pytest.mark.parametrize(("who", "path", "fields"), SHAPES, ids=[shape[1] for shape in SHAPES])
def test_answers_have_the_promised_fields(friends: Front, who: str, path: str, fields: set[str]) -> None:
    answer = friends.ask(who, "GET", path, Accept="application/json")
    assert answer.status == 200
    assert fields <= json.loads(answer.body).keys()


def test_a_row_of_an_account_and_a_reload_have_theirs(friends: Front) -> None:
    (row, *_) = json.loads(friends.ask("admin", "GET", "/admin/accounts").body)["accounts"]
    promised = (
        "id provider plan state reason windows cooldown_until in_flight expires_at last_fault priority weight owner "
        "usage score"
    )
    assert set(promised.split()) <= row.keys()
    counted = {"input", "cache_read", "cache_write", "output", "reasoning", "requests", "cost_usd"}
    assert counted <= row["usage"].keys()
    report = json.loads(friends.ask("admin", "POST", "/admin/reload", {}).body)
    assert {"added", "changed", "removed", "unchanged", "rejected"} <= report.keys()
    made = json.loads(friends.ask("admin", "POST", "/admin/pool-users", {"name": "Bob"}).body)
    assert made.keys() >= {"id", "name", "key"}


def test_strangers_see_no_account_names(friends: Front) -> None:
    for who in ("key", "session"):
        for accept in ("application/json", "text/html"):
            page = friends.ask(who, "GET", "/status", Accept=accept)
            assert page.status == 200
            assert b"claude:a" not in page.body


# Other spellings of calls and of the operator's routes, and paths that climb.
ODD = (
    "/%63laude/v1/messages", "/claude%2Fv1/messages", "/./v1/messages",
    "/x/../v1/messages", "/v1/../v1/messages", "/v1/messages/../../admin/accounts", "/claude/../admin/accounts",
    "/claude/%2e%2e/admin/accounts", "/claude/admin/accounts", "/codex", "/codex/", "/CLAUDE/v1/messages",
    "/v1/Messages", "/v1/messages%00", "/v1/messages;x=1", "/v1/messages#x", "http://evil.example/v1/messages",
    "http://127.0.0.1/admin/accounts", "*", "/v1/responses/../../../etc/passwd", "/responses/..%2f..%2fx",
    "/v1/responses/..", "/v1/responses/%2E%2e/responses", "/v1/files/../messages", "/v1beta/files/%2e%2e/%2e%2e/x",
    "/v1/images/..\\..\\x", "/gemini/v1beta/models/..:generateContent", "/v1/models/../../admin/accounts",
    "/admin/accounts/../reload", "/admin/../healthz", "/static/../../config.toml", "/static/0/..%2f..%2fconfig.toml",
    "/setup/../admin/accounts", "/admin/accounts/%2e%2e/enable", "/admin/%61ccounts", "/admin/accounts/",
    "/admin//accounts", "/ADMIN/accounts", "/api/me/", "/metrics/", "/\xff\xfe",
)  # fmt: skip


@pytest.mark.parametrize("target", ODD)
def test_no_odd_path_goes_around_the_door(friends: Front, target: str) -> None:
    before = len(friends.fakes.made())
    for who in friends.callers:
        for method in METHODS:
            answer = friends.ask(who, method, target, MESSAGE if method in ("POST", "PUT", "PATCH") else None)
            head = method == "HEAD" and target.startswith("/codex")  # a reachability check of the CLI
            assert 400 <= answer.status < 500 or head, (who, method, answer.status)
            assert answer.rest == b""
    assert len(friends.fakes.made()) == before, "nothing went upstream"


@pytest.mark.parametrize(
    "path",
    ["/", "/healthz", "/status", "/metrics", "/admin/accounts", "/v1/messages", "/v1/models", "/ps/mcp", "/nothing"],
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gets_an_answer_of_its_own(friends: Front, method: str, path: str) -> None:
    for who in friends.callers:
        answer = friends.ask(who, method, path)
        assert answer.status < 500, (who, answer.status)
        assert answer.rest == b""
        if method == "HEAD":
            assert answer.body == b""
        if answer.status == 405:
            assert answer.headers.get("allow")


def test_what_is_not_there_is_a_404_whatever_is_sent(friends: Front) -> None:
    for who in friends.callers:
        for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
            assert friends.ask(who, "POST", "/nothing", {"a": 1}, Content_Type=kind).status == 404


def test_a_huge_query_is_refused_by_its_length_alone(friends: Front) -> None:
    long, longer = "x=" + "y" * 8_000, "x=" + "y" * 60_000
    assert friends.send("GET", f"/healthz?{long}").status == 200
    assert friends.send("GET", f"/healthz?{longer}").status == 414
    assert friends.ask("key", "POST", f"/v1/messages?{long}", MESSAGE).status < 414
    assert friends.ask("key", "POST", f"/v1/messages?{longer}", MESSAGE).status == 414
    assert friends.ask("nobody", "GET", f"/v1/messages?key={'a.' * 4_000}").status == 401
    assert friends.send("GET", "/healthz?" + "x" * 400_000).status == 431
    assert friends.send("GET", "/healthz").status == 200


def test_every_answer_of_the_data_plane_has_its_id_and_nothing_failed_inside(friends: Front) -> None:
    for who in friends.callers:
        for path in ("/v1/messages", "/v1/models", "/claude/nothing", "/backend-api/wham/usage"):
            answer = friends.ask(who, "POST", path, MESSAGE)
            assert re.fullmatch(r"[0-9a-f]{24}", answer.headers["x-pool-request-id"])
    assert "Traceback" not in friends.pool.log(), friends.pool.log()


def test_local_mode_gives_loopback_everything(local: Front) -> None:
    for method, path, _, body in ROUTES:
        if path.startswith("/api/me"):
            continue
        answer = local.send(method, path, body)
        assert answer.status not in (401, 403), (method, path)
        assert answer.status < 500, (method, path, answer.body)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
    ids=str,
)
def test_local_mode_is_for_this_machine_alone(local: Front, headers: dict[str, str]) -> None:
    for method, path, _, body in ROUTES:
        answer = local.send(method, path, body, **headers)
        assert answer.status == 403, (method, path, answer.status)
        assert b"local mode" in answer.body
    assert "Traceback" not in local.pool.log()


def test_both_modes_say_which_they_are(local: Front, friends: Front, tmp_path: Path) -> None:
    assert "local mode" in local.pool.banner
    assert "local mode" not in friends.pool.banner
