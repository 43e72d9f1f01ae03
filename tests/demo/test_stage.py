"""The demo as a newcomer meets it: one command, every page has content, every client gets an answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from pool_server.demo import cast, notice
from pool_server.demo.stage import Demo, play
from pool_server.web.routes import API

Body = Callable[[Demo, aiohttp.ClientSession], Awaitable[None]]


def on_stage(body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs `body` while the demo plays without pauses; its folder is made below `tmp_path` and must be gone after."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def main() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        async with play([listening], pace=0.0) as demo, aiohttp.ClientSession(demo.url) as session:
            await body(demo, session)

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


async def get(session: aiohttp.ClientSession, path: str, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    async with session.get(path, headers=headers) as answer:
        assert answer.status == 200, (path, answer.status, await answer.text())
        return await answer.json()


def test_the_shell_finds_this_users_demo_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(demo: Demo, session: aiohttp.ClientSession) -> None:
        assert notice.running() == (demo.url, demo.admin_password)
        (folder,) = tmp_path.iterdir()
        assert (folder / "admin.json").stat().st_mode & 0o077 == 0
        with monkeypatch.context() as other:
            other.setattr("os.getuid", lambda: folder.stat().st_uid + 1)
            assert notice.running() is None
        for broken in ("[]", "{", '{"password": 1}'):
            (folder / "admin.json").write_text(broken)
            assert notice.running() is None

    on_stage(body, tmp_path, monkeypatch)
    assert notice.running() is None


def test_every_state_and_every_friend_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(demo: Demo, session: aiohttp.ClientSession) -> None:
        rows = (await get(session, "/admin/accounts", demo.admin_password))["accounts"]
        states = {row["id"]: row["state"] for row in rows}
        assert set(states) == {one.id for one in cast.accounts(0.0, "")}
        assert states[cast.RESTING] == "cooling"
        assert states[cast.EXHAUSTED] in ("exhausted", "draining")
        assert list(states.values()).count("ready") >= 6
        assert {row["provider"] for row in rows} == {"codex", "claude", "gemini", "qwen", "openai"}
        assert sum(row["usage"]["requests"] for row in rows) > 0
        users = await get(session, "/admin/pool-users", demo.admin_password)
        names = {row["name"] for row in users["users"]}
        assert names == {friend.name for friend in cast.FRIENDS}

    on_stage(body, tmp_path, monkeypatch)


async def counted(demo: Demo, session: aiohttp.ClientSession) -> dict[str, int]:
    """Requests by account, as the admin's page shows them."""
    rows = (await get(session, "/admin/accounts", demo.admin_password))["accounts"]
    return {row["id"]: row["usage"]["requests"] for row in rows}


CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/messages", {"model": "claude-sonnet-5", "max_tokens": 9, "stream": True}, "message_stop"),
    ("/v1/responses", {"model": "gpt-5.5", "stream": True, "input": "hi"}, "response.completed"),
    ("/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse", {"contents": []}, "STOP"),
    ("/v1internal:streamGenerateContent?alt=sse", {"model": "gemini-3-flash", "request": {}}, "STOP"),
    ("/v1/chat/completions", {"model": "qwen3-coder-plus", "stream": True}, "[DONE]"),
    ("/v1/chat/completions", {"model": "deepseek-v3.2"}, "This is the demo"),
]


def test_every_client_gets_an_answer_and_it_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(demo: Demo, session: aiohttp.ClientSession) -> None:
        before = await counted(demo, session)
        for path, payload, end in CALLS:
            payload = {"messages": [{"role": "user", "content": "hi"}], **payload}
            async with session.post(path, json=payload, headers={"x-api-key": demo.key}) as answer:
                text = await answer.text()
            assert answer.status == 200 and end in text, (path, answer.status, text[:300])
        after = await counted(demo, session)
        used = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        assert sum(used.values()) == len(CALLS)
        assert {name.split(":")[0] for name in used} == {"claude", "codex", "gemini", "qwen", "openai"}

    on_stage(body, tmp_path, monkeypatch)


def test_a_newcomer_enters_with_the_printed_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(demo: Demo, session: aiohttp.ClientSession) -> None:
        entry = {"code": demo.friend_code, "name": "Newcomer", "passphrase": "a long enough passphrase"}
        async with session.post("/api/friend/login", json=entry) as answer:
            assert answer.status == 200 and (await answer.json())["is_new"] is True

    on_stage(body, tmp_path, monkeypatch)


def start(*options: str, tmp: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pool_server", "demo", *options],
        env={**os.environ, "TMPDIR": str(tmp)},
        cwd=tmp,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_plays_until_told_and_leaves_nothing(tmp_path: Path) -> None:
    with start("--listen", "127.0.0.1:0", tmp=tmp_path) as process:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, process.communicate()
            said += line
        assert re.search(r"http://127\.0\.0\.1:\d+/", said) and "friend code" in said
        assert len(list(tmp_path.iterdir())) == 1, "one temporary folder, nothing else"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    with start("--listen", "0.0.0.0:0", tmp=tmp_path) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2 and out == "" and len(err.strip().splitlines()) == 1
    assert json.dumps("0.0.0.0:0") in err and list(tmp_path.iterdir()) == []


def test_the_operator_s_api_answers_in_the_types_that_describe_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With accounts in every state, a past and people in it: nothing is missing and nothing is of another type."""

    async def body(demo: Demo, session: aiohttp.ClientSession) -> None:
        people = await get(session, "/api/v1/people", demo.admin_password)
        person = people["users"][0]["id"]
        sent = {"Authorization": f"Bearer {demo.admin_password}"}
        made = {"code": "/codes", "key": f"/people/{person}/keys", "sign-in": "/sign-ins"}
        asked: dict[str, Any] = {
            "code": {"label": "x", "limits": {"tokens_day": 1, "models": None}},
            "key": {"limits": {"cost_day": 1}},
            "sign-in": {"provider": "codex", "flow": "line"},
        }
        found: dict[str, Any] = {}
        for name, path in made.items():
            async with session.post(f"/api/v1{path}", json=asked[name], headers=sent) as answer:
                found[name] = await answer.json()
                assert answer.status in (200, 201), found[name]
        places = {"{person}": person, "{sign_in}": found["sign-in"]["id"]}
        for one in API:
            if one.method == "GET" and one.answer is not dict[str, Any]:
                path = one.path
                for name, value in places.items():
                    path = path.replace(name, value)
                told = await get(session, f"/api/v1{path}", demo.admin_password)
                msgspec.convert(told, one.answer)

    on_stage(body, tmp_path, monkeypatch)
