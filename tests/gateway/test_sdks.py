"""The vendors' own SDKs on accounts of every kind: two turns with a tool call, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from pool_server.core.models import Usage
from tests.fakes import FakeAccount, account, key_account, plays
from tests.gateway.stack import Stack, run

USAGE = Usage(input=37, cache_read=1100, output=11, known=True)
CLAUDE, GPT, GEMINI, QWEN, OTHER = (
    "claude-sonnet-5-5",
    "gpt-6.1-sol",
    "gemini-3.8-flash",
    "qwen3-coder-plus",
    "house-model-1",
)
ACCOUNTS: dict[str, tuple[str, Callable[[], FakeAccount]]] = {
    "codex": (GPT, lambda: account("codex:a")),
    "codex-key": (GPT, lambda: key_account("codex:a")),
    "openai-key": (GPT, lambda: key_account("openai:a")),
    "claude": (CLAUDE, lambda: account("claude:a")),
    "claude-key": (CLAUDE, lambda: key_account("claude:a")),
    "code-assist": (GEMINI, lambda: account("gemini:a")),
    "gemini-key": (GEMINI, lambda: key_account("gemini:a")),
    "qwen": (QWEN, lambda: account("qwen:a")),
    "chat": (OTHER, lambda: key_account("openai:a", models=[OTHER], dialects=["chat"])),
    "responses": (OTHER, lambda: key_account("openai:a", models=[OTHER], dialects=["responses"])),
    "messages": (OTHER, lambda: key_account("openai:a", models=[OTHER], dialects=["messages"])),
}
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
NAME, ABOUT, ARGUMENTS = "look_up", "The weather at a place.", {"place": "Turku"}


class Said(NamedTuple):
    """What a turn of the model was: `calls` as (id, name, arguments), its text, and what goes into the history."""

    calls: list[tuple[str, str, Any]]
    text: str
    turn: list[Any]


class Driver:
    """One SDK's way to hold a conversation with a tool."""

    def __init__(self, url: str, model: str, *, stream: bool) -> None:
        self.url, self.model, self.stream = url, model, stream

    async def ask(self, history: list[Any]) -> Said:
        raise NotImplementedError

    def user(self, text: str) -> Any:
        return {"role": "user", "content": text}

    def result(self, call: tuple[str, str, Any], text: str) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class OpenAI(Driver):
    def __init__(self, url: str, model: str, *, stream: bool) -> None:
        super().__init__(url, model, stream=stream)
        self.client = openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1", max_retries=0)

    async def close(self) -> None:
        await self.client.close()


class Chat(OpenAI):
    async def ask(self, history: list[Any]) -> Said:
        tools: Any = [{"type": "function", "function": {"name": NAME, "description": ABOUT, "parameters": SCHEMA}}]
        asked = {"model": self.model, "messages": history, "tools": tools}
        if self.stream:
            async with self.client.chat.completions.stream(**asked) as events:
                async for _ in events:
                    pass
                message = (await events.get_final_completion()).choices[0].message
        else:
            message = (await self.client.chat.completions.create(**asked)).choices[0].message
        calls = [(one.id, one.function.name, json.loads(one.function.arguments)) for one in message.tool_calls or ()]
        turn = message.model_dump(exclude_none=True, exclude={"parsed"})
        for one in turn.get("tool_calls", ()):
            one["function"].pop("parsed_arguments", None)
        return Said(calls, message.content or "", [turn])

    def result(self, call: tuple[str, str, Any], text: str) -> Any:
        return {"role": "tool", "tool_call_id": call[0], "content": text}


class Responses(OpenAI):
    async def ask(self, history: list[Any]) -> Said:
        tools: Any = [{"type": "function", "name": NAME, "description": ABOUT, "parameters": SCHEMA, "strict": False}]
        asked = {"model": self.model, "input": history, "tools": tools, "store": False}
        if self.stream:
            async with self.client.responses.stream(**asked) as events:
                async for _ in events:
                    pass
                answer: Any = await events.get_final_response()
        else:
            answer = await self.client.responses.create(**asked)
        calls = [(i.call_id, i.name, json.loads(i.arguments)) for i in answer.output if i.type == "function_call"]
        turn = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
        return Said(calls, answer.output_text, turn)

    def result(self, call: tuple[str, str, Any], text: str) -> Any:
        return {"type": "function_call_output", "call_id": call[0], "output": text}


