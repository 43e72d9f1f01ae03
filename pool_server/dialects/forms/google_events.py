"""An answer of Gemini's, plain or in Code Assist's envelope: from its events, each of which has an answer's shape, and
as one of them."""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec

from pool_server.dialects.forms.growing import GrowingText, longer


class GenerationFold:
    """Parts one after the other, pieces of one text joined; of everything else the last word."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}
        self._candidates: dict[int, dict[str, Any]] = {}
        self._around: dict[str, Any] | None = None  # Code Assist's envelope

    def take(self, event: dict[str, Any]) -> None:
        inner = event.get("response")
        if isinstance(inner, dict):
            self._around = self._around or {}
            self._around |= event
            event = inner
        candidates = event.get("candidates")
        self._found |= {name: value for name, value in event.items() if value is not None}
        for place, raw in enumerate(candidates if isinstance(candidates, list) else ()):
            if isinstance(raw, dict):
                index = raw.get("index")
                self._candidate(index if isinstance(index, int) else place, raw)

    def _candidate(self, index: int, raw: dict[str, Any]) -> None:
        known = self._candidates.setdefault(index, {})
        content, more = known.get("content"), raw.get("content")
        known |= {name: value for name, value in raw.items() if value is not None}
        if isinstance(content, dict) and isinstance(more, dict):
            parts = _list(content.get("parts"))
            go_on(parts, _list(more.get("parts")))
            content |= {**more, "parts": parts}
            known["content"] = content

    def answer(self) -> dict[str, Any] | None:
        if not self._found:
            return None
        if self._candidates:
            self._found["candidates"] = [self._candidates[index] for index in sorted(self._candidates)]
        return self._found if self._around is None else {**self._around, "response": self._found}


class EventList:
    """The events themselves, in one list."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []

    def take(self, event: dict[str, Any]) -> None:
        self._events.append(event)

    def answer(self) -> list[dict[str, Any]] | None:
        return self._events or None


def go_on(parts: list[Any], more: list[Any]) -> None:
    """Add parts in place: a text with nothing beside it joins the one before it."""
    for part in more:
        last = parts[-1] if parts else None
        if _plain(part) and _plain(last) and bool(part.get("thought")) is bool(last.get("thought")):
            last["text"] = longer(last["text"], part["text"])
        else:
            parts.append(part)


def _plain(part: Any) -> TypeGuard[dict[str, Any]]:
    return (
        isinstance(part, dict)
        and isinstance(part.get("text"), (str, GrowingText))
        and part.keys() <= {"text", "thought"}
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def events(found: Any) -> bytes | None:
    several = found if isinstance(found, list) else [found]
    if not several or not all(isinstance(one, dict) and one.get("error") is None for one in several):
        return None
    return b"".join(b"data: %b\n\n" % msgspec.json.encode(one) for one in several)
