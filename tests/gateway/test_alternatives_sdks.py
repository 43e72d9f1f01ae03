"""Choices, log probabilities and sound by the vendors' own SDKs: from an account that has them, refused elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.dialects.streams import sse
from tests.fakes import FakeAccount, account, key_account, plays
from tests.gateway.stack import Stack, run

MODEL, GPT, CLAUDE = "house-model-1", "gpt-6.1-sol", "claude-sonnet-5-5"
HEAD = {"id": "chatcmpl-9", "created": 1, "model": MODEL}
USAGE = {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26}
SOUND = bytes(range(200))
own_warning = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


def endpoint(name: str = "openai:a", **more: Any) -> FakeAccount:
    return key_account(name, models=[MODEL], dialects=["chat"], **more)


def token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []}


def choice(index: int, text: str, logprobs: Any = None, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": text, **message}
    return {"index": index, "message": said, "finish_reason": "stop", "logprobs": logprobs}


def answered(choices: list[dict[str, Any]], *, stream: bool) -> plays.Play:
    """The endpoint's answer; streamed each choice in turn, in two pieces where it is text."""
    if not stream:
        return plays.status(200, {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE})
    chunks = []
    for one in choices:
        message, told = one["message"], (one["logprobs"] or {}).get("content") or [None]
        pieces = [token["token"] for token in told] if told[0] else [message["content"]]
        for piece, part in zip(pieces, told, strict=True):
            delta = {**message, "content": piece}
            logprobs = {"content": [part]} if part else None
            chunks.append({"index": one["index"], "delta": delta, "finish_reason": None, "logprobs": logprobs})
        chunks.append({"index": one["index"], "delta": {}, "finish_reason": "stop", "logprobs": None})
    shape = {**HEAD, "object": "chat.completion.chunk"}
    events = [sse({**shape, "choices": [chunk]}) for chunk in chunks]
    return plays.Play(events=[*events, sse({**shape, "choices": [], "usage": USAGE}), sse("[DONE]")])


async def google(url: str, config: Any, *, stream: bool) -> list[types.GenerateContentResponse]:
    client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=url))
    try:
        if stream:
            events = await client.aio.models.generate_content_stream(model=MODEL, contents="?", config=config)
            return [event async for event in events]
        return [await client.aio.models.generate_content(model=MODEL, contents="?", config=config)]
    finally:
        await client.aio.aclose()
        client.close()


@pytest.mark.slow
@own_warning
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_google_s_sdk_gets_choices_and_their_log_probabilities(tmp_path: Path, stream: bool) -> None:
    words = {0: ["ebb", " tide"], 1: ["neap"]}
    choices = [
        choice(index, "".join(said), {"content": [token(word, -0.5) for word in said]}) for index, said in words.items()
    ]

    async def main() -> None:
        async with Stack(tmp_path, [endpoint()]) as stack:
            stack.fakes.always("openai:a", answered(choices, stream=stream))
            config = types.GenerateContentConfig(candidate_count=2, response_logprobs=True, logprobs=3)
            answers = await google(stack.url, config, stream=stream)
            found: dict[int, list[str]] = {0: [], 1: []}
            chosen: dict[int, list[Any]] = {0: [], 1: []}
            for candidate in (one for answer in answers for one in answer.candidates or ()):
                index = candidate.index or 0
                content = candidate.content
                found[index] += [part.text or "" for part in (content.parts if content else None) or ()]
                if candidate.logprobs_result:
                    chosen[index] += candidate.logprobs_result.chosen_candidates or ()
            assert {index: "".join(said) for index, said in found.items()} == {0: "ebb tide", 1: "neap"}
            assert {index: [one.token for one in told] for index, told in chosen.items()} == words
            assert {one.log_probability for told in chosen.values() for one in told} == {-0.5}
            (call,) = stack.fakes.made()
            assert (call.json["n"], call.json["logprobs"], call.json["top_logprobs"]) == (2, True, 3)
            await stack.idle()
            (record,) = stack.records()
            assert (record.usage.input, record.usage.output) == (20, 6)

    run(main)


