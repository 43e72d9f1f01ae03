"""Secrets and words that must not come out again are pushed through everything; all that comes out is searched.

Every provider fails in every way with a body and headers that echo the credential it was sent; what clients are
told, what operators see, what is logged at debug level and what lies on the disk is then read byte by byte.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from pool_server.accounts import RefreshError
from pool_server.core.enums import CredentialKind, Provider
from pool_server.core.settings import Alerts, Choosing, PoolUsers, Settings
from tests.fakes import Call, FakeAccount, FakeProviders, Play, fake_settings, faults, plays
from tests.gateway.sockets import Client
from tests.gateway.stack import Stack, chat, messages, responses, run
from tests.process import PATIENCE_S, PoolProcess, command, environment, until

CODE, ADMIN, PASSPHRASE = "code-s3ntinel-open", "admin-s3ntinel-pass", "phrase s3ntinel words"
JWT_SECRET = "jwt-s3ntinel-secret-of-more-than-32-bytes"
PROXY_PASSWORD, HOOK, MAIL_PASSWORD = "proxy-s3ntinel-word", "hook-s3ntinel-path", "mail-s3ntinel-word"
PROMPT, ANSWER = "prompt-s3ntinel-of-the-friend", "answer-s3ntinel-of-the-model"
BROKEN = "sk-ant-oat01-broken-s3ntinel"


class Marked(FakeAccount):
    """Tokens in their vendor's form, each with the mark that is searched for. An `openai` key has no form at all."""

    def _access_token(self) -> str:
        core = f"S3NTINELa{self.generation}x{self.stem}z"
        if self.kind is CredentialKind.API_KEY:
            return {Provider.OPENAI: f"my-{core}"}.get(self.provider, f"sk-proj-{core}")
        if self.provider is Provider.CODEX:
            return self._jwt({"exp": int(self.expires_at), "jti": core})
        return {
            Provider.CLAUDE: f"sk-ant-oat01-{core}",
            Provider.GEMINI: f"ya29.{core}",
            Provider.QWEN: f"{core}{'q7Zk' * 12}",
        }[self.provider]

    def _refresh_token(self) -> str:
        core = f"S3NTINELr{self.generation}x{self.stem}z"
        return {
            Provider.CODEX: f"rt_{core}{'k' * 20}",
            Provider.CLAUDE: f"sk-ant-ort01-{core}",
            Provider.GEMINI: f"1//0g{core}",
        }.get(self.provider, f"{core}{'r5Yw' * 12}")

    @property
    def marks(self) -> set[str]:
        """What must not be seen: of a JWT its signature too, which is what makes it a credential."""
        found = {self.access, self.refresh, *self.spent, self.access.rpartition(".")[2]}
        return {mark for mark in found if len(mark) > 12}


def marked(provider: Provider, stem: str, kind: CredentialKind = CredentialKind.OAUTH, **extra: Any) -> Marked:
    return Marked(provider, stem, now=time.time(), kind=kind, extra=extra)


def cast() -> list[Marked]:
    key = CredentialKind.API_KEY
    return [
        marked(Provider.CODEX, "cx"),
        marked(Provider.CLAUDE, "cl"),
        marked(Provider.GEMINI, "gm"),
        marked(Provider.QWEN, "qw"),
        marked(Provider.CODEX, "cxkey", key),
        marked(Provider.CLAUDE, "clkey", key),
        marked(Provider.GEMINI, "gmkey", key),
        marked(Provider.QWEN, "qwkey", key),
        marked(Provider.OPENAI, "oakey", key, models=["some-model"]),
    ]


CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/responses", responses(text=PROMPT)),
    ("/v1/messages", messages(text=PROMPT)),
    ("/v1/messages", messages(text=PROMPT, stream=False)),
    ("/v1internal:streamGenerateContent?alt=sse", {"model": "gemini-2.5-pro", "request": {"contents": [PROMPT]}}),
    ("/v1beta/models/gemini-2.5-pro:generateContent", {"contents": [{"parts": [{"text": PROMPT}]}]}),
    ("/v1/chat/completions", chat(text=PROMPT)),
    ("/v1/chat/completions", chat(model="some-model", text=PROMPT, stream=True)),
)
FAULTS = (400, 401, 402, 403, 404, 422, 429, 500, 529)