class Messages(Driver):
    def __init__(self, url: str, model: str, *, stream: bool) -> None:
        super().__init__(url, model, stream=stream)
        self.client = anthropic.AsyncAnthropic(api_key="any", base_url=url, max_retries=0)

    async def ask(self, history: list[Any]) -> Said:
        tools: Any = [{"name": NAME, "description": ABOUT, "input_schema": SCHEMA}]
        asked = {"model": self.model, "messages": history, "tools": tools, "max_tokens": 500}
        if self.stream:
            async with self.client.messages.stream(**asked) as events:
                async for _ in events:
                    pass
                answer: Any = await events.get_final_message()
        else:
            answer = await self.client.messages.create(**asked)
        calls = [(block.id, block.name, block.input) for block in answer.content if block.type == "tool_use"]
        text = "".join(block.text for block in answer.content if block.type == "text")
        content = [block.model_dump(exclude_none=True, exclude={"parsed_output"}) for block in answer.content]
        return Said(calls, text, [{"role": "assistant", "content": content}])

    def result(self, call: tuple[str, str, Any], text: str) -> Any:
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call[0], "content": text}]}

    async def close(self) -> None:
        await self.client.close()


class Gemini(Driver):
    def __init__(self, url: str, model: str, *, stream: bool) -> None:
        super().__init__(url, model, stream=stream)
        self.client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=url))

    async def ask(self, history: list[Any]) -> Said:
        declared = types.FunctionDeclaration(name=NAME, description=ABOUT, parameters_json_schema=SCHEMA)
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
        models = self.client.aio.models
        if self.stream:
            events = await models.generate_content_stream(model=self.model, contents=history, config=config)
            answers = [event async for event in events]
        else:
            answers = [await models.generate_content(model=self.model, contents=history, config=config)]
        parts = [part for one in answers for c in one.candidates or () if c.content for part in c.content.parts or ()]
        calls = [
            (p.function_call.id or "", p.function_call.name or "", p.function_call.args)
            for p in parts
            if p.function_call
        ]
        return Said(calls, "".join(part.text or "" for part in parts), [types.Content(role="model", parts=parts)])

    def user(self, text: str) -> Any:
        return types.Content(role="user", parts=[types.Part(text=text)])

    def result(self, call: tuple[str, str, Any], text: str) -> Any:
        answered = types.FunctionResponse(id=call[0] or None, name=call[1], response={"output": text})
        return types.Content(role="user", parts=[types.Part(function_response=answered)])

    async def close(self) -> None:
        await self.client.aio.aclose()
        self.client.close()


SDKS: dict[str, type[Driver]] = {"chat": Chat, "responses": Responses, "messages": Messages, "gemini": Gemini}


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # google-genai's own
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("sdk", SDKS)
@pytest.mark.parametrize("kind", ACCOUNTS)
def test_two_turns_with_a_tool(tmp_path: Path, kind: str, sdk: str, stream: bool) -> None:
    model, make = ACCOUNTS[kind]

    async def main() -> None:
        one = make()
        async with Stack(tmp_path, [one]) as stack:
            stack.fakes.always(one.id, plays.ok(USAGE, ["Fine ", "weather."]).but(tools={NAME: ARGUMENTS}))
            driver = SDKS[sdk](stack.url, model, stream=stream)
            try:
                history = [driver.user("How is the weather?")]
                for number, question in enumerate(("", "And tomorrow?")):
                    history += [driver.user(question)] if question else []
                    said = await driver.ask(history)
                    ((_, name, arguments),) = said.calls
                    assert (name, arguments) == (NAME, ARGUMENTS)
                    history += [*said.turn, driver.result(said.calls[0], f"sun {number}")]
                    said = await driver.ask(history)
                    assert (said.calls, said.text) == ([], "Fine weather.")
                    history += said.turn
            finally:
                await driver.close()
            await stack.idle()
            records = stack.records()
            assert [(one.outcome, one.model) for one in records] == [("ok", model)] * 4
            assert {(u.input, u.cache_read, u.output) for u in (one.usage for one in records)} == {(37, 1100, 11)}
            last = json.dumps(stack.fakes.made()[-1].json)
            at = [last.index(word) for word in ("How is the weather?", "sun 0", "weather.", "tomorrow", "sun 1")]
            assert at == sorted(at), "the conversation goes up whole and in its order"

    run(main)
