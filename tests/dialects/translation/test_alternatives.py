"""Several choices, log probabilities and a subset of tools on Chat accounts."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from typing import Any

import pytest
from google.genai.types import GenerateContentResponse
from openai.types.responses import Response

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import TranslationError, UpstreamKind
from tests.dialects.streams import sse
from tests.dialects.translation.grammar import hear, split
from tests.dialects.translation.kit import request, translate, up

CHAT = UpstreamKind.CHAT
GOOGLE = (Dialect.GEMINI, Dialect.CODE_ASSIST)
USAGE = {"prompt_tokens": 50, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 20}}
HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 3, "model": "kimi-k2"}


def asked(client: Dialect, stream: bool = False, **config: Any) -> dict[str, Any]:
    body = request(client, [("user", "?")], stream=stream)
    if client in GOOGLE:
        body.get("request", body)["generationConfig"] = config
        return body
    return body | config


def chunk(index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return sse({**HEAD, "choices": [choice]})


def told(client: Dialect, raw: bytes) -> list[dict[str, Any]]:
    found = [event.get("response", event) if client is Dialect.CODE_ASSIST else event for _, event in split(raw)]
    for event in found:
        if "error" not in event:
            GenerateContentResponse.model_validate(event)
    return found


def texts(events: list[dict[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in events:
        for candidate in event.get("candidates", ()):
            said = "".join(part.get("text", "") for part in candidate["content"]["parts"])
            found[candidate["index"]] = found.get(candidate["index"], "") + said
    return found


def finishes(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [
        (candidate["index"], candidate["finishReason"])
        for event in events
        for candidate in event.get("candidates", ())
        if "finishReason" in candidate
    ]


# ---------------------------------------------------------------- several choices

THREE = [
    chunk(0, {"role": "assistant", "content": ""}),
    chunk(1, {"role": "assistant", "content": ""}),
    chunk(1, {"content": "ebb"}),
    chunk(0, {"content": "flo"}),
    chunk(2, {"content": "neap"}),
    chunk(0, {"content": "od"}, "stop"),
    chunk(2, {}, "length"),
    chunk(1, {}, "stop"),
    sse({**HEAD, "choices": [], "usage": USAGE}),
    sse("[DONE]"),
]


@pytest.mark.parametrize("client", GOOGLE)
def test_choices_are_asked_for_and_streamed_each_by_itself(client: Dialect) -> None:
    found = translate(client, CHAT, asked(client, candidateCount=3), stream=True)
    assert json.loads(found.body)["n"] == 3 and not found.dropped
    raw = b"".join(found.response.feed(piece) for piece in THREE) + found.response.finish()
    events = told(client, raw)
    assert found.response.complete and texts(events) == {0: "flood", 1: "ebb", 2: "neap"}
    assert finishes(events) == [(0, "STOP"), (1, "STOP"), (2, "MAX_TOKENS")]
    counted = [event["usageMetadata"] for event in events if "usageMetadata" in event]
    assert counted == [events[-1]["usageMetadata"]] and counted[0]["totalTokenCount"] == 59
    assert all(len(event["candidates"]) == 1 for event in events)


def whole_answer(*texts: str) -> bytes:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    return json.dumps({"id": "c-1", "model": "kimi-k2", "choices": choices, "usage": USAGE}).encode()


@pytest.mark.parametrize("client", GOOGLE)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("answered", [("flood", "ebb", "neap"), ("flood",)])
def test_choices_in_one_piece_reach_the_client(client: Dialect, stream: bool, answered: tuple[str, ...]) -> None:
    found = translate(client, CHAT, asked(client, candidateCount=3), stream=stream)
    raw = found.response.whole(whole_answer(*answered))
    assert found.response.complete
    if not stream:
        raw = b"data: " + raw + b"\n\n"
    events = told(client, raw)
    assert texts(events) == dict(enumerate(answered))
    assert finishes(events) == [(index, "STOP") for index in range(len(answered))]
    assert [event["usageMetadata"]["candidatesTokenCount"] for event in events if "usageMetadata" in event] == [9]


def test_a_streamed_answer_of_choices_is_put_together() -> None:
    found = translate(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, candidateCount=3))
    assert not b"".join(found.response.feed(piece) for piece in THREE)
    body = json.loads(found.response.finish())
    assert texts([body]) == {0: "flood", 1: "ebb", 2: "neap"} and found.response.complete


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pieces", [THREE[:7], THREE[:1], [], [*THREE[:5], sse({"error": {"message": "worn out"}})]])
def test_choices_that_break_off_end_with_one_error(stream: bool, pieces: list[bytes]) -> None:
    found = translate(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, candidateCount=3), stream=stream)
    raw = b"".join(found.response.feed(piece) for piece in pieces) + found.response.finish()
    assert not found.response.complete and found.response.fault is not None
    events = told(Dialect.GEMINI, raw)
    assert not finishes(events)
    if found.response.begun:
        assert ["error" in event for event in events] == [False] * (len(events) - 1) + [True]
    else:
        assert not raw and found.response.fault_answer()[0] == found.response.fault.status


def test_more_choices_than_were_asked_for_are_not_told() -> None:
    found = translate(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, candidateCount=2), stream=True)
    raw = b"".join(found.response.feed(piece) for piece in THREE) + found.response.finish()
    assert texts(told(Dialect.GEMINI, raw)) == {0: "flood", 1: "ebb"}


@pytest.mark.parametrize("count", [-1, 0, 9, 1 << 40])
def test_a_number_of_choices_out_of_bounds_is_refused(count: int) -> None:
    with pytest.raises(TranslationError, match=r"^generationConfig\.candidateCount: must be from 1 to 8"):
        translate(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, candidateCount=count))


# ---------------------------------------------------------------- log probabilities


def token(text: str, logprob: float, *top: tuple[str, float], raw: bytes | None = None) -> dict[str, Any]:
    found = {"token": text, "logprob": logprob, "bytes": list(raw if raw is not None else text.encode())}
    return found | {"top_logprobs": [token(one, value) for one, value in top]} if top else found


MOON = "🌕".encode()
TOKENS = [
    token("full", -0.25, ("full", -0.25), ("new", -1.5)),
    token("\\xf0\\x9f", -0.5, ("\\xf0\\x9f", -0.5), raw=MOON[:2]),
    token("\\x8c\\x95", -0.75, ("\\x8c\\x95", -0.75), raw=MOON[2:]),
]
SPOKEN = [
    chunk(0, {"role": "assistant", "content": ""}),
    chunk(0, {"content": "full"}, logprobs={"content": TOKENS[:1], "refusal": None}),
    chunk(0, {"content": ""}, logprobs={"content": TOKENS[1:2], "refusal": None}),
    chunk(0, {"content": "🌕"}, logprobs={"content": TOKENS[2:], "refusal": None}),
    chunk(0, {}, "stop"),
    sse({**HEAD, "choices": [], "usage": USAGE}),
    sse("[DONE]"),
]
WHOLE = {
    "id": "c-1",
    "model": "kimi-k2",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "full🌕"},
            "logprobs": {"content": TOKENS, "refusal": None},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
EXPECTED = [one | {"top_logprobs": one["top_logprobs"]} for one in TOKENS]
ASKS = [
    (Dialect.RESPONSES, {"include": ["message.output_text.logprobs"]}, None),
    (Dialect.RESPONSES, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}, 2),
    (Dialect.RESPONSES, {"top_logprobs": 20}, 20),
    (Dialect.GEMINI, {"responseLogprobs": True}, None),
    (Dialect.GEMINI, {"responseLogprobs": True, "logprobs": 2}, 2),
    (Dialect.CODE_ASSIST, {"responseLogprobs": True, "logprobs": 5}, 5),
]


@pytest.mark.parametrize(("client", "config", "top"), ASKS)
def test_log_probabilities_are_asked_for(client: Dialect, config: dict[str, Any], top: int | None) -> None:
    body = up(client, CHAT, asked(client, **config))
    assert (body["logprobs"], body.get("top_logprobs")) == (True, top)
    assert "logprobs" not in up(client, CHAT, asked(client))


@pytest.mark.parametrize("count", [-1, 21])
def test_too_many_of_the_likeliest_tokens_are_refused(count: int) -> None:
    for client, name in ((Dialect.RESPONSES, "top_logprobs"), (Dialect.GEMINI, "logprobs")):
        with pytest.raises(TranslationError, match=rf"{name}: must be from 0 to 20"):
            translate(client, CHAT, asked(client, False, **{name: count}))


@pytest.mark.parametrize("upstream_streams", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_responses_client_gets_the_tokens_of_its_text(stream: bool, upstream_streams: bool) -> None:
    config = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    found = translate(Dialect.RESPONSES, CHAT, asked(Dialect.RESPONSES, stream, **config), stream=stream)
    if upstream_streams:
        raw = b"".join(found.response.feed(piece) for piece in SPOKEN) + found.response.finish()
    else:
        raw = found.response.whole(json.dumps(WHOLE).encode())
    assert found.response.complete
    if stream:
        assert hear(Dialect.RESPONSES, raw).texts() == "full🌕"
        events = [event for _, event in split(raw)]
        deltas = [one for event in events if event["type"].endswith("text.delta") for one in event["logprobs"]]
        (done,) = [event["logprobs"] for event in events if event["type"] == "response.output_text.done"]
        assert deltas == done == EXPECTED
        answer = events[-1]["response"]
    else:
        answer = json.loads(raw)
    Response.model_validate(answer)
    assert answer["output"][0]["content"][0]["logprobs"] == EXPECTED


@pytest.mark.parametrize("upstream_streams", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", GOOGLE)
def test_a_gemini_client_gets_the_tokens_of_its_text(client: Dialect, stream: bool, upstream_streams: bool) -> None:
    found = translate(client, CHAT, asked(client, responseLogprobs=True, logprobs=2), stream=stream)
    if upstream_streams:
        raw = b"".join(found.response.feed(piece) for piece in SPOKEN) + found.response.finish()
    else:
        raw = found.response.whole(json.dumps(WHOLE).encode())
    events = told(client, raw if stream else b"data: " + raw + b"\n\n")
    candidates = [candidate for event in events for candidate in event["candidates"]]
    results = [candidate["logprobsResult"] for candidate in candidates if "logprobsResult" in candidate]
    chosen = [(one["token"], one["logProbability"]) for result in results for one in result["chosenCandidates"]]
    assert chosen == [(one["token"], one["logprob"]) for one in TOKENS]
    top = [place["candidates"] for result in results for place in result["topCandidates"]]
    assert [[one["token"] for one in place] for place in top] == [["full", "new"], ["\\xf0\\x9f"], ["\\x8c\\x95"]]
    assert math.isclose(candidates[-1]["avgLogprobs"], -0.5)


def test_tokens_behind_a_stop_string_are_not_told() -> None:
    stops = ["a1", "a2", "a3", "a4", "END"]
    body = asked(Dialect.GEMINI, stopSequences=stops, responseLogprobs=True)
    found = translate(Dialect.GEMINI, CHAT, body, stream=True)
    words = ["sea", "E", "agle", "EN", "D", "more"]
    pieces = [chunk(0, {"content": one}, logprobs={"content": [token(one, -1.0)]}) for one in words]
    raw = b"".join(found.response.feed(piece) for piece in [*pieces, chunk(0, {}, "stop"), sse("[DONE]")])
    events = told(Dialect.GEMINI, raw + found.response.finish())
    results = [event["candidates"][0].get("logprobsResult", {}) for event in events]
    assert texts(events) == {0: "seaEagle"}
    chosen = [one["token"] for result in results for one in result.get("chosenCandidates", ())]
    assert chosen == ["sea", "E", "agle"]


BROKEN: list[Any] = [
    7,
    {"content": 7},
    {"content": [7, {}, {"token": 3, "logprob": -1}, {"token": "x", "logprob": True}]},
    {"content": [{"token": "x", "logprob": -1, "bytes": [256, -1, "a"], "top_logprobs": 5}]},
    {"tokens": ["x", 7, None], "token_logprobs": [None, -1, True], "top_logprobs": 5},
    {"tokens": ["x"], "token_logprobs": 7, "top_logprobs": [{"x": None}, 3]},
    {"tokens": [], "token_logprobs": [-1, -2], "top_logprobs": []},
    True,
]
OLD_FORM = {
    "tokens": ["full", "🌕"],
    "token_logprobs": [-0.25, -0.5],
    "token_ids": [1, 2],
    "top_logprobs": [{"full": -0.25, "new": -1.5}, {"🌕": -0.5}],
}


def test_log_probabilities_in_lists_side_by_side_are_read() -> None:
    body: dict[str, Any] = deepcopy(WHOLE)
    body["choices"][0]["logprobs"] = OLD_FORM
    found = translate(Dialect.RESPONSES, CHAT, asked(Dialect.RESPONSES, False, top_logprobs=2))
    answer = json.loads(found.response.whole(json.dumps(body).encode()))
    expected = [token("full", -0.25, ("full", -0.25), ("new", -1.5)), token("🌕", -0.5, ("🌕", -0.5))]
    assert answer["output"][0]["content"][0]["logprobs"] == expected
    Response.model_validate(answer)


@pytest.mark.parametrize("first", [-0.25, OLD_FORM | {"tokens": ["full"], "token_logprobs": [-0.25]}])
def test_log_probabilities_of_a_stream_in_the_old_form_are_read(first: Any) -> None:
    found = translate(Dialect.GEMINI, CHAT, asked(Dialect.GEMINI, responseLogprobs=True), stream=True)
    pieces = [chunk(0, {"content": "full"}, logprobs=first), chunk(0, {"content": "🌕"}, logprobs=-0.5)]
    pieces += [chunk(0, {"content": ""}, "stop", logprobs=-7), sse("[DONE]")]
    events = told(Dialect.GEMINI, b"".join(found.response.feed(piece) for piece in pieces) + found.response.finish())
    results = [event["candidates"][0].get("logprobsResult", {}) for event in events]
    chosen = [one for result in results for one in result.get("chosenCandidates", ())]
    assert [(one["token"], one["logProbability"]) for one in chosen] == [("full", -0.25), ("🌕", -0.5)]
    assert texts(events) == {0: "full🌕"}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("client", [Dialect.RESPONSES, Dialect.GEMINI])
def test_broken_log_probabilities_leave_the_text_whole(client: Dialect, broken: Any) -> None:
    found = translate(client, CHAT, asked(client, True), stream=True)
    pieces = [chunk(0, {"content": "x"}, logprobs=broken), chunk(0, {}, "stop", broken), sse("[DONE]")]
    raw = b"".join(found.response.feed(piece) for piece in pieces) + found.response.finish()
    assert hear(client, raw).texts() == "x" and found.response.complete


def test_the_tokens_of_reasoning_do_not_cut_it() -> None:
    found = translate(Dialect.RESPONSES, CHAT, asked(Dialect.RESPONSES, True), stream=True)
    pieces = [chunk(0, {"reasoning_content": one}, logprobs={"content": [token(one, -1.0)]}) for one in "abc"]
    raw = b"".join(found.response.feed(piece) for piece in [*pieces, *SPOKEN[1:]]) + found.response.finish()
    assert [block[:2] for block in hear(Dialect.RESPONSES, raw).blocks] == [["think", "abc"], ["text", "full🌕"]]


# ---------------------------------------------------------------- a subset of tools, and vendors

CHOSEN = ["moon", "tide"]
SUBSETS: list[tuple[Dialect, str, Any]] = [
    (
        Dialect.RESPONSES,
        "tool_choice",
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": n} for n in CHOSEN]},
    ),
    (Dialect.GEMINI, "toolConfig", {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": CHOSEN}}),
]


@pytest.mark.parametrize(("client", "field", "choice"), SUBSETS)
def test_a_subset_of_tools_is_told_where_the_vendor_takes_it(client: Dialect, field: str, choice: Any) -> None:
    body = request(client, [("user", "?")], tools=("moon", "tide", "wind")) | {field: choice}
    own = translate(client, CHAT, body, vendor="openai")
    sent = json.loads(own.body)
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["moon", "tide", "wind"]
    chosen = [{"type": "function", "function": {"name": name}} for name in CHOSEN]
    assert sent["tool_choice"] == {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": chosen}}
    assert "a subset of tools" not in own.approximated
    other = translate(client, CHAT, body)
    sent = json.loads(other.body)
    assert [tool["function"]["name"] for tool in sent["tools"]] == CHOSEN and sent["tool_choice"] == "required"
    assert other.approximated["a subset of tools"] == "the others are left out"


@pytest.mark.parametrize(
    ("client", "config", "vendor", "field"),
    [
        (Dialect.GEMINI, {"candidateCount": 2}, "groq", "generationConfig.candidateCount"),
        (Dialect.GEMINI, {"responseLogprobs": True}, "groq", "generationConfig.responseLogprobs"),
        (Dialect.RESPONSES, {"include": ["message.output_text.logprobs"]}, "groq", "include"),
        (Dialect.RESPONSES, {"top_logprobs": 3}, "mistral", "top_logprobs"),
    ],
)
def test_what_a_vendor_does_not_take_is_refused_by_the_clients_name(
    client: Dialect, config: dict[str, Any], vendor: str, field: str
) -> None:
    with pytest.raises(TranslationError) as caught:
        translate(client, CHAT, asked(client, **config), vendor=vendor)
    assert caught.value.field == field
