"""What a client gets, held to its dialect's grammar and to the official SDK's types, and read as blocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from pool_server.core.enums import Dialect

_RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


_known: set[tuple[Callable[[Any], object], str]] = set()  # what has been found to be of a type
# Fields that may hold any text: another text is of the type as well.
_FREE_TEXTS = frozenset(
    [
        "id",
        "item_id",
        "call_id",
        "name",
        "arguments",
        "delta",
        "text",
        "thinking",
        "signature",
        "partial_json",
        "content",
        "refusal",
        "model",
    ]
)


def of_type(validate: Callable[[Any], object], shape: dict[str, Any]) -> None:
    """It is of the SDK's type. Thousands of streams share most of their events: each is looked at once, whatever
    numbers and free texts it holds. The caller checks the `sequence_number`."""
    key = (validate, json.dumps(shape | {"sequence_number": 0}))
    if key in _known:
        return
    outline = (validate, json.dumps(_outline(shape)))
    if outline not in _known:
        validate(_sample(shape))
    _known.update((key, outline))


def _outline(value: Any, name: str = "") -> Any:
    """`value` without what its type does not ask: which number it is, or which text where any may stand."""
    if isinstance(value, dict):
        return {key: _outline(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_outline(inner) for inner in value]
    if isinstance(value, str):
        return "" if name in _FREE_TEXTS else value
    return value if value is None or isinstance(value, bool) else type(value).__name__


def _sample(value: Any) -> Any:
    """`value` with one of each kind in its lists: of ten thousand calls all are alike."""
    if isinstance(value, dict):
        return {key: _sample(inner) for key, inner in value.items()}
    if isinstance(value, list):
        kinds = {json.dumps(_outline(inner)): inner for inner in value}
        return [_sample(inner) for inner in kinds.values()]
    return value


class Heard:
    """What a client understood: blocks as the kit writes them, why it ended, and whether by an error."""

    def __init__(self) -> None:
        self.blocks: list[list[str]] = []
        self.finish = ""
        self.error: dict[str, Any] | None = None
        self.usage: dict[str, Any] = {}
        self.stop: str | None = None

    def add(self, kind: str, *rest: str) -> None:
        self.blocks.append([kind, *rest])

    def texts(self, kind: str = "text") -> str:
        return "".join(block[1] for block in self.blocks if block[0] == kind)

    def calls(self) -> list[tuple[str, Any]]:
        return [(block[2], json.loads(block[3])) for block in self.blocks if block[0] == "call"]


def split(raw: bytes) -> list[tuple[str, Any]]:
    """(event name, data) of each event; every event ends with an empty line."""
    found = []
    text = raw.decode()
    assert not text or text.endswith("\n\n")
    for event in text.split("\n\n")[:-1]:
        lines = event.split("\n")
        assert len(lines) <= 2, event
        name = lines[0].removeprefix("event: ") if len(lines) == 2 else ""
        assert lines[-1].startswith("data: "), event
        data = lines[-1][6:]
        found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found


def hear(client: Dialect, raw: bytes) -> Heard:
    """A stream, checked event by event."""
    readers = {Dialect.CHAT: _chat, Dialect.RESPONSES: _responses, Dialect.MESSAGES: _messages}
    heard = Heard()
    readers.get(client, _gemini)(split(raw), heard, client)
    return heard


def _chat(events: list[tuple[str, Any]], heard: Heard, _client: Dialect) -> None:
    ident, calls, done, counted = None, -1, False, False
    for number, (name, event) in enumerate(events):
        assert not name and not done and heard.error is None
        if event == "[DONE]":
            assert heard.finish
            done = True
            continue
        if "error" in event:
            heard.error = event["error"]
            continue
        of_type(ChatCompletionChunk.model_validate, event)
        ident = ident or event["id"]
        assert event["id"] == ident
        assert event["model"] or number == 0
        if not event["choices"]:
            assert heard.finish and not counted
            heard.usage, counted = event["usage"], True
            continue
        assert not heard.finish
        (choice,) = event["choices"]
        delta = choice["delta"]
        assert ("role" in delta) == (number == 0)
        for field, kind in (("content", "text"), ("reasoning_content", "think"), ("refusal", "refusal")):
            if delta.get(field):
                if not heard.blocks or heard.blocks[-1][0] != kind:
                    heard.add(kind, "", "")
                heard.blocks[-1][1] += delta[field]
        for call in delta.get("tool_calls", ()):
            inner = call.get("function") or call["custom"]
            if "id" in call:
                calls += 1
                heard.add("call", call["id"], inner["name"], "")
            assert call["index"] == calls
            heard.blocks[-1][3] += inner.get("arguments") or inner.get("input") or ""
        heard.finish = choice["finish_reason"] or ""
    assert done == (heard.error is None)


def _responses(events: list[tuple[str, Any]], heard: Heard, _client: Dialect) -> None:
    items: list[dict[str, Any]] = []
    open_item: dict[str, Any] | None = None
    pieces = ""
    for number, (name, event) in enumerate(events):
        assert name == event["type"] and event["sequence_number"] == number
        assert not heard.finish
        of_type(_RESPONSE_EVENT.validate_python, event)
        kind = event["type"]
        assert (kind == "response.created") == (number == 0) or kind == "error"
        if heard.error is not None:
            assert kind == "response.failed"
            of_type(Response.model_validate, event["response"])
            continue
        if kind == "error":
            heard.error = event
        elif kind == "response.output_item.added":
            assert open_item is None and event["output_index"] == len(items)
            open_item, pieces = event["item"], ""
        elif kind == "response.output_item.done":
            assert open_item is not None and event["output_index"] == len(items)
            item = event["item"]
            assert (item["id"], item["type"]) == (open_item["id"], open_item["type"])
            items.append(item)
            open_item = None
            _item(item, heard, pieces)
        elif kind.endswith(".delta"):
            assert open_item is not None and event["item_id"] == open_item["id"]
            pieces += event["delta"]
        elif kind in ("response.completed", "response.incomplete"):
            assert open_item is None
            assert event["response"]["output"] == items
            of_type(Response.model_validate, event["response"])
            heard.finish = (event["response"]["incomplete_details"] or {}).get("reason") or "completed"
            heard.usage = event["response"]["usage"]
    assert heard.finish or heard.error is not None


def _item(item: dict[str, Any], heard: Heard, pieces: str) -> None:
    if item["type"] == "message":
        (part,) = item["content"]
        said = part.get("text", part.get("refusal"))
        heard.add("text" if "text" in part else "refusal", said, "")
    elif item["type"] == "reasoning":
        said = "".join(part["text"] for part in item["summary"])
        heard.add("think", said, item.get("encrypted_content", ""))
    else:
        said = item["arguments" if "arguments" in item else "input"]
        heard.add("call", item["call_id"], item["name"], said)
    assert said == pieces


def _messages(events: list[tuple[str, Any]], heard: Heard, _client: Dialect) -> None:
    open_at, blocks, ended = None, 0, False
    cut = any(kind == "message_delta" and event["delta"]["stop_reason"] == "max_tokens" for kind, event in events)
    for number, (name, event) in enumerate(events):
        kind = event["type"]
        assert name == kind and heard.error is None and not ended
        if kind == "error":
            heard.error = event["error"]
            continue
        of_type(_MESSAGE_EVENT.validate_python, event)
        assert (kind == "message_start") == (number == 0)
        if kind == "content_block_start":
            assert open_at is None and event["index"] == blocks and not heard.finish
            open_at, block = blocks, event["content_block"]
            if block["type"] == "tool_use":
                heard.add("call", block["id"], block["name"], "")
            elif block["type"] == "redacted_thinking":
                heard.add("think", "", block["data"])
            else:
                heard.add("text" if block["type"] == "text" else "think", "", "")
        elif kind == "content_block_delta":
            assert event["index"] == open_at
            delta, into = event["delta"], heard.blocks[-1]
            wanted = {"text_delta": "text", "thinking_delta": "think", "signature_delta": "think"}
            assert into[0] == wanted.get(delta["type"], "call")
            if delta["type"] == "signature_delta":
                into[2] += delta["signature"]
            elif into[0] == "call":
                into[3] += delta["partial_json"]
            else:
                into[1] += delta.get("text") or delta.get("thinking") or ""
        elif kind == "content_block_stop":
            assert event["index"] == open_at
            open_at, blocks = None, blocks + 1
            if heard.blocks[-1][0] == "call":
                heard.blocks[-1][3] = heard.blocks[-1][3] or "{}"
                assert cut or isinstance(json.loads(heard.blocks[-1][3]), dict)
        elif kind == "message_delta":
            assert open_at is None and not heard.finish
            heard.finish, heard.usage = event["delta"]["stop_reason"], event["usage"]
            heard.stop = event["delta"]["stop_sequence"]
        elif kind == "message_stop":
            assert heard.finish
            ended = True
    assert ended == (heard.error is None)


def _gemini(events: list[tuple[str, Any]], heard: Heard, client: Dialect) -> None:
    for name, event in events:
        assert not name and not heard.finish and heard.error is None
        if "error" in event:
            heard.error = event["error"]
            continue
        if client is Dialect.CODE_ASSIST:
            assert event.keys() == {"response"}
            event = event["response"]
        of_type(GenerateContentResponse.model_validate, event)
        _candidate(event, heard)
    assert heard.finish or heard.error is not None


def _candidate(event: dict[str, Any], heard: Heard) -> None:
    (candidate,) = event["candidates"]
    for part in candidate["content"]["parts"]:
        if "functionCall" in part:
            call = part["functionCall"]
            heard.add("call", call["id"], call["name"], json.dumps(call["args"]))
            continue
        kind = "think" if part.get("thought") else "text"
        if not heard.blocks or heard.blocks[-1][0] != kind or heard.blocks[-1][2]:
            heard.add(kind, "", "")
        heard.blocks[-1][1] += part["text"]
        heard.blocks[-1][2] += part.get("thoughtSignature", "")
    heard.finish = candidate.get("finishReason", "")
    heard.usage = event.get("usageMetadata", {})


def hear_whole(client: Dialect, raw: bytes) -> Heard:
    """An answer in one piece."""
    body, heard = json.loads(raw), Heard()
    if client is Dialect.CHAT:
        of_type(ChatCompletion.model_validate, body)
        (choice,) = body["choices"]
        message, heard.finish, heard.usage = choice["message"], choice["finish_reason"], body["usage"]
        for field, kind in (("reasoning_content", "think"), ("content", "text"), ("refusal", "refusal")):
            if message.get(field):
                heard.add(kind, message[field], "")
        for call in message.get("tool_calls", ()):
            inner = call.get("function") or call["custom"]
            heard.add("call", call["id"], inner["name"], inner.get("arguments") or inner.get("input"))
    elif client is Dialect.RESPONSES:
        of_type(Response.model_validate, body)
        heard.finish = (body["incomplete_details"] or {}).get("reason") or body["status"]
        heard.usage = body["usage"]
        for item in body["output"]:
            said = item.get("arguments", item.get("input", ""))
            said = said or "".join(part.get("text", part.get("refusal", "")) for part in item.get("content", ()))
            _item(item, heard, said or "".join(part["text"] for part in item.get("summary", ())))
    elif client is Dialect.MESSAGES:
        of_type(Message.model_validate, body)
        heard.finish, heard.usage, heard.stop = body["stop_reason"], body["usage"], body["stop_sequence"]
        for block in body["content"]:
            if block["type"] == "tool_use":
                heard.add("call", block["id"], block["name"], json.dumps(block["input"]))
            elif block["type"] == "text":
                heard.add("text", block["text"], "")
            else:
                heard.add("think", block.get("thinking", ""), block.get("signature", block.get("data", "")))
    else:
        body = body["response"] if client is Dialect.CODE_ASSIST else body
        of_type(GenerateContentResponse.model_validate, body)
        _candidate(body, heard)
    return heard
