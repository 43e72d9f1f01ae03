"""Endpoints that take less than their dialect holds, or insist on forms of their own, are asked as they demand: in the
words of public reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage
from pool_server.dialects.translation import UpstreamKind
from pool_server.dialects.translation.neutral import Family
from pool_server.dialects.translation.seals import seal_for
from tests.dialects.translation.kit import translate
from tests.fakes import key_account, plays
from tests.gateway.stack import Stack, chat, run

OTHER = key_account("openai:other", base_url_path="/compat", models=["n"])
USAGE = Usage(input=7, output=5, known=True)
CLAUDE = "/v1/messages"
CODEX = "/v1/responses"
SEAL = seal_for(Dialect.RESPONSES, Family.CHAT, "")
CALL = {"type": "tool_use", "id": "toolu_01A", "name": "moon", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_01A", "content": "full"}
TOOL = {"name": "moon", "input_schema": {"type": "object", "properties": {}}}


def refusal(body: Any, status: int = 400) -> plays.Play:
    return plays.Play(status=status, body=body)


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


def turns(**more: Any) -> dict[str, Any]:
    """A conversation of Claude Code's in which a tool was called and a person went on."""
    talk = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, CALL]},
        {"role": "user", "content": [RESULT, {"type": "text", "text": "And the tide?"}]},
    ]
    return {"model": "m", "max_tokens": 2000, "messages": talk, "tools": [TOOL], **more}


def codex(**more: Any) -> dict[str, Any]:
    """A turn as Codex sends it, with its own thought of the turn before."""
    talk = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": SEAL},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Full."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "why"}]},
    ]
    text = {"verbosity": "low"}
    return {"model": "m", "input": talk, "prompt_cache_key": "k", "text": text, "parallel_tool_calls": True, **more}


def thinks(body: dict[str, Any]) -> list[Any]:
    return [one.get("reasoning_content") for one in body["messages"] if one["role"] == "assistant"]


def ids(body: dict[str, Any]) -> list[str]:
    calls = [call["id"] for one in body["messages"] for call in one.get("tool_calls", ())]
    return [*calls, *(one["tool_call_id"] for one in body["messages"] if one["role"] == "tool")]


def roles(body: dict[str, Any]) -> str:
    return " ".join(one["role"] for one in body["messages"])


