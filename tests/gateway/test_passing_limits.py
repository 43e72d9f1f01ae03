"""A limit on requests at the same time: the official SDKs wait for it and go on by themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes import key_account, plays
from tests.fakes.plays import Gate
from tests.gateway.stack import ADMIN, Stack, run

ASKED: Any = {"model": "", "max_tokens": 50, "messages": [{"role": "user", "content": "Say hello."}]}


@pytest.mark.slow
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_an_sdk_comes_back_when_the_other_request_has_ended(tmp_path: Path, sdk: str) -> None:
    async def main() -> None:
        own = key_account("openai:one" if sdk == "openai" else "claude:one")
        async with Stack(tmp_path, [own], friend_code="swim") as stack:
            key = (await stack.users.people.create_user("ada", actor=ADMIN, limits={"concurrent": 1}))["key"]
            client: Any
            if sdk == "openai":
                client = openai.AsyncOpenAI(api_key=key, base_url=f"{stack.url}/v1")
                ask, asked = client.chat.completions.create, {**ASKED, "model": "gpt-5.5"}
            else:
                client = anthropic.AsyncAnthropic(api_key=key, base_url=stack.url)
                ask, asked = client.messages.create, {**ASKED, "model": "claude-sonnet-5"}
            async with client:
                gate = Gate()
                stack.fakes.then(own.id, plays.slow_headers(gate))
                first = asyncio.create_task(ask(**asked))
                await gate.reached()
                second = asyncio.create_task(ask(**asked))
                while not any(row.outcome == "denied" for row in stack.records()):
                    await asyncio.sleep(0.02)
                gate.open()
                answers = await asyncio.gather(first, second)
            assert all(answer.id for answer in answers)
            await stack.idle()
            assert [row.outcome for row in stack.records()].count("ok") == 2

    run(main)
