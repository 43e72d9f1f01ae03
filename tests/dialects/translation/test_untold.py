"""What an account answered arrives, or is named in the record; a stream and an answer in one piece say the same."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from anthropic.types import ContentBlock, StopReason
from google.genai.types import FinishReason
from google.genai.types import Part as GeminiPart
from openai.types.responses import ResponseOutputItem

from pool_server.dialects.translation import Translated, UpstreamKind
from pool_server.dialects.translation.conformance import UNTOLD
from tests.dialects.streams import named, sse
from tests.dialects.translation.kit import PAIRS, request, translate

SAID = "wind from the west"
CLIENT_OF = {kind: next(client for client, other in PAIRS if other is kind) for kind in UpstreamKind}


def tags(union: Any) -> list[str]:
    """The `type` of each block or item the vendor's SDK knows."""
    members = typing.get_args(typing.get_args(union)[0])
    return sorted({tag for one in members for tag in typing.get_args(one.model_fields["type"].annotation)})


def wrap(kind: UpstreamKind, candidate: dict[str, Any]) -> dict[str, Any]:
    shape = {"candidates": [{"index": 0, **candidate}], "modelVersion": "m", "responseId": "g-1"}
    return {"response": shape} if kind is UpstreamKind.CODE_ASSIST else shape


def whole_of(kind: UpstreamKind, blocks: list[dict[str, Any]], end: dict[str, Any]) -> bytes:
    """An answer of the vendor's own blocks; `end` says why it ended, and what stands beside the blocks."""
    if kind is UpstreamKind.MESSAGES:
        shape: Any = {"id": "msg_q", "type": "message", "content": blocks, "stop_reason": "end_turn"} | end
    elif kind is UpstreamKind.CHAT:
        shape = {"choices": [{"index": 0, "message": blocks[0], "finish_reason": "stop"} | end]}
    elif kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST):
        shape = wrap(kind, {"content": {"parts": blocks}, "finishReason": "STOP"} | end)
    else:
        shape = {"id": "resp_q", "object": "response", "status": "completed", "output": blocks} | end
    return json.dumps(shape).encode()


