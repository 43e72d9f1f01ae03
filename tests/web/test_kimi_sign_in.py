"""A sign-in of Kimi's own program: the line, the file, its refresh, and servers that admit no other program."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from aiohttp import web

from pool_server.core.enums import CredentialKind, Provider
from pool_server.core.models import HttpAnswer
from pool_server.core.settings import Settings, TokenUrls, Upstreams
from pool_server.providers import CredentialRejectedError, RefreshRejectedError, provider_module
from tests.loop_thread import LoopbackApp, LoopThread
from tests.web.server import Running, running
from tests.web.test_sign_in_lines import install, run_line
from tests.web.test_sign_ins import begin, state

KIMI = provider_module(Provider.KIMI)
WORDS = "Kimi For Coding is currently only available for Coding Agents."
FILES = {"com": "kimi-code.json", "ai": "kimi-code-env-a3faf7e0e998483e.json"}  # as kimi-code 2.1.0 names them
WEEK = {"limit": "100", "used": "20", "resetTime": "2099-01-01T00:00:00Z"}


class FakeKimi:
    """`access` and `refresh` are good now; `admits` is whether it takes other programs than its own."""

    def __init__(self) -> None:
        self.access, self.refresh, self.admits = "kimi-access-0", "kimi-refresh-0", True
        self.seen: list[str] = []
        self._app = LoopbackApp(self._answer)
        self._thread = LoopThread("fake-kimi")

    def __enter__(self) -> FakeKimi:
        self._thread.start()
        self.origin = self._thread.call(self._app.start())
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.call(self._app.close())
        self._thread.stop()

    def file(self, **more: Any) -> dict[str, Any]:
        return {
            "access_token": self.access, "refresh_token": self.refresh, "expires_at": int(time.time()) + 900,
            "scope": "kimi-code", "token_type": "Bearer", "expires_in": 900, **more,
        }  # fmt: skip

    async def _answer(self, request: web.Request) -> web.Response:
        self.seen.append(request.path)
        if request.path == "/api/oauth/token":
            return self._token(parse_qs(await request.text()))
        if request.headers.get("Authorization") != f"Bearer {self.access}":
            return web.json_response({"error": {"type": "authentication_error", "message": "invalid"}}, status=401)
        if not self.admits:
            error = {"type": "access_terminated_error", "message": WORDS}
            return web.json_response({"error": error}, status=403)
        if request.path.endswith("/usages"):
            return web.json_response({"usage": WEEK})
        if request.path.endswith("/me"):
            return web.json_response({"user_id": "u-kimi-1"})
        message = {"role": "assistant", "content": "Hello"}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        return web.json_response(
            {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}
        )

    def _token(self, form: dict[str, list[str]]) -> web.Response:
        if form.get("refresh_token") != [self.refresh] or not form.get("client_id"):
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.access, self.refresh = "kimi-access-1", "kimi-refresh-1"
        told = {"access_token": self.access, "refresh_token": self.refresh, "expires_in": 900, "scope": "kimi-code"}
        return web.json_response(told | {"token_type": "Bearer"})


@pytest.fixture
def kimi() -> Iterator[FakeKimi]:
    with FakeKimi() as made:
        yield made


@pytest.fixture
def pool(tmp_path: Path, kimi: FakeKimi) -> Iterator[Running]:
    urls = TokenUrls(kimi=f"{kimi.origin}/api/oauth/token")
    with running(tmp_path, [], moved={"kimi": kimi.origin}, token_urls=urls) as made:
        yield made


def program(folder: Path, file: dict[str, Any], *, of: str = "com", home: str = "KIMI_CODE_HOME") -> None:
    config = f'[providers."managed:kimi-code"]\nbase_url = "https://api.kimi.{of}/coding/v1"\n'
    install(
        folder,
        "kimi",
        f'[ "$1" = login ] || exit 2\nmkdir -p "${home}/credentials"\n'
        f"printf '%s' '{json.dumps(file)}' > \"${home}/credentials/{FILES[of]}\"\n"
        f"printf '%s' '{config}' > \"${home}/config.toml\"",
    )


@pytest.mark.parametrize("home", ["KIMI_CODE_HOME", "KIMI_SHARE_DIR"])
def test_the_line_takes_what_its_program_wrote_and_people_work_on_it(
    pool: Running, kimi: FakeKimi, tmp_path: Path, home: str
) -> None:
    program(tmp_path / "bin", kimi.file(), home=home)
    made = begin(pool, "kimi", name="hers")
    code, heard = run_line(made["line"], tmp_path / "bin", tmp_path / "tmp")
    assert code == 0 and "Done." in heard and kimi.access not in heard, heard
    assert list((tmp_path / "tmp").iterdir()) == [], "the home is gone"
    assert state(pool, made)["account"] == "kimi:hers"
    file = pool.file("kimi_hers.json")
    assert file["user_id"] == "u-kimi-1" and file["scope"] == "kimi-code" and "region" not in file
    key = pool.ask("POST", "/admin/pool-users", {"name": "Ada"})[1]["key"]
    body = {"model": "kimi-for-coding", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    status, said = pool.ask("POST", "/v1/chat/completions", body, Authorization=f"Bearer {key}")
    assert status == 200 and said["choices"][0]["message"]["content"] == "Hello", said


def test_a_sign_in_of_kimi_ai_stays_there(pool: Running, kimi: FakeKimi, tmp_path: Path) -> None:
    program(tmp_path / "bin", kimi.file(), of="ai")
    made = begin(pool, "kimi", name="hers")
    assert run_line(made["line"], tmp_path / "bin", tmp_path / "tmp")[0] == 0
    assert pool.file("kimi_hers.json")["region"] == "ai"
    cred = KIMI.parse(kimi.file(region="ai"), "kimi:a", now=0.0)
    reached = {"https://api.kimi.ai", "https://auth.kimi.ai"}
    assert KIMI.egress(cred, Settings()) == reached
    request = KIMI.refresh_request(cred, Settings(), now=0.0)
    assert request is not None and request.url == "https://auth.kimi.ai/api/oauth/token"


def test_servers_that_admit_no_other_program_are_quoted(pool: Running, kimi: FakeKimi, tmp_path: Path) -> None:
    kimi.admits = False
    program(tmp_path / "bin", kimi.file())
    made = begin(pool, "kimi", name="hers")
    assert "An API key of Kimi Code is the safe kind." in str(pool.ask("GET", "/accounts", Accept="text/html")[1])
    code, heard = run_line(made["line"], tmp_path / "bin", tmp_path / "tmp")
    assert code == 1 and "only available for Coding Agents" in heard, heard
    assert list(pool.pool.glob("*.json")) == []


def test_a_pasted_sign_in_that_has_ended_is_renewed(pool: Running, kimi: FakeKimi) -> None:
    ended = kimi.file(access_token="kimi-access-old", expires_at=1_000_000_000)
    status, made = pool.ask("POST", "/admin/accounts", {"name": "w", "credential": json.dumps(ended), "consent": True})
    assert (status, made.get("id")) == (201, "kimi:w"), made
    file = pool.file("kimi_w.json")
    assert (file["access_token"], file["refresh_token"]) == ("kimi-access-1", "kimi-refresh-1")
    assert file["expires_at"] > time.time() and pool.row("kimi:w")["windows"][0]["used_percent"] == 20.0


def test_it_is_the_same_person_that_signs_in_again(pool: Running, kimi: FakeKimi) -> None:
    for access in ("kimi-access-0", "kimi-access-again"):
        kimi.access, kimi.refresh = access, f"rt-{access}"
        made = begin(pool, "kimi", name="hers")
        where = f"/contribute/{made['line'].split('/contribute/')[1].split(chr(39))[0]}"
        sent: dict[str, Any] = {"Authorization": "", "Content_Type": "text/plain"}
        assert pool.ask("POST", where, json.dumps(kimi.file()).encode(), **sent)[0] == 201
    assert [path.name for path in pool.pool.glob("*.json")] == ["kimi_hers.json"]
    assert pool.file("kimi_hers.json")["access_token"] == "kimi-access-again"


def test_no_page_of_its_vendor_is_offered(pool: Running) -> None:
    for flow in ("browser", "device"):
        assert pool.ask("POST", "/admin/sign-ins", {"provider": "kimi", "flow": flow})[0] == 422


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"access_token": "kimi-access", "api_key": "sk-kimi-123456"}, "one of them must go"),
        ({"access_token": "kimi-access", "base_url": "https://h"}, "base_url"),
        ({"access_token": "kimi-access", "region": "moon"}, "region must be one of com, ai"),
        ({"access_token": "kimi-access", "expires_at": "soon"}, "not a moment"),
        ({"access_token": 5}, "access_token"),
        ({}, "no usable credential"),
    ],
)
def test_what_is_no_sign_in(data: dict[str, Any], words: str) -> None:
    with pytest.raises(CredentialRejectedError, match=words):
        KIMI.parse(data, "kimi:a", now=0.0)


@pytest.mark.parametrize(
    ("status", "body", "permanent"),
    [
        (200, {}, False), (200, {"access_token": None}, False), (200, [], False), (401, {}, True), (403, {}, True),
        (400, {"error": "invalid_grant"}, True), (429, {}, False), (500, {}, False), (400, {}, False),
    ],
)  # fmt: skip
def test_a_refresh_that_fails(status: int, body: Any, permanent: bool) -> None:
    cred = KIMI.parse({"access_token": "kimi-access", "refresh_token": "kimi-refresh"}, "kimi:a", now=0.0)
    with pytest.raises(RefreshRejectedError) as failed:
        KIMI.refresh_answer(cred, HttpAnswer(status, {}, json.dumps(body).encode()), now=0.0)
    assert failed.value.permanent is permanent


def test_a_key_of_it_is_what_it_was() -> None:
    cred = KIMI.parse({"api_key": "sk-kimi-123456"}, "kimi:a", now=0.0)
    assert cred.kind is CredentialKind.API_KEY and not KIMI.consent_for(cred) and not cred.can_refresh
    moved = msgspec.structs.replace(Settings(), upstreams=Upstreams(presets={"kimi": "http://h:1"}))
    assert KIMI.egress(cred, moved) == {"http://h:1"} and KIMI.refresh_due_at(cred, now=0.0) is None
    assert KIMI.egress(cred, Settings()) == {"https://api.kimi.com"}
