"""How one usage record lies in the store: msgpack, compressed against a dictionary of what records look like, with the
frame's own checksum of its content; records of before have none, and any program of form 1 reads both.

The first byte names the form. The dictionary belongs to the form: change it only together with a new form.
"""

from __future__ import annotations

import threading

import msgspec
import zstandard

from pool_server.core.models import UsageRecord

_PACKED = b"\x01"  # msgpack, zstd with the dictionary below
_LEVEL = -1  # half the time of level 1, and records come out as small
_MAX_BYTES = 1 << 20
MAX_DECISION_BYTES = 16 << 10

_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(UsageRecord).decode


def _sample() -> bytes:
    """Text that records share, so that even the first one is small. Frozen, part of form 1: plain data, so that no
    change of a record's shape changes it."""
    usage = {
        "input": 0, "cache_read": 0, "cache_write": 0, "cache_write_1h": 0, "output": 0, "reasoning": 0,
        "web_searches": 0, "known": True,
    }  # fmt: skip
    term = {"room": 0.5, "in_flight": 0.0, "priority": 0.0, "reset": 0.25, "weight": 1.0, "pinned": 0.0}
    decision = {
        "account": "codex:", "reason": "best", "strategy": "balanced", "probe": False, "retry_at": None,
        "candidates": [
            {"account": "claude:", "refusal": "cooling", "until": 1790000000.5, "score": None, "terms": {}},
            {"account": "gemini:", "refusal": "exhausted", "until": None, "score": 0.5, "terms": term},
            {"account": "claude:", "refusal": "provider", "until": None, "score": None, "terms": {}},
        ],
    }  # fmt: skip
    failed = {
        "account": "claude:", "status": 429, "fault": "rate", "message": "You have reached your usage limit",
        "started_ms": 0.5, "ms": 812.25, "usage": usage,
    }  # fmt: skip
    record = {
        "id": "req_0123456789abcdef", "at": 1790000000.125, "user": "user_", "provider": "claude",
        "account": "claude:", "model": "claude-sonnet-4-5-20250929", "dialect": "messages", "transport": "sse",
        "operation": "messages", "status": 200, "outcome": "upstream", "message": "overloaded_error", "usage": usage,
        "cost": 0.0125, "partial": True,
        "attempts": [failed, {"account": "codex:", "status": 200, "started_ms": 0.5, "ms": 1500.25}],
        "first_byte_ms": 512.5, "total_ms": 10240.25, "request_bytes": 20480, "response_bytes": 8192, "key": "key_",
        "agent": "claude-cli/2.0 (external, cli)", "session": "session", "tier": "default", "decision": decision,
    }  # fmt: skip
    other = b"gpt-5.1-codex-max responses codex_cli_rs/0.50 gemini-2.5-pro generate code_assist qwen3-coder-plus chat "
    return other + msgspec.msgpack.encode(record)


_dictionary = zstandard.ZstdCompressionDict(_sample(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
_dictionary.precompute_compress(level=_LEVEL)
_tools = threading.local()  # neither side of zstandard may be used by two threads at once


def pack(rec: UsageRecord) -> bytes:
    """The stored form of a record. A decision that is too large or cannot be encoded is left out, and says so.

    Raises what msgspec raises for a record that cannot be encoded even so.
    """
    try:
        raw = _encoder.encode(rec)
    except (UnicodeEncodeError, OverflowError, TypeError):
        raw = _encoder.encode(_plain(rec, "not plain data"))
    if len(raw) > MAX_DECISION_BYTES:
        raw = _encoder.encode(_plain(rec, "too large"))
    compressor = getattr(_tools, "compressor", None)
    if compressor is None:
        compressor = _tools.compressor = zstandard.ZstdCompressor(
            level=_LEVEL, dict_data=_dictionary, write_checksum=True, write_dict_id=False
        )
    return _PACKED + bytes(compressor.compress(raw))


def _plain(rec: UsageRecord, why: str) -> UsageRecord:
    """The record without the parts whose content others decide."""
    attempts = [
        msgspec.structs.replace(attempt, account=attempt.account.encode("utf-8", "replace").decode(), message="")
        for attempt in rec.attempts
    ]
    return msgspec.structs.replace(rec, attempts=attempts, decision={"left_out": why})


def unpack(raw: bytes) -> UsageRecord:
    """The record of a stored form. Raises ValueError for bytes that are not one."""
    if raw[:1] != _PACKED:
        raise ValueError("a usage record of an unknown form")
    decompressor = getattr(_tools, "decompressor", None)
    if decompressor is None:
        decompressor = _tools.decompressor = zstandard.ZstdDecompressor(dict_data=_dictionary)
    try:
        return _decode(decompressor.decompress(raw[1:], max_output_size=_MAX_BYTES))
    except (zstandard.ZstdError, msgspec.MsgspecError) as exc:
        raise ValueError(f"a usage record that cannot be read: {exc}") from None
