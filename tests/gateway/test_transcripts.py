"""Transcripts over real exchanges: what is kept, for whom, and what ends it."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import io
import json
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.settings import Alerts, TranscriptSettings
from pool_server.transcripts import archive
from pool_server.users import SERVER, Users
from tests.fakes import Gate, account, plays
from tests.gateway import stack as stack_module
from tests.gateway.sockets import create, socket
from tests.gateway.stack import Stack

ON = TranscriptSettings(enabled=True)
ASKED = {"model": "claude-opus-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "what is kept"}]}
AGENT = {"User_Agent": "claude-cli/2.1.0 (external, cli)", "X_Claude_Code_Session_Id": "5e55-10n"}


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        stack_module.run(lambda: test(**fixtures))

    return run


def stack(folder: Path, **settings: Any) -> Stack:
    chosen: dict[str, Any] = {"friend_code": "swim", "transcripts": ON, "alerts": Alerts(disk_free_mb=0)}
    return Stack(folder, [account("claude:one")], **(chosen | settings))


async def ask(pool: Stack, key: str, **more: Any) -> bytes:
    status, body = await pool.post("/v1/messages", ASKED | more, token=key, **AGENT)
    assert status == 200, body
    await pool.idle()
    return body


async def kept(pool: Stack, user: str) -> list[list[dict[str, Any]]]:
    """The exchanges of a person, each as its lines."""
    await asyncio.to_thread(pool.transcripts.flush)
    found: list[list[dict[str, Any]]] = []
    for one in archive.conversations(pool.transcripts.folder, user):
        place = archive.find(pool.transcripts.folder, user, one.id)
        assert place is not None
        for line in b"".join(archive.read(place)).splitlines():
            fields = json.loads(line)
            if fields["type"] == "exchange":
                found.append([])
            found[-1].append(fields)
    return found


def data(lines: list[dict[str, Any]], kind: str) -> bytes:
    return b"".join(base64.b64decode(line["data"]) for line in lines if line["type"] == kind)


async def person(pool: Stack, name: str = "ada", *, allows: bool = True) -> tuple[str, str]:
    key = await pool.key(name)
    user = pool.user(key)
    if allows:
        await pool.users.consents.change(user, True, actor=SERVER)
    return key, user


@pytest.mark.parametrize("stream", [False, True])
@on_a_loop
async def test_an_exchange_is_kept_as_its_client_saw_it(tmp_path: Path, stream: bool) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool)
        answer = await ask(pool, key, stream=stream)
        [lines] = await kept(pool, user)
        first, last = lines[0], lines[-1]
        assert (first["agent"], first["session"], first["method"]) == ("Claude Code 2.1.0", "5e55-10n", "POST")
        assert json.loads(data(lines, "request")) == ASKED | {"stream": stream}
        assert data(lines, "body") == answer
        assert last["type"] == "end" and last["outcome"] == "ok" and last["usage"]["known"]
        assert last["down"]["sha256"] == hashlib.sha256(answer).hexdigest()
        assert last["down"]["bytes"] == len(answer) and not last["cut"]
        assert key not in json.dumps(lines) and "one" not in last.get("account", "")
        assert dict(map(tuple, first["headers"]))["Authorization"] == "[hidden]"
        [one] = archive.conversations(pool.transcripts.folder, user)
        assert one.id.startswith("claude-code.") and one.exchanges == 1 and one.session == "5e55-10n"


@pytest.mark.slow
@pytest.mark.parametrize(("enabled", "allows"), [(True, False), (False, True), (False, False)])
@on_a_loop
async def test_nothing_is_kept_unless_operator_and_person_want_it(tmp_path: Path, enabled: bool, allows: bool) -> None:
    async with stack(tmp_path, transcripts=TranscriptSettings(enabled=enabled)) as pool:
        key, user = await person(pool, allows=allows)
        await ask(pool, key)
        assert await kept(pool, user) == []
        assert not pool.transcripts.folder.exists()


@on_a_loop
async def test_one_persons_consent_is_nobody_elses(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        (ada, her), (bo, his) = await person(pool), await person(pool, "bo", allows=False)
        await ask(pool, ada)
        await ask(pool, bo)
        assert len(await kept(pool, her)) == 1 and await kept(pool, his) == []


@on_a_loop
async def test_consent_taken_back_in_the_middle_of_an_answer_leaves_nothing(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool)
        gate = Gate()
        pool.fakes.then("claude:one", plays.stall(gate, 4))
        async with pool.client.post(
            pool.url + "/v1/messages", json=ASKED | {"stream": True}, headers={"Authorization": f"Bearer {key}"}
        ) as answer:
            assert answer.status == 200
            await answer.content.readany()
            await pool.users.consents.change(user, False, actor=SERVER)
            gate.open()
            assert b"message_stop" in await answer.read()
        await pool.idle()
        assert await kept(pool, user) == []
        assert not [path for path in pool.transcripts.folder.rglob("*") if path.is_file()]


@on_a_loop
async def test_a_disk_that_takes_nothing_is_no_matter_of_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool)
        pool.transcripts.folder.write_text("in the way")
        await ask(pool, key)
        await asyncio.to_thread(pool.transcripts.flush)
        pool.transcripts.folder.unlink()
        await ask(pool, key)
        assert len(await kept(pool, user)) == 1
    async with stack(tmp_path, alerts=Alerts(disk_free_mb=1 << 40)) as short:
        key, user = await person(short, "bo")
        await ask(short, key)
        assert await kept(short, user) == []


@pytest.mark.slow
@on_a_loop
async def test_a_large_body_is_counted_to_its_end_and_kept_to_the_limit(tmp_path: Path) -> None:
    limited = TranscriptSettings(enabled=True, exchange_mb=1)
    async with stack(tmp_path, transcripts=limited) as pool:
        key, user = await person(pool)
        long = [{"role": "user", "content": "x" * (12 << 20)}]
        sent = json.dumps(ASKED | {"messages": long}).encode()
        status, _ = await pool.post("/v1/messages", io.BytesIO(sent), token=key)
        assert status == 200
        await pool.idle()
        [lines] = await kept(pool, user)
        assert lines[-1]["cut"] and lines[-1]["request"]["sha256"] == hashlib.sha256(sent).hexdigest()
        assert data(lines, "request") == sent[: 1 << 20]


@on_a_loop
async def test_a_refused_request_is_kept_too(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool)
        status, _ = await pool.post("/v1/messages", b"{no json", token=key)
        assert status == 400
        [lines] = await kept(pool, user)
        assert data(lines, "request") == b"{no json" and lines[-1]["status"] == 400


@on_a_loop
async def test_a_turn_on_a_socket_is_kept_frame_by_frame(tmp_path: Path) -> None:
    async with Stack(tmp_path, [account("codex:one")], transcripts=ON, alerts=Alerts(disk_free_mb=0)) as pool:
        await pool.users.consents.change("local", True, actor=SERVER)
        frame = create()
        async with socket(pool, session_id="5e55-10n", user_agent="codex_cli_rs/0.90.0") as client:
            events = await client.turn(frame)
            await client.turn(frame)
        await pool.idle()
        first, second = await kept(pool, "local")
        frames = [line for line in first if line["type"] == "frame"]
        assert [line["direction"] for line in frames] == ["up", *["down"] * len(events)]
        assert [json.loads(base64.b64decode(line["data"])) for line in frames] == [frame, *events]
        assert first[-1]["up"]["pieces"] == 1 and first[-1]["down"]["pieces"] == len(events)
        assert (first[0]["agent"], first[0]["session"]) == ("Codex 0.90.0", "5e55-10n")
        assert second[0]["id"] != first[0]["id"]


@on_a_loop
async def test_settings_turned_off_end_what_is_under_way(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool)
        gate = Gate()
        pool.fakes.then("claude:one", plays.stall(gate, 4))
        asked = asyncio.create_task(ask(pool, key, stream=True))
        await gate.reached()
        pool.transcripts.apply(msgspec.structs.replace(pool.settings, transcripts=TranscriptSettings()))
        gate.open()
        await asked
        assert await kept(pool, user) == []


@on_a_loop
async def test_consent_is_never_read_on_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at an exchange nor when somebody, of whatever worker, changes something."""
    async with stack(tmp_path) as pool:
        key, user = await person(pool)
        read: list[threading.Thread] = []
        stands = pool.users.consents.stands

        def noted(who: str) -> bool:
            read.append(threading.current_thread())
            return stands(who)

        monkeypatch.setattr(pool.users.consents, "stands", noted)
        other = Users(pool.settings, pool.ledger_store, pool.state)
        await ask(pool, key)
        assert len(await kept(pool, user)) == 1
        await other.consents.change(user, False, actor=SERVER)
        pool.users._follow()
        while pool.users.consents.allows(user):
            await asyncio.sleep(0.01)
        await other.people.patch_user(user, {"note": "x"}, actor=SERVER)
        pool.users._follow()
        await ask(pool, key)
        assert len(await kept(pool, user)) == 1
        assert read and all(one is not threading.current_thread() for one in read)
