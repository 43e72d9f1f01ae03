"""Whose an object is, is written before anything of the answer that made it goes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import ObjectKind
from tests.fakes import Gate, Play, key_account
from tests.fakes.objects import Keeper
from tests.gateway.stack import Stack, run
from tests.gateway.test_objects import ANTHROPIC, FRIENDS, form, send


class HeldWrites:
    """Stands in for the writing of owners until `go` is set."""

    def __init__(self, stack: Stack) -> None:
        self.go = asyncio.Event()
        self.wanted = asyncio.Event()
        self.kept: list[tuple[ObjectKind, str]] = []
        self._keep = stack.gateway.owners.keep
        stack.gateway.owners.keep = self.keep  # type: ignore[method-assign]

    async def keep(self, user: str, family: Any, references: Iterable[Any], account: str, **more: Any) -> bool:
        found = list(references)
        self.kept += found
        self.wanted.set()
        await self.go.wait()
        return await self._keep(user, family, found, account, **more)


ASK = {"model": "gpt-6", "input": "x"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/files", "form"),
        ("/v1/responses", ASK),
        ("/v1/responses", ASK | {"stream": True}),
        ("/v1/chat/completions", {"model": "gpt-6", "store": True, "stream": True, "messages": []}),
    ],
)
def test_nothing_goes_out_before_it_is_written(tmp_path: Path, path: str, body: Any) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna = await stack.key("anna")
            writes = HeldWrites(stack)
            data = form() if body == "form" else json.dumps(body).encode()
            sent = {"Authorization": f"Bearer {anna}"}
            asked = asyncio.create_task(stack.client.post(stack.url + path, data=data, headers=sent).__aenter__())
            await writes.wanted.wait()
            await stack.fakes.settled()  # the whole answer is at the pool
            assert not asked.done()
            writes.go.set()
            async with await asked as answer:
                assert answer.status == 200 and await answer.read()

    run(test)


def test_who_leaves_a_stream_early_can_poll_its_response(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            gate = Gate()
            stack.fakes.then("openai:a", Play(gate=gate, gate_at=4))
            anna, bert = await stack.key("anna"), await stack.key("bert")
            sent = {"Authorization": f"Bearer {anna}"}
            data = json.dumps(ASK | {"stream": True, "background": True}).encode()
            async with stack.client.post(stack.url + "/v1/responses", data=data, headers=sent) as answer:
                await gate.reached()
                first = b""
                while b'"resp_' not in first:
                    first += await answer.content.readany()
                ident = "resp_" + first.decode().partition('"resp_')[2].partition('"')[0]
                answer.close()
            gate.open()
            await stack.idle()
            before = len(stack.fakes.calls)
            await send(stack, bert, "GET", f"/v1/responses/{ident}")
            assert len(stack.fakes.calls) == before
            await send(stack, anna, "GET", f"/v1/responses/{ident}")
            assert len(stack.fakes.calls) == before + 1

    run(test)


CONTAINER = {"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"}
RAN = {
    "type": "bash_code_execution_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": {
        "type": "bash_code_execution_result",
        "stdout": "",
        "content": [{"type": "bash_code_execution_output", "file_id": "file_made_1"}],
    },
}


def whole_message() -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "usage": usage}
    return message | {
        "content": [RAN, {"type": "text", "text": "done"}],
        "stop_reason": "end_turn",
        "container": CONTAINER,
    }


def message_events() -> list[bytes]:
    start = whole_message() | {"content": [], "container": None, "stop_reason": None}
    events: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": start}),
        ("content_block_start", {"index": 0, "content_block": RAN}),
        ("content_block_stop", {"index": 0}),
        (
            "message_delta",
            {"delta": {"stop_reason": "end_turn", "container": CONTAINER}, "usage": {"output_tokens": 2}},
        ),
        ("message_stop", {}),
    ]
    return [f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode() for kind, data in events]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_what_a_sandbox_wrote_is_its_askers(tmp_path: Path, stream: bool) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("claude:a")], **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            stack.fakes.then("claude:a", Play(events=message_events()) if stream else Play(body=whole_message()))
            ask: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 9, "stream": stream, "messages": []}
            assert (await send(stack, anna, "POST", "/v1/messages", ask))[0] == 200
            again = ask | {
                "stream": False,
                "container": "container_1",
                "messages": [{"role": "assistant", "content": [RAN]}],
            }
            before = len(stack.fakes.calls)
            assert (await send(stack, bert, "POST", "/v1/messages", again))[0] == 404
            assert (await send(stack, bert, "GET", "/v1/files/file_made_1/content", None, ANTHROPIC))[0] == 404
            assert len(stack.fakes.calls) == before
            assert (await send(stack, anna, "POST", "/v1/messages", again))[0] == 200
            await send(stack, anna, "GET", "/v1/files/file_made_1/content", None, ANTHROPIC)
            assert len(stack.fakes.calls) == before + 2

    run(test)


def test_a_container_of_the_code_interpreter_is_its_askers(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            ran = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "status": "completed"}
            usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
            made = {"id": "resp_1", "object": "response", "status": "completed", "output": [ran], "usage": usage}
            stack.fakes.then("openai:a", Play(body=made))
            assert (await send(stack, anna, "POST", "/v1/responses", ASK))[0] == 200
            before = len(stack.fakes.calls)
            for path in ("/v1/containers/cntr_1/files", "/v1/containers/cntr_1/files/cfile_1/content"):
                assert (await send(stack, bert, "GET", path))[0] == 404
            assert (await send(stack, bert, "POST", "/v1/responses", ASK | {"input": [{"id": "ci_1"}]}))[0] == 404
            assert len(stack.fakes.calls) == before
            await send(stack, anna, "GET", "/v1/containers/cntr_1/files")
            await send(
                stack, anna, "POST", "/v1/responses", ASK | {"input": [{"type": "item_reference", "id": "ci_1"}]}
            )
            assert len(stack.fakes.calls) == before + 2

    run(test)
