"""Reasoning that only the account which wrote it can read, within requests: found, and left out on a move.

Responses: `encrypted_content` of reasoning items, and the ids a backend gives. Gemini, and OpenAI-compatible servers of
it: `thoughtSignature`, for which Google documents a placeholder that its check lets pass
(https://ai.google.dev/gemini-api/docs/thought-signatures); a function call without any is refused. Messages: signed
`thinking` blocks, which another vendor behind the same dialect cannot have signed.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.enums import Dialect
from pool_server.dialects.types import RAW_FIELDS, TEXT, loads
from pool_server.dialects.wire.splice import splice

_ITEMS = Decoder(list[dict[str, msgspec.Raw]])
_SERVER_IDS = frozenset({"message", "function_call", "custom_tool_call", "function_call_output"})
COMPACTED = frozenset({"compaction", "compaction_summary", "context_compaction"})
_SUMMARY = b"pool-summary:"
_THINKING = frozenset({b'"thinking"', b'"redacted_thinking"'})
PLACEHOLDER = b"skip_thought_signature_validator"
# Quotes within JSON strings are escaped, so that a text that speaks of signatures is none.
_SIGNATURE = re.compile(rb'("thought(?:S|_s)ignature"\s*:\s*")([^"\\]*(?:\\.[^"\\]*)*)(?=")')
_MARK = b'ignature"'  # what both spellings end with
_SIGNED = frozenset({Dialect.GEMINI, Dialect.CODE_ASSIST, Dialect.CHAT})


def seal_id(seal: bytes) -> str:
    """A short name of a seal; it tells nothing of it."""
    return blake2b(seal, digest_size=12).hexdigest()


def seal_summary(summary: str) -> str:
    """A summary as the sealed content of a compaction item, for accounts that make none themselves."""
    return b64encode(_SUMMARY + summary.encode("utf-8", "replace")).decode()


def summary_of(sealed: str) -> str | None:
    """The summary within such a content; None for one that a vendor has sealed."""
    try:
        found = b64decode(sealed, validate=True)
    except ValueError:
        return None
    return found.removeprefix(_SUMMARY).decode("utf-8", "replace") if found.startswith(_SUMMARY) else None


def told_summary(summary: str) -> str:
    """A summary as the model is told it."""
    return f"Summary of the conversation before this point:\n\n{summary}"


def first_signature(dialect: Dialect, body: bytes) -> str | None:
    """The id of a conversation's first thought signature, which stays in place as the conversation grows."""
    if dialect not in _SIGNED or body.rfind(_MARK) < 0:  # backwards: CPython finds twice as fast so
        return None
    for found in _SIGNATURE.finditer(body):
        if found[2] not in (b"", PLACEHOLDER):
            return seal_id(found[2])
    return None


def strip_sealed(dialect: Dialect, body: bytes) -> bytes | None:
    """A request's body without what only another account can read; None when there is nothing of it. Raises
    BadBodyError when the body is no JSON object."""
    if dialect is Dialect.RESPONSES:
        return _strip_responses(body)
    if dialect is Dialect.MESSAGES:
        return _strip_messages(body)
    stripped = _SIGNATURE.sub(rb"\g<1>" + PLACEHOLDER, body)
    return stripped if stripped != body else None


def _strip_responses(body: bytes) -> bytes | None:
    """Reasoning items go, references to stored items go, and messages and calls lose the id a foreign backend gave
    them: with `store` false an unknown id is refused. Compaction items stay: they hold the conversation, and without
    them the model would answer a lost one; summaries that the pool had another vendor write are told as text."""
    found = loads(body, RAW_FIELDS)
    items = loads(found["input"], _ITEMS) if found and "input" in found else None
    if not items:
        return None
    kept: list[dict[str, msgspec.Raw]] = []
    changed = False
    for item in items:
        kind = loads(item["type"], TEXT) if "type" in item else "message"
        if kind in ("reasoning", "item_reference"):
            changed = True
            continue
        if kind in COMPACTED and (summary := _summary(item)) is not None:
            kept.append(summary)
            changed = True
            continue
        if kind in _SERVER_IDS and "id" in item:
            item = {name: value for name, value in item.items() if name != "id"}
            changed = True
        kept.append(item)
    return splice(body, {"input": kept}) if changed else None


def _summary(item: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw] | None:
    """A message of the user in the place of a compaction item of the pool's own; None for a vendor's."""
    summary = summary_of(loads(item.get("encrypted_content", msgspec.Raw(b"null")), TEXT) or "")
    if summary is None:
        return None
    content = [{"type": "input_text", "text": told_summary(summary)}]
    told = {"type": "message", "role": "user", "content": content}
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in told.items()}


def _strip_messages(body: bytes) -> bytes | None:
    """The assistant's thinking goes; a message that was nothing else goes with it. Where it goes from a turn that a
    tool's result continues, the rest of the turn is asked for without thinking: with a budget for it a turn has to
    begin with thinking."""
    found = loads(body, RAW_FIELDS) or {}
    messages = loads(found["messages"], _ITEMS) if "messages" in found else None
    kept: list[dict[str, msgspec.Raw]] = []
    changed = False
    for message in messages or ():
        blocks = loads(message["content"], _ITEMS) if "content" in message else None
        shown = [block for block in blocks or () if not ("type" in block and bytes(block["type"]) in _THINKING)]
        if blocks is not None and len(shown) < len(blocks):
            changed = True
            if not shown:
                continue
            message = message | {"content": msgspec.Raw(msgspec.json.encode(shown))}
        kept.append(message)
    if not changed:
        return None
    going_on = bool(messages) and b'"tool_result"' in bytes((messages or [{}])[-1].get("content", b""))
    return splice(body, {"messages": kept} | (_unthinking(found) if going_on else {}))


def _unthinking(request: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """What a request with a budget for thinking says instead, to be answered without; nothing for any other."""
    thinking = loads(request.get("thinking", msgspec.Raw(b"{}")), RAW_FIELDS) or {}
    if bytes(thinking.get("type", b"")) != b'"enabled"':
        return {}
    changes: dict[str, Any] = {"thinking": {"type": "disabled"}}
    managed = loads(request.get("context_management", msgspec.Raw(b"{}")), RAW_FIELDS) or {}
    edits = loads(managed["edits"], _ITEMS) if "edits" in managed else None
    if edits:
        left = [one for one in edits if not bytes(one.get("type", b"")).startswith(b'"clear_thinking')]
        changes["context_management"] = {**managed, "edits": left}
    return changes
