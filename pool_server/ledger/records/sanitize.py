"""Makes a usage record fit to keep: what cannot be true is not written as if it were.

A negative or impossible number becomes "not known" (zero tokens and `partial`), never a guess.
"""

from __future__ import annotations

import hashlib
import math
from operator import attrgetter

from pool_server.core.models import MOST_DOLLARS, MOST_TOKENS, Usage, UsageRecord

MAX_MS = 30 * 86_400_000.0
MAX_AHEAD_S = 3600.0  # a record later than this after now comes from a broken clock
MAX_NAME_BYTES = 128  # user, account, model: three of them fit a key
MAX_ID_BYTES = 96
MAX_MESSAGE = 500
MAX_LABEL = 200
MAX_BYTES = 1 << 50
MAX_ATTEMPTS = 32
MAX_PARTS = 256


def clean(rec: UsageRecord, now: float) -> UsageRecord:
    """Bring every field of `rec` into its range, in place. `now` is unix seconds."""
    if not (0 < rec.at <= now + MAX_AHEAD_S):
        rec.at = now
    usage = rec.usage
    if not _plausible(usage):
        _repair(rec)
    if rec.cost is not None and not (0 <= rec.cost <= MOST_DOLLARS):
        rec.cost = None
    if not (0 <= rec.total_ms <= MAX_MS):
        rec.total_ms = 0.0
    if rec.first_byte_ms is not None and not (0 <= rec.first_byte_ms <= MAX_MS):
        rec.first_byte_ms = None
    rec.request_bytes = _count(rec.request_bytes)
    rec.response_bytes = _count(rec.response_bytes)
    names = f"{rec.user}{rec.account}{rec.model}{rec.answered}{rec.provider}"
    if not (names.isascii() and len(names) <= MAX_NAME_BYTES and "\0" not in names):
        _cut_names(rec)
    for told in (usage, rec.reserved):
        for part in told.parts if told is not None else ():
            part.model = _name(part.model)
    rec.provider = rec.provider or rec.account.rpartition(":")[0].partition(":")[0]
    texts = f"{rec.message}{rec.agent}{rec.tier}{rec.speed}{rec.geo}{rec.session}{rec.project}{rec.key}"
    if not (texts.isascii() and len(texts) <= MAX_LABEL):
        _cut_texts(rec)
    if len(rec.attempts) > MAX_ATTEMPTS:
        rec.attempts = rec.attempts[-MAX_ATTEMPTS:]
    rec.id = _identity(rec.id)
    return rec


def _cut_names(rec: UsageRecord) -> None:
    """Only asked where all names together are not fit, which one look tells."""
    rec.user = _name(rec.user)
    rec.account = _name(rec.account)
    rec.model = _name(rec.model)
    rec.answered = _name(rec.answered)
    rec.provider = _name(rec.provider)


def _cut_texts(rec: UsageRecord) -> None:
    rec.message = _text(rec.message, MAX_MESSAGE)
    rec.agent = _text(rec.agent, MAX_LABEL)
    rec.tier = _text(rec.tier, MAX_LABEL)
    rec.speed = _text(rec.speed, MAX_LABEL)
    rec.geo = _text(rec.geo, MAX_LABEL)
    rec.session = _text(rec.session, MAX_LABEL)
    rec.project = _text(rec.project, MAX_LABEL)
    rec.key = _text(rec.key, MAX_LABEL)


_COUNTS = ("input", "cache_read", "cache_write", "output")
_PARTS = {
    "cache_write_1h": "cache_write", "cache_write_12h": "cache_write", "cache_read_explicit": "cache_read",
    "reasoning": "output", "audio_in": "input", "image_in": "input", "video_in": "input",
    "audio_cache_read": "cache_read", "image_cache_read": "cache_read", "audio_out": "output", "image_out": "output",
}  # fmt: skip
_APART = ("web_searches", "other_kinds")
_ALL = (*_COUNTS, *_PARTS, *_APART)
_counts_of = attrgetter(*_ALL)
_INTEGERS = frozenset({int})


def _runs(usage: Usage) -> int:
    """How many answers a usage is of: a batch's are recorded as one."""
    return sum(max(1, part.calls) for part in usage.parts) or max(1, usage.calls)


def _plausible(usage: Usage) -> bool:
    """Whether every count is one and no part exceeds its whole; counts that are 0, as most parts are, need no more."""
    if not usage.parts and usage.calls == 1:
        most, values = MOST_TOKENS, _counts_of(usage)
        # Nearly always: whole numbers in their range, and none of them a part of another.
        whole = _INTEGERS.issuperset(map(type, values)) and min(values) >= 0 and max(values) <= most
        if whole and not any(values[len(_COUNTS) : -len(_APART)]):
            return True
    else:
        most = MOST_TOKENS * _runs(usage)
    for name in _ALL:
        value = getattr(usage, name)
        if type(value) is not int or not 0 <= value <= most:
            return False
        if value and name in _PARTS and value > getattr(usage, _PARTS[name]):
            return False
    return len(usage.parts) <= MAX_PARTS and all(_plausible(part) for part in usage.parts)


def _repair(rec: UsageRecord) -> None:
    """Keep the believable counts; anything else is not known, nor is a cost that was made of it."""
    usage = rec.usage
    rec.cost = None
    usage.parts, usage.calls = [], 1
    for name in _ALL:
        value = _count(getattr(usage, name))
        if value > MOST_TOKENS or value != getattr(usage, name):
            rec.partial = True
        setattr(usage, name, value if value <= MOST_TOKENS else 0)
    for name, whole in _PARTS.items():
        setattr(usage, name, min(getattr(usage, name), getattr(usage, whole)))


def _count(value: object) -> int:
    """A whole number from what should be one; zero for anything that is not, or that no machine could send."""
    if isinstance(value, float) and math.isfinite(value):
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_BYTES else 0


def _name(text: str) -> str:
    if text.isascii() and len(text) <= MAX_NAME_BYTES and "\0" not in text:
        return text
    raw = text.replace("\0", " ").encode("utf-8", "replace")
    return raw[:MAX_NAME_BYTES].decode("utf-8", "ignore")


def _text(text: str, most: int) -> str:
    """Text short enough to keep and without halves of characters, which no encoding can carry."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _identity(text: str) -> str:
    """The record's id; one that does not fit a key is replaced by its hash, always the same one."""
    if text and text.isascii() and len(text) <= MAX_ID_BYTES:
        return text
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()
