"""API keys end to end: the call goes to the host its file names, shown as the file says, in any client's dialect."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.enums import Outcome, Provider
from tests.fakes import account, key_account
from tests.gateway.stack import ADMIN, Stack, chat, messages, responses

CALLS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "m-1", "max_tokens": 9, "messages": [{"role": "user", "content": "q"}]},
    "/v1/responses": {"model": "m-1", "input": "q"},
    "/v1/chat/completions": {"model": "m-1", "messages": [{"role": "user", "content": "q"}]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai:a", "codex:a"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_one_key_serves_both_whichever_file(tmp_path: Path, name: str, path: str) -> None:
    async def run() -> None:
        async with Stack(tmp_path, [key_account(name)]) as stack:
            status, raw = await stack.post(path, CALLS[path])
            assert status == 200, raw

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_key_goes_to_the_host_its_file_names_and_nowhere_else(tmp_path: Path) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:]) if k}
        seen.append((lines[0].split()[1], headers))
        await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.dumps({"error": {"type": "invalid_request_error", "message": "seen"}}).encode()
        writer.write(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        at = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/own"
        more: dict[str, Any] = {"base_url": at, "auth": "api-key"}
        files = [
            key_account("claude:a", **more),
            key_account("codex:b", **more, dialects=["responses"]),
            key_account("gemini:c", **more, dialects=["chat"]),
        ]
        async with Stack(tmp_path, files) as stack:
            for path, body in CALLS.items():
                status, raw = await stack.post(path, body, X_LiteLLM_Tags="t")
                assert (status, b"seen" in raw) == (400, True), (path, raw)
            assert stack.fakes.calls == []
        server.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert [path for path, _ in seen] == [f"/own{path}" for path in CALLS]
    for _, headers in seen:
        assert headers["api-key"] and not {"authorization", "x-api-key", "x-goog-api-key", "x-litellm-tags"} & set(
            headers
        )


def test_nobody_speaks_the_dialect_is_said_of_its_own_vendor(tmp_path: Path) -> None:
    async def run() -> None:
        async with Stack(tmp_path, [account("gemini:a")]) as stack:
            status, raw = await stack.post("/v1/messages", CALLS["/v1/messages"])
            words = raw.decode()
            assert status in (404, 503) and "claude" in words
            assert not any(other.value in words for other in Provider if other is not Provider.CLAUDE)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_presets_account_answers_in_each_of_its_dialects(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n")[1:]) if k}
        await reader.readexactly(int(headers.get("content-length", 0)))
        seen.append((head.split()[1], headers.get("authorization", "") or headers.get("x-api-key", "")))
        body = b'{"error": {"type": "invalid_request_error", "message": "seen"}}'
        writer.write(b"HTTP/1.1 400 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        here = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Stack(tmp_path, []) as stack:
            upstreams = msgspec.structs.replace(stack.settings.upstreams, presets={"deepseek": here})
            settings = msgspec.structs.replace(stack.settings, upstreams=upstreams)
            folder = Path(settings.pool_dir)
            folder.mkdir(exist_ok=True)
            (folder / "deepseek_work.json").write_text(json.dumps({"api_key": "sk-1234567890"}))
            await stack.accounts.reload(settings)
            stack.gateway.apply(settings)
            (row,) = stack.accounts.describe_all()
            assert (row.id, row.provider, row.hosts) == ("deepseek:work", "deepseek", [here])
            for path, body in CALLS.items():
                status, raw = await stack.post(path, {**body, "model": "deepseek-flash"})
                assert (status, b"seen" in raw) == (400, True), (path, raw)
            status, _ = await stack.post("/deepseek/v1/messages", {**CALLS["/v1/messages"], "model": "deepseek-flash"})
            assert status == 400
            status, raw = await stack.post("/v1/chat/completions", CALLS["/v1/chat/completions"])
            assert status in (404, 503), raw  # another vendor's model
        server.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert seen == [
        ("/anthropic/v1/messages", "sk-1234567890"),
        ("/responses", "Bearer sk-1234567890"),
        ("/chat/completions", "Bearer sk-1234567890"),
        ("/anthropic/v1/messages", "sk-1234567890"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("allowed", "status"), [(["deepseek"], 400), (["openai"], 503), (["claude"], 403), (None, 400)]
)
def test_a_limit_to_providers_holds_for_every_vendor(tmp_path: Path, allowed: list[str] | None, status: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        here = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Stack(tmp_path, [], friend_code="let-me-in") as stack:
            upstreams = msgspec.structs.replace(stack.settings.upstreams, presets={"deepseek": here})
            settings = msgspec.structs.replace(stack.settings, upstreams=upstreams)
            folder = Path(settings.pool_dir)
            folder.mkdir(exist_ok=True)
            (folder / "deepseek_work.json").write_text(json.dumps({"api_key": "sk-1234567890"}))
            await stack.accounts.reload(settings)
            stack.gateway.apply(settings)
            user = await stack.users.people.create_user("ada", actor=ADMIN, limits={"providers": allowed})
            body = {**CALLS["/v1/chat/completions"], "model": "deepseek-flash"}
            got, raw = await stack.post("/v1/chat/completions", body, token=str(user["key"]))
            assert got == status or (status == 503 and got == 404), raw
        server.close()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat(model="nobodys-model")),
        ("/v1/responses", responses(model="nobodys-model")),
        ("/v1/messages", messages(model="nobodys-model")),
        ("/v1beta/models/nobodys-model:generateContent", {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}),
    ],
)
def test_a_model_that_nobody_serves_is_told_by_its_name_and_once(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async def run() -> None:
        listed = [key_account(f"{name}:a", models=["house-*"]) for name in ("openai", "claude", "gemini")]
        async with Stack(tmp_path, listed) as stack:
            for agent in ("codex_cli_rs/0.44.0", "anything"):
                status, raw = await stack.post(path, body, User_Agent=agent)
                assert status == 404, raw
                assert "No account here serves 'nobodys-model'; /v1/models lists what does." in raw.decode()
            assert stack.fakes.calls == []
            assert {record.outcome for record in stack.records()} == {Outcome.NO_ACCOUNT}

    asyncio.run(asyncio.wait_for(run(), 60))
