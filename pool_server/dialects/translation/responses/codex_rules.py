"""What the ChatGPT backend demands of a Responses request, applied to what a plain client sends.

No dialect changes: fields are set, renamed or removed, and removed ones are told. The backend streams only; a client
that asked for a whole answer gets the stream put together, each field as the vendor wrote it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.core.lenient_json import read_answer
from pool_server.dialects.translation import fields
from pool_server.dialects.translation.conformance import TranslationError
from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.fields import obj, text
from pool_server.dialects.translation.neutral import ErrorInfo
from pool_server.dialects.translation.responses.request_out import SEALED
from pool_server.dialects.translation.tools import plain_id
from pool_server.dialects.types import BadBodyError
from pool_server.dialects.wire.sse import Scanner, data_of

# The backend answers 400 to these (seen in clients that remove them).
_REFUSED = fields.words(
    "max_output_tokens max_completion_tokens max_tokens temperature top_p truncation user context_management "
    "safety_identifier prompt_cache_retention prompt_cache_options generate metadata top_logprobs max_tool_calls "
    "stop seed n"
)
_STATE = ("previous_response_id", "conversation", "prompt")
_DELIVERY = "reasoning_summary_delivery"
_HELD = 32 << 20  # bytes of a stream's output that are kept


def apply_rules(body: bytes) -> tuple[bytes, list[str]]:
    """(the body the backend takes, the fields left out). Raises BadBodyError when the body is no JSON object, and
    TranslationError where it continues what only a keeping vendor knows.

    A body that obeys already, as Codex's own does, comes back as it is, byte for byte.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadBodyError("the request body is not valid JSON") from None
    if not isinstance(found, dict):
        raise BadBodyError("the request body is not a JSON object")
    for name in (*_STATE, *(["background"] if found.get("background") is True else [])):
        if found.get(name) is not None:
            raise TranslationError(name, "the ChatGPT backend keeps no responses; send the whole conversation")
    before = msgspec.json.encode(found)
    dropped = [name for name in list(found) if name in _REFUSED and found.pop(name) is not None]
    _shape(found, dropped)
    _tools(found, dropped)
    after = msgspec.json.encode(found)
    return (body if after == before else after), dropped


def _shape(body: dict[str, Any], dropped: list[str]) -> None:
    if body.get("store") is True:
        dropped.append("store")
    body["stream"], body["store"] = True, False
    if not isinstance(body.get("instructions"), str):
        body["instructions"] = ""
    given = body.get("input")
    if isinstance(given, str):
        content = [{"type": "input_text", "text": given}]
        body["input"] = [{"type": "message", "role": "user", "content": content}]
    elif isinstance(given, list):
        body["input"] = [_item(item) for item in given if not _unreadable(item)]
        if len(body["input"]) < len(given):
            dropped.append("input reasoning without encrypted_content")
    options = obj(body.get("stream_options"))
    if body.get("stream_options") is not None and options.keys() != {_DELIVERY}:
        body.pop("stream_options")
        if _DELIVERY in options:
            body["stream_options"] = {_DELIVERY: options[_DELIVERY]}
    tier = body.get("service_tier")
    if tier is not None and tier != "priority":
        del body["service_tier"]
        if tier == "fast":
            body["service_tier"] = "priority"
        elif tier not in ("auto", "default"):
            dropped.append("service_tier")
    include = body.get("include")
    if body.get("reasoning") is not None and not (isinstance(include, list) and SEALED in include):
        body["include"] = [*(include if isinstance(include, list) else ()), SEALED]


def _unreadable(item: Any) -> bool:
    """Reasoning the backend would have to look up: it keeps none."""
    return isinstance(item, dict) and item.get("type") == "reasoning" and not item.get("encrypted_content")


def _item(item: Any) -> Any:
    """System speaks as developer; ids of items the backend does not keep, and marks of caches, go."""
    if not isinstance(item, dict):
        return item
    changed = dict(item)
    if changed.get("role") == "system":
        changed["role"] = "developer"
    if isinstance(changed.get("call_id"), str) and len(changed["call_id"]) > 64:
        changed["call_id"] = plain_id(changed["call_id"])
    if text(changed.get("id")) and changed.get("type", "message") in ("message", "reasoning", "function_call"):
        del changed["id"]
    if isinstance(changed.get("content"), list):
        changed["content"] = [_unmarked(part) for part in changed["content"]]
    return changed


def _unmarked(part: Any) -> Any:
    if isinstance(part, dict) and "prompt_cache_breakpoint" in part:
        return {key: value for key, value in part.items() if key != "prompt_cache_breakpoint"}
    return part


def _tools(body: dict[str, Any], dropped: list[str]) -> None:
    tools = body.get("tools")
    if not tools:
        for name in ("tool_choice", "parallel_tool_calls"):
            body.pop(name, None)
        return
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and text(tool.get("type")).startswith("web_search_preview"):
            tool["type"] = "web_search"


class ResponseFold:
    """A Responses stream as the one answer it amounts to: the last event's response, its output filled from the
    items where the backend leaves it empty."""

    def __init__(self) -> None:
        self._scanner = Scanner(self)
        self._items: dict[int, msgspec.Raw] = {}
        self._size = 0
        self._response: dict[str, msgspec.Raw] | None = None
        self.fault: ErrorInfo | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere."""
        self._scanner.feed(piece)

    def finish(self) -> bytes | None:
        """The whole answer as JSON; None, and `fault` says why, where the stream ended before it."""
        self._scanner.finish()
        if self.fault is None and self._response is None:
            self.fault = ErrorInfo(502, "The upstream's answer broke off before its end.", "api_error", "stream_cut")
        if self.fault is not None or self._response is None:
            return None
        if bytes(self._response.get("output", b"[]")).strip() in (b"[]", b"null"):
            output = [self._items[index] for index in sorted(self._items)]
            self._response["output"] = msgspec.Raw(msgspec.json.encode(output))
        return msgspec.json.encode(self._response)

    def close(self) -> None:
        """Nothing more is fed: the scanner and this refer to each other no longer."""
        self.__dict__.pop("_scanner", None)

    # What the scanner asks

    def event(self, event: bytes) -> int:
        data = data_of(event)
        found = read_answer(data, _EVENT)
        if found is None:
            return 0
        if found.type == "response.output_item.done" and isinstance(found.output_index, int):
            self._size += len(found.item)
            if self._size > _HELD:
                self._fail("larger than can be kept")
            else:
                self._items[found.output_index] = found.item
        elif found.type in ("response.completed", "response.incomplete"):
            self._response = found.response
        elif found.type in ("response.failed", "error"):
            self.fault = self.fault or read_error(0, data)
        return 0

    def wanted(self, head: bytes) -> bool:
        return b".delta" not in head

    def passed_over(self, head: bytes) -> int:
        if b".delta" not in head:
            self._fail("larger than can be kept")
        return 0

    def _fail(self, why: str) -> None:
        self._items.clear()
        self.fault = self.fault or ErrorInfo(502, f"The upstream's answer is {why}.", "api_error", "too_large")


class _Event(msgspec.Struct):
    type: str = ""
    output_index: Any = None
    item: msgspec.Raw = msgspec.Raw(b"null")
    response: dict[str, msgspec.Raw] | None = None


_EVENT = msgspec.json.Decoder(_Event)
