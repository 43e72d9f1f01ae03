"""The vendors' own live clients through the pool: openai's realtime connection, google-genai's live session."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types

from pool_server.core.enums import Operation, Outcome
from tests.fakes import key_account
from tests.gateway.live_client import pool, settled
from tests.gateway.stack import ADMIN, Stack, run
from tests.http1.tls import contexts
from tests.http1.wire import passing, raw_server

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
PCM = base64.b64encode(b"\0" * 960).decode()
GEMINI = "gemini-live-2.5-flash"


@contextlib.asynccontextmanager
async def within_tls(stack: Stack, server: ssl.SSLContext) -> AsyncIterator[str]:
    """What a proxy before the pool does: TLS outside, the pool's own port inside."""
    port = int(stack.url.rpartition(":")[2])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(passing(reader, out), passing(there, writer))

    async with raw_server(talk, ssl=server) as outside:
        yield f"https://localhost:{outside}"


@pytest.mark.slow
def test_openais_realtime_client_has_turns_that_are_counted(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            client = openai.AsyncOpenAI(api_key=await stack.key("anna"), base_url=f"{stack.url}/v1", max_retries=0)
            async with client, client.realtime.connect(model="gpt-realtime") as connection:
                assert (await connection.recv()).type == "session.created"
                await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
                assert (await connection.recv()).type == "session.updated"
                for number in (1, 2):
                    await connection.input_audio_buffer.append(audio=PCM)
                    await connection.response.create()
                    kinds = []
                    async for event in connection:
                        kinds.append(event.type)
                        if event.type == "response.done":
                            assert event.response.id == f"resp_{number}"
                            break
                    assert kinds == ["response.created", "response.output_audio.delta", "response.done"]
            await settled(stack)
            assert [one["type"] for one in live.heard] == [
                "session.update",
                *("input_audio_buffer.append", "response.create") * 2,
            ]
            records = stack.records()
            assert [(one.outcome, one.operation, one.model) for one in records] == [
                (Outcome.OK, Operation.REALTIME, "gpt-realtime")
            ] * 2
            assert all(one.usage.audio_out == 91 and one.cost for one in records)

    run(test)


def test_openais_realtime_client_is_told_why_it_may_not(tmp_path: Path) -> None:
    """Before the conversation by the handshake's status; within it by an error event and the close."""

    async def test() -> None:
        async with pool(tmp_path) as (stack, live):
            made = await stack.users.people.create_user("anna", limits={"tokens_day": 250}, actor=ADMIN)
            options: dict[str, Any] = {"base_url": f"{stack.url}/v1", "max_retries": 0}
            wrong = openai.AsyncOpenAI(api_key="sk-of-nobody", **options)
            with pytest.raises(Exception, match="401"):
                async with wrong, wrong.realtime.connect(model="gpt-realtime"):
                    pass
            assert not live.opened
            client = openai.AsyncOpenAI(api_key=str(made["key"]), **options)
            async with client, client.realtime.connect(model="gpt-realtime", max_retries=0) as connection:
                told = None
                for _ in range(2):
                    await connection.response.create()
                    async for event in connection:
                        if event.type == "error":
                            told = event.error
                        if event.type in ("response.done", "error"):
                            break
                assert told is not None and told.code == "tokens_day" and "limit" in told.message
            await settled(stack)
            assert [one.outcome for one in stack.records()] == [Outcome.OK, Outcome.DENIED]

    run(test)


def test_googles_live_client_has_turns_that_are_counted(tmp_path: Path) -> None:
    """It speaks TLS whatever its base URL says."""
    server, trusting = contexts(tmp_path)

    async def test() -> None:
        async with pool(tmp_path, key_account("gemini:one")) as (stack, live), within_tls(stack, server) as url:
            options = types.HttpOptions(base_url=url, async_client_args={"ssl": trusting})
            client = genai.Client(api_key=await stack.key("anna"), http_options=options)
            config = types.LiveConnectConfig(response_modalities=[types.Modality.AUDIO])
            async with client.aio.live.connect(model=GEMINI, config=config) as session:
                for text in ("hi", "and again"):
                    said = types.Content(role="user", parts=[types.Part(text=text)])
                    await session.send_client_content(turns=said, turn_complete=True)
                    answers = [message async for message in session.receive()]
                    assert answers[-1].server_content is not None and answers[-1].server_content.turn_complete
                    assert "hi" in [message.text for message in answers if message.text]
            await client.aio.aclose()
            client.close()
            await settled(stack)
            assert [next(iter(message)) for message in live.heard] == ["setup", "client_content", "client_content"]
            records = stack.records()
            assert [(one.outcome, one.operation, one.model) for one in records] == [
                (Outcome.OK, Operation.REALTIME, GEMINI)
            ] * 2
            assert all((one.usage.audio_in, one.usage.audio_out) == (30, 25) for one in records)

    run(test)
