"""Gemini answers in one piece: read from an account, written for a client."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.core.models import Usage
from pool_server.dialects.translation.answers.fold import WholeAnswer
from pool_server.dialects.translation.answers.logprobs import google_tokens
from pool_server.dialects.translation.gemini.stream_in import GeminiStreamReader
from pool_server.dialects.translation.messages.answer import call_input
from pool_server.dialects.translation.neutral import Finish, Media, Part, Reasoning, Sink, Text, ToolCall

TOLD = {
    Finish.STOP: "STOP",
    Finish.STOP_STRING: "STOP",
    Finish.TOOLS: "STOP",
    Finish.LENGTH: "MAX_TOKENS",
    Finish.FILTER: "SAFETY",
    Finish.REFUSAL: "SAFETY",
    Finish.PAUSE: "STOP",
    Finish.MALFORMED: "MALFORMED_FUNCTION_CALL",
}


def read_answer(body: dict[str, Any], sink: Sink) -> None:
    """Tell an answer: it has the shape of a stream's only event."""
    reader = GeminiStreamReader(sink)
    reader.event("", body)
    reader.end()


def write_usage(usage: Usage) -> dict[str, Any]:
    prompt = usage.input + usage.cache_read + usage.cache_write
    shape = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": prompt + usage.output,
    }
    if usage.cache_read:
        shape["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        shape["thoughtsTokenCount"] = usage.reasoning
    return shape


def write_answer(answer: WholeAnswer, created: int, others: dict[int, WholeAnswer]) -> dict[str, Any]:
    """`others` are further choices by their index."""
    return {
        "candidates": [_candidate(index, one) for index, one in sorted({0: answer, **others}.items())],
        "usageMetadata": write_usage(answer.usage),
        "modelVersion": answer.model,
        "responseId": answer.ident,
    }


def _candidate(index: int, answer: WholeAnswer) -> dict[str, Any]:
    parts = [shape for part in answer.parts if (shape := write_part(part)) is not None]
    candidate = {"index": index, "content": {"role": "model", "parts": parts}, "finishReason": TOLD[answer.finish]}
    tokens = [token for part in answer.parts if isinstance(part, Text) for token in part.logprobs]
    if tokens:
        candidate["logprobsResult"] = google_tokens(tokens)
        candidate["avgLogprobs"] = sum(token.logprob for token in tokens) / len(tokens)
    return candidate


def write_part(part: Part) -> dict[str, Any] | None:
    """A part of an answer."""
    if isinstance(part, Reasoning):
        return {"text": part.text, "thought": True} | ({"thoughtSignature": part.seal} if part.seal else {})
    if isinstance(part, ToolCall):
        arguments: msgspec.Raw = call_input(part.arguments, part.custom)
        return {"functionCall": {"id": part.id, "name": part.name, "args": arguments}}
    if isinstance(part, Media):
        return {"inlineData": {"mimeType": part.mime, "data": part.data}}
    return {"text": part.text} if isinstance(part, Text) else None
