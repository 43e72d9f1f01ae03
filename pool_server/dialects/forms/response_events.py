"""A response of OpenAI's Responses API: from its events, and as them."""

from __future__ import annotations

from typing import Any

import msgspec

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class LastResponse:
    """The last event's response; its items by themselves where that leaves them out."""

    def __init__(self) -> None:
        self._items: dict[int, Any] = {}
        self._response: dict[str, Any] | None = None

    def take(self, event: dict[str, Any]) -> None:
        kind, response, index = event.get("type"), event.get("response"), event.get("output_index")
        if kind == "response.output_item.done" and isinstance(index, int):
            self._items[index] = event.get("item")
        elif kind in _ENDS and isinstance(response, dict):
            self._response = response

    def answer(self) -> dict[str, Any] | None:
        if self._response is None:
            return None
        return {
            **self._response,
            "output": self._response.get("output") or [self._items[n] for n in sorted(self._items)],
        }


def events(response: dict[str, Any]) -> bytes | None:
    output = response.get("output")
    if not isinstance(output, list):
        return None
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    told: list[dict[str, Any]] = [
        {"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")
    ]
    for index, item in enumerate(item for item in output if isinstance(item, dict)):
        told += _item(index, item)
    status = response.get("status")
    told.append(
        {"type": f"response.{status if status in ('incomplete', 'failed') else 'completed'}", "response": response}
    )
    lines = []
    for number, event in enumerate(told):
        data = msgspec.json.encode({**event, "sequence_number": number})
        lines.append(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data))
    return b"".join(lines)


def _item(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    """An item's beginning, its texts or arguments, and its end."""
    at = {"item_id": item.get("id") or "", "output_index": index}
    begun = {**item, "status": "in_progress"} if "status" in item else dict(item)
    inside: list[dict[str, Any]] = []
    if item.get("type") == "message" and isinstance(item.get("content"), list):
        begun["content"] = []
        for place, part in enumerate(part for part in item["content"] if isinstance(part, dict)):
            inside += _part({**at, "content_index": place}, part)
    elif item.get("type") == "function_call" and isinstance(item.get("arguments"), str):
        begun["arguments"] = ""
        inside = [
            {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]},
            {"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]},
        ]
    return [
        {"type": "response.output_item.added", "output_index": index, "item": begun},
        *inside,
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _part(at: dict[str, Any], part: dict[str, Any]) -> list[dict[str, Any]]:
    name = "refusal" if part.get("type") == "refusal" else "text"
    said = part.get(name)
    if not isinstance(said, str):
        return []
    kind = "response.refusal" if name == "refusal" else "response.output_text"
    return [
        {"type": "response.content_part.added", **at, "part": {**part, name: ""}},
        {"type": f"{kind}.delta", **at, "delta": said, **({"logprobs": []} if name == "text" else {})},
        {"type": f"{kind}.done", **at, name: said, **({"logprobs": []} if name == "text" else {})},
        {"type": "response.content_part.done", **at, "part": part},
    ]
