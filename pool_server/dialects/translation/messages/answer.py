"""Messages answers in one piece: read from an account, written for a client."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.core.models import Usage
from pool_server.dialects.translation.answers.fold import WholeAnswer
from pool_server.dialects.translation.fields import arguments_object_text, obj, text
from pool_server.dialects.translation.neutral import Finish, Part, Reasoning, Sink, Text, ToolCall
from pool_server.dialects.translation.tools import arguments_object
from pool_server.dialects.usage.anthropic import START, MessageUsage

FINISH = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP_STRING,
    "tool_use": Finish.TOOLS,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "refusal": Finish.FILTER,
    "pause_turn": Finish.PAUSE,
}
TOLD = {
    Finish.STOP: "end_turn",
    Finish.STOP_STRING: "stop_sequence",
    Finish.TOOLS: "tool_use",
    Finish.LENGTH: "max_tokens",
    Finish.FILTER: "refusal",
    Finish.REFUSAL: "refusal",
    Finish.PAUSE: "pause_turn",
    Finish.MALFORMED: "end_turn",
}


def read_answer(body: dict[str, Any], sink: Sink) -> None:
    """Tell a message; what is none ends as one that broke off."""
    sink.start(text(body.get("id")), text(body.get("model")))
    content = body.get("content")
    if isinstance(content, str) and content:  # as requests may have it, and some servers answer
        content = [{"type": "text", "text": content}]
    for index, item in enumerate(content if isinstance(content, list) else ()):
        block = obj(item)
        kind = block.get("type")
        if kind == "text":
            sink.text(index, text(block.get("text")))
            sink.end(index)
            if block.get("citations"):
                sink.leave("citations")
        elif kind == "thinking":
            sink.reasoning(index, text(block.get("thinking")))
            sink.end(index, seal=text(block.get("signature")))
        elif kind == "redacted_thinking":
            sink.end(index, seal=text(block.get("data")), redacted=True)
        elif kind == "tool_use":
            sink.call(index, text(block.get("id")), text(block.get("name")))
            sink.end(index, whole=arguments_object_text(block.get("input")))
        else:
            sink.leave(text(kind) or "content")
    usage = MessageUsage()
    usage.take(body.get("usage"), START)
    sink.usage(usage.usage())
    read_stop(body, sink)
    if content:  # a whole message has ended, whether it says why or not
        sink.finish(Finish.STOP, said=False)
    sink.close()


def read_stop(shape: dict[str, Any], sink: Sink) -> None:
    """Tell why the message ended, where it says so."""
    reason = text(shape.get("stop_reason"))
    if not reason:
        return
    if reason not in FINISH:
        sink.leave(f"stop_reason {reason}")
    if shape.get("stop_details"):
        sink.leave("stop_details")
    sink.finish(FINISH.get(reason, Finish.STOP), text(shape.get("stop_sequence")))


def write_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def write_answer(answer: WholeAnswer, created: int) -> dict[str, Any]:
    return {
        "id": message_id(answer.ident),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [_block(part) for part in answer.parts],
        "stop_reason": TOLD[answer.finish],
        "stop_sequence": answer.stop or None,
        "usage": write_usage(answer.usage),
    }


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part, Reasoning):
        if part.redacted and not part.text:
            return {"type": "redacted_thinking", "data": part.seal}
        return {"type": "thinking", "thinking": part.text, "signature": part.seal}
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": call_input(part.arguments, part.custom)}
    return {"type": "text", "text": part.text if isinstance(part, Text) else "", "citations": None}


def call_input(arguments: str, custom: bool) -> msgspec.Raw:
    """The `input` object; arguments without a value are an empty one."""
    return msgspec.Raw(msgspec.json.encode({"input": arguments})) if custom else arguments_object(arguments)[0]


def message_id(ident: str) -> str:
    return ident if ident.startswith("msg_") else f"msg_{ident}"
