"""An answer proves whose an unknown object is only where the call itself is about such objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes import key_account
from tests.gateway.stack import Stack, run
from tests.gateway.test_objects import send

SAYS = [{"role": "user", "content": "x"}]
CHAT: dict[str, Any] = {"model": "gpt-6", "messages": SAYS}
NAMED = [
    {"previous_response_id": "it-1"},
    {"conversation": "it-1"},
    {"conversation": {"id": "it-1"}},
    {"prompt": {"id": "it-1"}},
    {"container": "it-1"},
    {"tools": [{"type": "file_search", "vector_store_ids": ["it-1"]}]},
]


@pytest.mark.parametrize("named", NAMED)
def test_a_call_that_knows_no_such_object_ties_it_to_no_account(tmp_path: Path, named: dict[str, Any]) -> None:
    """The account that ignored the field is not to be asked for the object from then on."""
    deaf = key_account("openai:deaf", dialects=["chat"], priority=1, base_url_path="/deaf")

    async def test() -> None:
        async with Stack(tmp_path, [deaf, key_account("openai:able")]) as stack:
            status, answer = await send(stack, "", "POST", "/v1/chat/completions", {**CHAT, **named})
            assert (status, stack.fakes.calls[-1].account) == (200, "openai:deaf"), answer
            await stack.idle()
            status, answer = await send(stack, "", "POST", "/v1/responses", {"model": "gpt-6", "input": "y", **named})
            assert (status, stack.fakes.calls[-1].account) == (200, "openai:able"), answer

    run(test)


def test_a_file_that_a_chat_was_answered_with_is_its_account_s(tmp_path: Path) -> None:
    part = {"type": "file", "file": {"file_id": "file-1"}}

    async def test() -> None:
        accounts = [key_account("openai:a"), key_account("openai:b", priority=200)]
        async with Stack(tmp_path, accounts) as stack:
            ask = {"model": "gpt-6", "messages": [{"role": "user", "content": [part]}]}
            assert (await send(stack, "", "POST", "/v1/chat/completions", ask))[0] == 200
            await stack.idle()
            await stack.accounts.set_disabled("openai:a", True)
            status, _ = await send(stack, "", "POST", "/v1/chat/completions", ask)
            assert (status, len(stack.fakes.calls)) == (503, 1)

    run(test)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_only_a_client_of_responses_goes_on_from_a_response(tmp_path: Path, path: str) -> None:
    """In another dialect the field has no meaning: it neither chooses an account nor stops the call."""

    async def test() -> None:
        accounts = [key_account("openai:a"), key_account("openai:b", priority=200), key_account("claude:c")]
        async with Stack(tmp_path, accounts, friend_code="swim") as stack:
            token = await stack.key()
            status, made = await send(stack, token, "POST", "/v1/responses", {"model": "gpt-6", "input": "x"})
            assert (status, stack.fakes.calls[-1].account) == (200, "openai:a")
            await stack.idle()
            await stack.accounts.set_disabled("openai:a", True)
            model = "gpt-6" if "chat" in path else "claude-sonnet-4-5"
            ask = {"model": model, "messages": SAYS, "max_tokens": 9, "previous_response_id": made["id"]}
            status, answer = await send(stack, token, "POST", path, ask)
            assert status == 200, answer
            assert stack.fakes.calls[-1].account in ("openai:b", "claude:c")

    run(test)
