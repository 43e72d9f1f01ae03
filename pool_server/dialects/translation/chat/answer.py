"""Chat completions in one piece: read from an endpoint, written for a client."""

from __future__ import annotations

from typing import Any

from pool_server.core.models import Usage
from pool_server.dialects.translation.answers.fold import WholeAnswer
from pool_server.dialects.translation.answers.logprobs import read_choice
from pool_server.dialects.translation.chat.media import SoundPieces, pictures
from pool_server.dialects.translation.chat.stream_in import (
    calls_of,
    content_pieces,
    leave_untold,
    read_finish,
    thought_of,
)
from pool_server.dialects.translation.fields import arguments_text, obj, openai_usage, text
from pool_server.dialects.translation.neutral import Finish, Reasoning, Sink, Text, ToolCall

TOLD = {
    Finish.STOP: "stop",
    Finish.STOP_STRING: "stop",
    Finish.TOOLS: "tool_calls",
    Finish.LENGTH: "length",
    Finish.FILTER: "content_filter",
    Finish.REFUSAL: "stop",
    Finish.PAUSE: "stop",
    Finish.MALFORMED: "stop",
}


def read_answer(body: dict[str, Any], sink: Sink, *, transcribed: bool = True) -> None:
    """Tell a completion; what is none ends as one that broke off. `transcribed`: what a sound says is told as text."""
    found = body.get("choices")
    choices = [obj(one) for one in found] if isinstance(found, list) else []
    choice = choices[0] if choices else {}
    message = _joined([obj(one.get("message")) for one in choices]) or {"content": text(choice.get("text"))}
    sink.start(text(body.get("id")), text(body.get("model")))
    pieces = list(content_pieces(message.get("content"), sink))
    thoughts = [piece for kind, piece in pieces if kind == "reasoning"]
    if thought := text(thought_of(message)) or "".join(thoughts):
        sink.reasoning("reasoning", thought)
        sink.end("reasoning")
    content = "".join(piece for kind, piece in pieces if kind == "text")
    tokens, refused = read_choice(choice.get("logprobs"), content)
    sink.logprobs("text", tokens)
    sink.text("text", content)
    sink.end("text")
    sink.logprobs("refusal", refused, refusal=True)
    sink.text("refusal", text(message.get("refusal")), refusal=True)
    sink.end("refusal")
    _read_media(message, sink, transcribed)
    for index, call in enumerate(calls_of(message)):
        custom = obj(obj(call).get("custom"))
        function = custom or obj(obj(call).get("function"))
        arguments = function.get("input" if custom else "arguments")
        sink.call(index, text(obj(call).get("id")), text(function.get("name")), custom=bool(custom))
        sink.end(index, whole=arguments_text(arguments))
    leave_untold(message, sink)
    sink.usage(openai_usage(body.get("usage")))
    if choice:
        reasons = [reason for one in choices if (reason := text(one.get("finish_reason"))) not in ("", "stop", "null")]
        read_finish(reasons[0] if reasons else "stop", sink)
    sink.close()


def _joined(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """One message of all choices: some endpoints put an answer's calls in a choice of their own."""
    if len(messages) < 2:
        return messages[0] if messages else {}
    told = {**messages[0], "tool_calls": [call for one in messages for call in calls_of(one)]}
    told["content"] = next((one["content"] for one in messages if one.get("content")), None)
    return told


def _read_media(message: dict[str, Any], sink: Sink, transcribed: bool) -> None:
    for mime, data in pictures(message, sink):
        sink.media("picture", mime, data)
    sound, pieces = obj(message.get("audio")), SoundPieces()
    if piece := pieces.feed(text(sound.get("data"))):
        sink.media("sound", pieces.mime, piece)
    if transcribed:
        sink.text("transcript", text(sound.get("transcript")))
        sink.end("transcript")


def write_usage(usage: Usage) -> dict[str, Any]:
    prompt = usage.input + usage.cache_read + usage.cache_write
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def write_answer(answer: WholeAnswer, created: int, *, legacy: bool) -> dict[str, Any]:
    """`legacy`: the client knows one call, as the API told it before it had tools."""
    said = "".join(part.text for part in answer.parts if isinstance(part, Text) and not part.refusal)
    refusal = "".join(part.text for part in answer.parts if isinstance(part, Text) and part.refusal)
    thought = "\n\n".join(part.text for part in answer.parts if isinstance(part, Reasoning) and part.text)
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    message: dict[str, Any] = {"role": "assistant", "content": said or (None if calls or refusal else "")}
    message["refusal"] = refusal or None
    if thought:
        message["reasoning_content"] = thought
    reason = TOLD[answer.finish]
    if calls and legacy:
        message["function_call"] = _call(calls[0])["function"]
        reason = "function_call" if reason == "tool_calls" else reason
    elif calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return {
        "id": chat_id(answer.ident),
        "object": "chat.completion",
        "created": created,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": write_usage(answer.usage),
    }


def _call(call: ToolCall) -> dict[str, Any]:
    if call.custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def chat_id(ident: str) -> str:
    return ident if ident.startswith("chatcmpl-") else f"chatcmpl-{ident}"