@pytest.mark.slow
@own_warning
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_google_s_sdk_hears_an_answer(tmp_path: Path, stream: bool) -> None:
    audio = {"id": "audio_1", "data": base64.b64encode(SOUND).decode(), "expires_at": 9, "transcript": "High tide."}
    config = types.GenerateContentConfig(
        response_modalities=["AUDIO"],
        speech_config=types.SpeechConfig(
            voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Kore"))
        ),
    )

    async def main() -> None:
        async with Stack(tmp_path, [endpoint()]) as stack:
            stack.fakes.always("openai:a", answered([choice(0, "", audio=audio)], stream=stream))
            answers = await google(stack.url, config, stream=stream)
            parts = [p for a in answers for c in a.candidates or () for p in (c.content and c.content.parts) or ()]
            heard = [part.inline_data for part in parts if part.inline_data]
            assert b"".join(blob.data or b"" for blob in heard) == SOUND
            assert {blob.mime_type for blob in heard} == {"audio/L16;codec=pcm;rate=24000"}
            assert not "".join(part.text or "" for part in parts)
            (call,) = stack.fakes.made()
            assert call.json["modalities"] == ["text", "audio"]
            assert call.json["audio"] == {"voice": "alloy", "format": "pcm16"}
            await stack.idle()
            assert stack.records()[0].decision["approximated"]["sound out"] == "in a voice the endpoint has"

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_responses_client_gets_the_log_probabilities_of_a_chat_endpoint(tmp_path: Path, stream: bool) -> None:
    told = [token("ebb", -0.25), token(" tide", -1.5)]

    async def main() -> None:
        async with Stack(tmp_path, [endpoint()]) as stack:
            stack.fakes.always("openai:a", answered([choice(0, "ebb tide", {"content": told})], stream=stream))
            client = openai.AsyncOpenAI(api_key="any", base_url=f"{stack.url}/v1", max_retries=0)
            asked: Any = {"model": MODEL, "input": "?", "store": False, "top_logprobs": 4}
            asked["include"] = ["message.output_text.logprobs"]
            async with client:
                if stream:
                    async with client.responses.stream(**asked) as events:
                        async for _ in events:
                            pass
                        answer: Any = await events.get_final_response()
                else:
                    answer = await client.responses.create(**asked)
            (part,) = answer.output[0].content
            assert part.text == "ebb tide"
            assert [(one.token, one.logprob) for one in part.logprobs] == [("ebb", -0.25), (" tide", -1.5)]
            (call,) = stack.fakes.made()
            assert (call.json["logprobs"], call.json["top_logprobs"]) == (True, 4)

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_chat_client_gets_its_endpoint_s_choices_as_they_are(tmp_path: Path, stream: bool) -> None:
    choices = [choice(0, "ebb", {"content": [token("ebb", -0.5)]}), choice(1, "neap", {"content": [token("neap", -2)]})]

    async def main() -> None:
        async with Stack(tmp_path, [endpoint()]) as stack:
            stack.fakes.always("openai:a", answered(choices, stream=stream))
            client = openai.AsyncOpenAI(api_key="any", base_url=f"{stack.url}/v1", max_retries=0)
            asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "?"}], "n": 2, "logprobs": True}
            async with client:
                if stream:
                    async with client.chat.completions.stream(**asked) as events:
                        async for _ in events:
                            pass
                        answer: Any = await events.get_final_completion()
                else:
                    answer = await client.chat.completions.create(**asked)
            assert [one.message.content for one in answer.choices] == ["ebb", "neap"]
            assert [one.logprobs.content[0].logprob for one in answer.choices] == [-0.5, -2]
            assert stack.records()[0].decision.get("translation") is None

    run(main)


ELSEWHERE: dict[str, tuple[str, Callable[[], FakeAccount]]] = {
    "codex": (GPT, lambda: account("codex:a")),
    "claude": (CLAUDE, lambda: account("claude:a")),
    "responses": (MODEL, lambda: key_account("openai:a", models=[MODEL], dialects=["responses"])),
    "messages": (MODEL, lambda: key_account("openai:a", models=[MODEL], dialects=["messages"])),
}
ASKS: list[tuple[Any, str]] = [
    (types.GenerateContentConfig(candidate_count=2), "candidateCount"),
    (types.GenerateContentConfig(response_logprobs=True), "responseLogprobs"),
    (types.GenerateContentConfig(response_modalities=["AUDIO"]), "responseModalities AUDIO"),
]


@pytest.mark.slow
@own_warning
@pytest.mark.parametrize(("config", "named"), ASKS, ids=[named for _, named in ASKS])
@pytest.mark.parametrize("kind", ELSEWHERE)
def test_an_account_that_has_none_refuses_by_the_field_s_name(
    tmp_path: Path, kind: str, config: Any, named: str
) -> None:
    model, make = ELSEWHERE[kind]

    async def main() -> None:
        async with Stack(tmp_path, [make()]) as stack:
            client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=stack.url))
            with pytest.raises(errors.ClientError) as caught:
                await client.aio.models.generate_content(model=model, contents="?", config=config)
            await client.aio.aclose()
            client.close()
            assert caught.value.code == 400 and named in str(caught.value.message)
            assert not stack.fakes.made()

    run(main)


@pytest.mark.parametrize(
    ("model", "make", "more"),
    [
        (CLAUDE, lambda: account("claude:a"), {"n": 2}),
        (CLAUDE, lambda: account("claude:a"), {"logprobs": True}),
        (GPT, lambda: account("codex:a"), {"n": 2}),
        (
            GPT,
            lambda: account("codex:a"),
            {"modalities": ["text", "audio"], "audio": {"voice": "ash", "format": "wav"}},
        ),
    ],
)
def test_openai_s_sdk_is_told_by_name_what_an_account_of_another_dialect_has_not(
    tmp_path: Path, model: str, make: Callable[[], FakeAccount], more: dict[str, Any]
) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [make()]) as stack:
            async with openai.AsyncOpenAI(api_key="any", base_url=f"{stack.url}/v1", max_retries=0) as client:
                with pytest.raises(openai.BadRequestError) as caught:
                    await client.chat.completions.create(
                        model=model, messages=[{"role": "user", "content": "?"}], **more
                    )
            assert next(iter(more)) in caught.value.message
            assert not stack.fakes.made()

    run(main)


def test_together_s_form_of_log_probabilities_reaches_a_responses_client(tmp_path: Path) -> None:
    form = {"tokens": ["ebb", " tide"], "token_logprobs": [-0.25, -1.5], "token_ids": [7, 8]}

    async def main() -> None:
        async with Stack(tmp_path, [endpoint()]) as stack:
            stack.fakes.always("openai:a", answered([choice(0, "ebb tide", form)], stream=False))
            async with openai.AsyncOpenAI(api_key="any", base_url=f"{stack.url}/v1", max_retries=0) as client:
                answer: Any = await client.responses.create(model=MODEL, input="?", store=False, top_logprobs=1)
            (part,) = answer.output[0].content
            assert [(one.token, one.logprob) for one in part.logprobs] == [("ebb", -0.25), (" tide", -1.5)]
            assert json.loads(stack.fakes.made()[0].body)["logprobs"] is True

    run(main)