LOC = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted", "input": "\n"}
NINE = "Tool call id was toolu_01A but must be a-z, A-Z, 0-9, with a length of 9."
SYSTEM = [{"type": "text", "text": "Be brief."}]
LATE = [{"role": "user", "content": "q"}, {"role": "system", "content": "Now French."}]
Case = tuple[str, dict[str, Any], list[plays.Play], Callable[[dict[str, Any]], Any], list[Any]]
CASES: dict[str, Case] = {
    "groq, thoughts": (
        CODEX,
        codex(),
        [refusal(said("'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : property "
                      "'reasoning_content' is unsupported)]"))],
        thinks,
        [["Hm."], [None]],
    ),
    "cerebras, one field after the other": (
        CODEX,
        codex(),
        [refusal({"message": "body.prompt_cache_key: property 'body.prompt_cache_key' is unsupported",
                  "type": "invalid_request_error", "param": "validation_error", "code": "wrong_api_format"}, 422),
         refusal({"message": "body.verbosity: property 'body.verbosity' is unsupported"}, 422)],
        lambda body: [name for name in ("prompt_cache_key", "verbosity") if name in body],
        [["prompt_cache_key", "verbosity"], ["verbosity"], []],
    ),
    "mistral, all at once": (
        CODEX,
        codex(),
        [refusal({"object": "error", "message": {"detail": [
            {**LOC, "loc": ["body", "messages", 1, "assistant", "reasoning_content"]},
            {**LOC, "loc": ["body", "prompt_cache_key"]}]}, "type": "invalid_request_error"}, 422)],
        lambda body: [*thinks(body), body.get("prompt_cache_key"), body.get("verbosity")],
        [["Hm.", "k", "low"], [None, None, "low"]],
    ),
    "fireworks": (
        CODEX,
        codex(),
        [refusal(said("Extra inputs are not permitted, field: 'prompt_cache_key', value: 'k'"))],
        lambda body: body.get("prompt_cache_key"),
        ["k", None],
    ),
    "openai, temperature": (
        CLAUDE,
        turns(temperature=0.5),
        [refusal(said("Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) "
                      "value is supported.", param="temperature", code="unsupported_value"))],
        lambda body: body.get("temperature"),
        [0.5, None],
    ),
    "openai, the limit by its newer name": (
        CLAUDE,
        turns(),
        [refusal(said("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                      "'max_completion_tokens' instead.", param="max_tokens", code="unsupported_parameter"))],
        lambda body: [body.get("max_tokens"), body.get("max_completion_tokens")],
        [[2000, None], [None, 2000]],
    ),
    "xai": (
        CLAUDE,
        turns(stop_sequences=["END"]),
        [refusal({"code": "Client specified an invalid argument",
                  "error": "Argument not supported on this model: stop"})],
        lambda body: body.get("stop"),
        [["END"], None],
    ),
    "kimi, thoughts are missing": (
        CLAUDE,
        turns(),
        [refusal(said("thinking is enabled but reasoning_content is missing in assistant tool call message at index"))],
        thinks,
        [[None], [" "]],
    ),
    "deepseek, thoughts have to come back": (
        CLAUDE,
        turns(),
        [refusal(said("The `reasoning_content` in the thinking mode must be passed back to the API."))],
        thinks,
        [[None], [" "]],
    ),
    "mistral's ids": (
        CLAUDE,
        turns(),
        [refusal({"object": "error", "message": NINE})],
        lambda body: (len(set(ids(body))), ids(body)[0].isalnum()),
        [(1, False), (1, True)],
    ),
    "a person after a result": (
        CLAUDE,
        turns(),
        [refusal({"object": "error", "message": "Unexpected role 'user' after role 'tool'"})],
        roles,
        ["user assistant tool user", "user assistant tool assistant user"],
    ),
    "a template with one system text": (
        CLAUDE,
        {"model": "m", "max_tokens": 2000, "system": SYSTEM, "messages": LATE},
        [refusal(said("System message must be at the beginning."))],
        roles,
        ["system user system", "system user user"],
    ),
    "a template whose roles alternate": (
        CLAUDE,
        {"model": "m", "max_tokens": 2000, "system": SYSTEM, "messages": LATE},
        [refusal(said("Conversation roles must alternate user/assistant/user/assistant/..."))],
        roles,
        ["system user system", "system user"],
    ),
}  # fmt: skip


def model_of(case: str) -> str:
    return f"m-{case.replace(' ', '-').replace(',', '')}"


ROUTER = key_account("openai:router", base_url_path="/compat", dialects=("chat",), models=["m", *map(model_of, CASES)])


def test_an_endpoint_is_asked_as_it_demands(tmp_path: Path) -> None:
    """And from then on at once; another account's model is not concerned."""

    async def main() -> None:
        async with Stack(tmp_path, [ROUTER, OTHER]) as stack:
            for name, (path, body, refusals, seen, want) in CASES.items():
                model = model_of(name)
                before = len(stack.fakes.made())
                stack.fakes.then(ROUTER.id, *refusals, *[plays.ok(USAGE, ["Full."])] * 2)
                for _ in range(2):
                    status, answer = await stack.post(path, {**body, "model": model}, X_Pool_Account=ROUTER.id)
                    assert status == 200, (name, answer)
                sent = [json.loads(call.body) for call in stack.fakes.made()[before:]]
                assert [seen(one) for one in sent] == [*want, want[-1]], name
            stack.fakes.then(OTHER.id, plays.ok(USAGE, ["Full."]))
            await stack.post(CLAUDE, {**turns(temperature=0.5), "model": "n"})
            assert json.loads(stack.fakes.made()[-1].body)["temperature"] == 0.5
            records = {record.model: record for record in stack.records()}
            assert records["m-xai"].usage == USAGE and len(records["m-xai"].attempts) == 1

    run(main)


def test_what_a_refusal_demands_is_kept_once_an_answer_proves_it(tmp_path: Path) -> None:
    """An error that quotes a person's text may name any field."""
    quoted = said("Unsupported value: 'I was told that temperature is not supported'")

    async def main() -> None:
        async with Stack(tmp_path, [ROUTER]) as stack:
            stack.fakes.then(ROUTER.id, refusal(quoted), refusal(quoted), plays.ok(USAGE, ["Full."]))
            status, answer = await stack.post(CLAUDE, turns(temperature=0.5))
            assert status == 400 and b"I was told" in answer
            status, _ = await stack.post(CLAUDE, turns(temperature=0.5))
            sent = [json.loads(call.body).get("temperature") for call in stack.fakes.made()]
            assert (status, sent) == (200, [0.5, None, 0.5])

    run(main)


@pytest.mark.parametrize("path", ["/v1/chat/completions"])
def test_bytes_of_the_same_dialect_pass_untouched(tmp_path: Path, path: str) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [ROUTER]) as stack:
            stack.fakes.then(ROUTER.id, refusal(said("Unsupported parameter: 'temperature'", param="temperature")))
            status, _ = await stack.post(path, chat(model="m", temperature=0.5))
            assert (status, len(stack.fakes.made())) == (400, 1)

    run(main)


def test_what_a_vendor_s_own_endpoint_demands_is_met_at_once() -> None:
    told = translate(Dialect.MESSAGES, UpstreamKind.CHAT, turns(stream=True), stream=True, vendor="mistral")
    body = json.loads(told.body)
    assert "stream_options" not in body and all(len(one) == 9 and one.isalnum() for one in ids(body))
    assert len(set(ids(body))) == 1
    assert told.approximated["demanded by this endpoint"] == "without stream_options, call ids of nine letters"
    assert (
        json.loads(translate(Dialect.MESSAGES, UpstreamKind.CHAT, turns()).body)["messages"][1]["tool_calls"][0]["id"]
        == "toolu_01A"
    )