def events_of(kind: UpstreamKind, blocks: list[dict[str, Any]], end: dict[str, Any]) -> bytes:
    if kind is UpstreamKind.MESSAGES:
        found: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "msg_q"}}]
        for index, block in enumerate(blocks):
            found.append({"type": "content_block_start", "index": index, "content_block": block})
            found.append({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": "end_turn"} | end
        found += [{"type": "message_delta", "delta": delta}, {"type": "message_stop"}]
        return b"".join(named(event) for event in found)
    if kind is UpstreamKind.CHAT:
        deltas = [{"index": 0, "delta": {name: value}} for name, value in blocks[0].items()]
        last = {"index": 0, "delta": {}, "finish_reason": "stop"} | end
        return b"".join(sse({"choices": [choice]}) for choice in [*deltas, last]) + sse("[DONE]")
    if kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST):
        parts = [wrap(kind, {"content": {"parts": [block]}}) for block in blocks]
        return b"".join(sse(event, end="\r\n") for event in [*parts, wrap(kind, {"finishReason": "STOP"} | end)])
    done = [{"type": "response.output_item.done", "output_index": at, "item": item} for at, item in enumerate(blocks)]
    response = {"id": "resp_q", "status": "completed", "output": blocks} | end
    created = {"type": "response.created", "response": {"id": "resp_q"}}
    events: list[dict[str, Any]] = [created, *done, {"type": f"response.{response['status']}", "response": response}]
    return b"".join(named(event) for event in events)


def both(kind: UpstreamKind, blocks: list[dict[str, Any]], **end: Any) -> tuple[Translated, dict[str, Any]]:
    """(exchange, what the client gets) of an answer that is streamed and of the same in one piece."""
    client = CLIENT_OF[kind]
    found = []
    for stream in (False, True):
        sent = translate(client, kind, request(client, [("user", "hi")]), stream=False)
        if stream:
            raw = sent.response.feed(events_of(kind, blocks, end)) + sent.response.finish()
        else:
            raw = sent.response.whole(whole_of(kind, blocks, end))
        fault = sent.response.fault
        found.append((sent, {"fault": fault.message} if fault else json.loads(raw)))
    (whole, one), (streamed, two) = found
    assert whole.response.approximated == streamed.response.approximated
    assert one == two
    return whole, one


BLOCKS: dict[UpstreamKind, list[dict[str, Any]]] = {
    UpstreamKind.MESSAGES: [{"type": tag} for tag in tags(ContentBlock)],
    UpstreamKind.RESPONSES: [{"type": tag} for tag in tags(ResponseOutputItem)],
    UpstreamKind.GEMINI: [{field.alias or name: {}} for name, field in GeminiPart.model_fields.items()],
}
TOLD = {
    UpstreamKind.MESSAGES: {"text", "thinking", "redacted_thinking", "tool_use"},
    UpstreamKind.RESPONSES: {"message", "reasoning", "function_call", "custom_tool_call"},
    UpstreamKind.GEMINI: {"text", "inlineData", "functionCall", "thought", "thoughtSignature"},
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_each_kind_of_block_is_told_or_named(kind: UpstreamKind) -> None:
    """Of all the vendor's SDK knows, and one that nobody does."""
    spoken: dict[str, Any] = {"text": SAID} if kind is UpstreamKind.GEMINI else {"type": "text", "text": SAID}
    if kind is UpstreamKind.RESPONSES:
        spoken = {"type": "message", "content": [{"type": "output_text", "text": SAID}]}
    unheard_of: dict[str, Any] = {"windX": {"deg": 0}} if kind is UpstreamKind.GEMINI else {"type": "wind_x"}
    for block in [*BLOCKS[kind], unheard_of]:
        name = block.get("type", next(iter(block)))
        sent, told = both(kind, [block, spoken])
        assert SAID in json.dumps(told), name
        noted = sent.response.approximated.get(UNTOLD, "")
        assert (name in noted) is (name not in TOLD[kind]), (name, noted)


BESIDE = [
    (
        UpstreamKind.MESSAGES,
        [{"type": "text", "text": SAID, "citations": [{"type": "page"}]}],
        {},
        "citations",
    ),
    (UpstreamKind.MESSAGES, [{"type": "text", "text": SAID}], {"stop_details": {"category": "bio"}}, "stop_details"),
    (
        UpstreamKind.RESPONSES,
        [{"type": "message", "content": [{"type": "output_text", "text": SAID, "annotations": [{"type": "url"}]}]}],
        {},
        "annotations",
    ),
    (UpstreamKind.RESPONSES, [{"type": "message", "content": [{"type": "output_map"}]}], {}, "output_map"),
    (UpstreamKind.CHAT, [{"content": SAID, "annotations": [{"type": "url_citation"}]}], {}, "annotations"),
    (UpstreamKind.CHAT, [{"content": [{"type": "text", "text": SAID}, {"type": "reference"}]}], {}, "reference"),
    (UpstreamKind.CHAT, [{"content": SAID, "images": [{"image_url": {"url": "https://x/a.png"}}]}], {}, "images"),
    *[
        (kind, [{"text": SAID}], {field: {"a": 1}}, field)
        for kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST)
        for field in ("groundingMetadata", "citationMetadata", "urlContextMetadata", "finishMessage")
    ],
]


@pytest.mark.parametrize(("kind", "blocks", "end", "name"), BESIDE)
def test_what_stands_beside_the_text_is_named(
    kind: UpstreamKind, blocks: list[dict[str, Any]], end: dict[str, Any], name: str
) -> None:
    sent, told = both(kind, blocks, **end)
    assert sent.response.approximated == {UNTOLD: f"left out: {name}"}
    assert "fault" not in told


def test_parts_of_a_reasoning_model_s_content_are_told_as_what_they_are() -> None:
    """As Mistral's answer."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm, "}, {"type": "text", "text": "west?"}]}
    content = [thought, {"type": "text", "text": SAID}]
    sent, told = both(UpstreamKind.CHAT, [{"content": content}])
    assert [item["type"] for item in told["output"]] == ["reasoning", "message"]
    assert told["output"][0]["summary"][0]["text"] == "hm, west?"
    assert told["output"][1]["content"][0]["text"] == SAID
    assert not sent.response.approximated


NATURAL = {"end_turn", "stop_sequence", "stop", "STOP", "tool_use", "tool_calls", "function_call"}
CHAT_REASONS = [
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "function_call",
    "model_length",
    "error",
    "abort",
    "wind_x",
]
REASONS = [
    *[(UpstreamKind.MESSAGES, {"stop_reason": reason}) for reason in [*typing.get_args(StopReason), "wind_x"]],
    *[(UpstreamKind.GEMINI, {"finishReason": one.value}) for one in FinishReason if "UNSPECIFIED" not in one.value],
    (UpstreamKind.GEMINI, {"finishReason": "WIND_X"}),
    *[(UpstreamKind.CHAT, {"finish_reason": reason}) for reason in CHAT_REASONS],
    *[
        (UpstreamKind.RESPONSES, {"status": "incomplete", "incomplete_details": {"reason": reason}})
        for reason in ("max_output_tokens", "content_filter", "steered", "wind_x")
    ],
]


@pytest.mark.parametrize(("kind", "end"), REASONS)
def test_no_reason_to_stop_is_taken_for_a_natural_end_in_silence(kind: UpstreamKind, end: dict[str, Any]) -> None:
    blocks: dict[UpstreamKind, dict[str, Any]] = {
        UpstreamKind.CHAT: {"content": SAID},
        UpstreamKind.GEMINI: {"text": SAID},
        UpstreamKind.MESSAGES: {"type": "text", "text": SAID},
        UpstreamKind.RESPONSES: {"type": "message", "content": [{"type": "output_text", "text": SAID}]},
    }
    sent, told = both(kind, [blocks[kind]], **end)
    reason = json.dumps(end)
    finish = told["choices"][0]["finish_reason"] if "choices" in told else told.get("status", "")
    named_it = any(word in sent.response.approximated.get(UNTOLD, "") for word in reason.replace('"', " ").split())
    natural = finish in ("stop", "completed")
    paused = "pause_turn" in reason or "TOO_MANY" in reason  # Chat and Responses have no word for it
    assert not natural or named_it or paused or any(f'"{word}"' in reason for word in NATURAL), (finish, told)