def echoing(status: int) -> Any:
    """A director: this status, and every credential of the request told back in the body and a header."""

    def direct(account: FakeAccount, call: Call) -> Play:
        told = "; ".join(
            f"{name}: {value}" for name, value in call.headers if name.lower() in ("authorization", "x-api-key")
        )
        told += f" {call.query} {call.header('x-goog-api-key') or ''} {account.access}"
        if account.kind is CredentialKind.OAUTH:
            told += f" {account.refresh}"
        error = {"type": "some_error", "code": "odd", "message": f"no: {told}"}
        return plays.status(status, {"error": error}, x_echo=f"{account.access}", content_type="application/json")

    return direct


class Search:
    """Collects texts with their origin and says which of them hold a mark."""

    def __init__(self, marks: Iterable[str]) -> None:
        self.marks = {mark for one in marks for mark in (one, urllib.parse.quote(one, safe=""))}
        self.found: list[str] = []

    def look(self, where: str, text: str | bytes, *, but: Iterable[str] = ()) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        for mark in self.marks - set(but):
            if (at := data.find(mark.encode())) >= 0:
                self.found.append(f"{where}: {mark} in {data[max(0, at - 80) : at + 80]!r}")


class Session:
    """What one run says: every answer is kept until it is known what to search for."""

    def __init__(self, pool: PoolProcess) -> None:
        self.pool = pool
        self.said: list[tuple[str, str]] = []
        self.key = ""

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        status, answer = self.pool.call(method, path, body, **headers)
        self.said.append((f"{method} {path} {status}", answer if isinstance(answer, str) else json.dumps(answer)))
        return status, answer

    def friend(self, path: str, body: Any) -> int:
        return self.call("POST", path, body, Authorization=f"Bearer {self.key}")[0]

    def admin(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        return self.call(method, path, body, Authorization=f"Bearer {ADMIN}", **headers)[1]

    def shell(self, *args: str) -> None:
        done = subprocess.run(
            command(*args, "--config", str(self.pool.config)),
            cwd=self.pool.folder,
            env=environment(self.pool.settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        self.said.append((" ".join(args), done.stdout + done.stderr))


def broken_files(pool: Path) -> None:
    """Files that hold a secret and are none of a credential's shapes."""
    (pool / "claude_cut.json").write_text('{"claudeAiOauth":{"accessToken":"' + BROKEN)
    (pool / "claude_typed.json").write_text(json.dumps({"claudeAiOauth": {"accessToken": [BROKEN]}}))
    (pool / "gemini_list.json").write_text(json.dumps([BROKEN]))
    (pool / "qwen_base.json").write_text(json.dumps({"api_key": "k", "base_url": f"no://u:{BROKEN}@x"}))
    (pool / "openai_priority.json").write_text(json.dumps({"api_key": "k", "priority": BROKEN}))
    (pool / "openai_proxy.json").write_text(json.dumps({"api_key": "k", "proxy_url": f"odd://u:{BROKEN}@x"}))
    (pool / f"{BROKEN}").mkdir()


def exchanges(at: Session, fakes: FakeProviders) -> None:
    """Good answers and every fault, by every provider."""
    for name in fakes.accounts:
        fakes.always(name, plays.ok(pieces=[ANSWER]))
    for path, body in CALLS:
        assert at.friend(path, body) == 200, (path, at.said[-1])
    for status in FAULTS:
        fakes.director = echoing(status)
        for path, body in CALLS:
            assert at.friend(path, body) >= 400
        for name in fakes.accounts:
            at.admin("POST", f"/admin/accounts/{name}/reset", {})
    fakes.director = None
    for one in fakes.accounts.values():
        told = f"bad {one.refresh} and {one.access}"
        fakes.then(one.id, plays.status(500, {"error": told}), on="token")
        at.admin("POST", f"/admin/accounts/{one.id}/refresh", {})
        error = {"error": "invalid_grant", "error_description": told}
        fakes.then(one.id, plays.status(400, error, x_echo=one.access), on="token")
        at.admin("POST", f"/admin/accounts/{one.id}/refresh", {})
        for topic in ("usage", "models", "code_assist"):
            fakes.then(one.id, plays.status(403, {"error": {"message": told}}), on=topic)
        at.admin("POST", f"/admin/accounts/{one.id}/test", {})


def people(at: Session) -> str:
    """A friend enters, is refused, is looked at; returns the first key."""
    login = {"code": CODE, "name": "Ada", "passphrase": PASSPHRASE}
    key = str(at.pool.call("POST", "/api/friend/login", login)[1]["key"])
    at.call("POST", "/api/friend/login", {**login, "name": "Eve", "code": CODE + "x"})
    at.call("POST", "/api/friend/login", {"name": "Ada", "passphrase": PASSPHRASE + "x"})
    at.call("POST", "/api/friend/login", {"name": ["Ada"], "passphrase": {PASSPHRASE: CODE}})
    at.call("GET", f"/api/me?key={key}")
    at.call("GET", "/admin/accounts", Authorization=f"Bearer {ADMIN}x")
    at.call("GET", "/status", Authorization=f"Bearer {key[:-2]}xx")
    return key


PAGES = (
    "/accounts", "/people", "/audit", "/settings", "/status", "/analytics", "/requests", "/metrics", "/healthz",
    "/admin/accounts", "/admin/requests", "/admin/pool-users", "/admin/codes", "/admin/audit", "/api/usage/summary",
    "/api/usage/requests", "/api/usage/export?format=jsonl", "/api/usage/top?by=account",
)  # fmt: skip


def test_nothing_secret_comes_out(tmp_path: Path) -> None:
    accounts = cast()
    with FakeProviders(accounts) as fakes:
        users = PoolUsers(admin_password=ADMIN, jwt_secret=JWT_SECRET)
        settings: Settings = fake_settings(tmp_path, fakes, debug=True, friend_code=CODE, pool_users=users)
        alerts = Alerts(webhook_url=f"http://127.0.0.1:9/{HOOK}", smtp_password=MAIL_PASSWORD)
        settings = msgspec.structs.replace(settings, alerts=alerts, choosing=Choosing(wait_s=0))
        settings = msgspec.structs.replace(settings, gemini_client_secret="client-s3ntinel")
        proxied = marked(Provider.OPENAI, "viaproxy", CredentialKind.API_KEY, models=["far"])
        proxied.extra["proxy_url"] = f"http://joe:{PROXY_PASSWORD}@127.0.0.1:9"
        proxied.write(tmp_path / "pool")
        with PoolProcess(tmp_path, settings) as pool:
            at = Session(pool)
            at.key = people(at)
            exchanges(at, fakes)
            at.friend("/openai/v1/chat/completions", chat(model="far", text=PROMPT))
            broken_files(tmp_path / "pool")
            report = at.admin("POST", "/admin/reload", {})
            assert len(report["rejected"]) >= 5, report
            for page in PAGES:
                at.admin("GET", page)
                at.admin("GET", page, Accept="text/html")
            ids = [row["id"] for row in at.admin("GET", "/admin/requests")["requests"]]
            for one in ids[:20]:
                at.admin("GET", f"/requests/{one}", Accept="text/html")
            at.call("GET", "/api/me/requests", Authorization=f"Bearer {at.key}")
            for args in (
                ("doctor",), ("doctor", "--json"), ("account", "list", "--json"),
                ("account", "test", "claude:cl"), ("account", "test", "openai:viaproxy"), ("user", "list", "--json"),
                ("user", "show", "Ada"),
            ):  # fmt: skip
                at.shell(*args)
            pool.config.write_text(pool.config.read_text() + f'\n[alerts2]\nx = "{ADMIN}"\n')
            at.admin("POST", "/admin/reload", {})
            until(lambda: len(pool.log()) > 0, "something was logged")
        marks = set().union(*(one.marks for one in (*accounts, proxied)))
        marks |= {CODE, ADMIN, PASSPHRASE, JWT_SECRET, PROXY_PASSWORD, HOOK, MAIL_PASSWORD, BROKEN}
        marks |= {"client-s3ntinel", PROMPT, at.key, at.key.rpartition(".")[2]}
        search = Search(marks)
        for where, text in at.said:
            search.look(where, text)
        search.marks.add(ANSWER)
        for where, text in at.said:
            if not where.startswith("POST /v"):
                search.look(where, text)
        search.look("log", pool.log())
        for file in (tmp_path / "data").rglob("*"):
            if file.is_file():
                search.look(str(file.relative_to(tmp_path)), file.read_bytes())
        assert not search.found, "\n".join(sorted(set(search.found)))


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_no_exception_tells_a_token(tmp_path: Path, status: int) -> None:
    accounts = [one for one in cast() if one.kind is CredentialKind.OAUTH]

    async def test() -> None:
        async with Stack(tmp_path, list(accounts)) as stack:
            for one in accounts:
                told = {"error": "invalid_grant", "error_description": f"{one.refresh} {one.access}"}
                stack.fakes.then(one.id, plays.status(status, told), on="token")
                credential = stack.accounts.credential(one.id)
                with pytest.raises(RefreshError) as failed:
                    await stack.accounts.refresh(one.id, one.access, "rejected by the provider")
                error: BaseException | None = failed.value
                texts = [repr(credential), str(credential)]
                while error is not None:
                    texts += [repr(error), str(error)]
                    error = error.__cause__ or error.__context__
                search = Search(one.marks)
                for text in texts:
                    search.look(one.id, text)
                assert not search.found

    run(test)


def telling(account: FakeAccount) -> str:
    return f"no: {account.access} {account.refresh}"


STREAMS: list[tuple[Provider, str, dict[str, Any], Any]] = [
    (Provider.CODEX, "/v1/responses", responses(), lambda one: faults.responses_failed(message=telling(one))),
    (
        Provider.CODEX,
        "/v1/responses",
        responses(),
        lambda one: faults.responses_failed("invalid_prompt", message=telling(one)),
    ),
    (Provider.CLAUDE, "/v1/messages", messages(), lambda one: faults.messages_error(message=telling(one))),
    (
        Provider.CLAUDE,
        "/v1/messages",
        messages(),
        lambda one: faults.messages_error("invalid_request_error", message=telling(one)),
    ),
    (Provider.QWEN, "/v1/chat/completions", chat(stream=True), lambda one: faults.chat_error(message=telling(one))),
]


NAMES = ("responses", "responses refused", "messages", "messages refused", "chat")


@pytest.mark.parametrize("at", [0, 1, 4], ids=["first", "held", "shown"])
@pytest.mark.parametrize(
    ("provider", "path", "body", "event", "socket"),
    [*((*case, False) for case in STREAMS), *((*case, True) for case in STREAMS[:2])],
    ids=[*NAMES, *(f"{name} by socket" for name in NAMES[:2])],
)
def test_an_error_within_a_stream_tells_no_token(
    tmp_path: Path, provider: Provider, path: str, body: dict[str, Any], event: Any, socket: bool, at: int
) -> None:
    async def test() -> None:
        one = marked(provider, "one")
        async with Stack(tmp_path, [one], choosing=Choosing(wait_s=0)) as stack:
            search = Search(one.marks)
            stack.fakes.always(one.id, faults.in_stream(event(one), at=at))
            if socket:
                url = stack.url.replace("http", "ws") + path
                async with stack.client.ws_connect(url, headers={"session-id": "s-1"}) as line:
                    await line.send_json({"type": "response.create"} | body)
                    told = json.dumps(await Client(line).rest())
            else:
                async with stack.client.post(stack.url + path, json=body) as answer:
                    told = ""
                    with contextlib.suppress(aiohttp.ClientError):
                        while piece := await answer.content.readany():
                            told += piece.decode()
            await stack.idle()
            search.look("answer", told)
            search.look("record", repr(stack.records()))
            search.look("account", repr(stack.accounts.describe(one.id)))
            assert told
            assert not search.found, search.found

    run(test)
