"""A Chat completion, or one of the older API for plain text: from its chunks, and as them."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.dialects.forms.growing import grow, longer


class ChatFold:
    """Each choice's deltas put together; of everything else the last word that says something."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def take(self, event: dict[str, Any]) -> None:
        choices = event.get("choices")
        self._found |= {name: value for name, value in event.items() if value is not None and name != "choices"}
        for raw in choices if isinstance(choices, list) else ():
            if isinstance(raw, dict):
                index = raw.get("index")
                self._choice(index if isinstance(index, int) else 0, raw)

    def _choice(self, index: int, raw: dict[str, Any]) -> None:
        known = self._choices.setdefault(index, {"index": index})
        for name, value in raw.items():
            if name == "delta" and isinstance(value, dict):
                if not isinstance(known.get("message"), dict):
                    known["message"] = {}
                grow(known["message"], value)
            elif name == "text" and isinstance(value, str):
                known["text"] = longer(known.get("text", ""), value)
            elif value is not None:
                known[name] = value

    def answer(self) -> dict[str, Any] | None:
        if not self._choices:
            return None
        for choice in self._choices.values():
            message = choice.get("message")
            if isinstance(message, dict):
                message.setdefault("role", "assistant")
                message.setdefault("content", None)
            choice.setdefault("finish_reason", None)
        kind = str(self._found.get("object") or "chat.completion").removesuffix(".chunk")
        return {**self._found, "object": kind, "choices": [self._choices[index] for index in sorted(self._choices)]}


def events(found: dict[str, Any], *, usage: bool) -> bytes | None:
    choices = found.get("choices")
    if not isinstance(choices, list):
        return None
    plain = found.get("object") == "text_completion"
    head = {name: value for name, value in found.items() if name not in ("choices", "usage")}
    head["object"] = "text_completion" if plain else "chat.completion.chunk"
    told = []
    for index, choice in enumerate(one for one in choices if isinstance(one, dict)):
        own = {"index": index, **choice, "finish_reason": None}
        if isinstance(message := own.pop("message", None), dict):
            own["delta"] = _numbered(message)
        told.append({**head, "choices": [own]})
        end = {"index": own["index"], "finish_reason": choice.get("finish_reason") or "stop"}
        told.append({**head, "choices": [{**end, "text": ""} if plain else {**end, "delta": {}}]})
    if usage and found.get("usage") is not None:
        told.append({**head, "choices": [], "usage": found["usage"]})
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(one) for one in told) + b"data: [DONE]\n\n"


def _numbered(message: dict[str, Any]) -> dict[str, Any]:
    """A message as one delta: its calls have their places."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    numbered = [{"index": place, **call} for place, call in enumerate(calls) if isinstance(call, dict)]
    return {**message, "tool_calls": numbered}
