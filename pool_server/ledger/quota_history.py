"""The history of every account's quota windows: what was seen, when, in the order of time.

An unchanged sighting is kept only every KEEP_ALIVE_S, so that a quiet hour can be told from an unwatched one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation
from pool_server.ledger.records import layout
from pool_server.storage import Reader, Txn

KEEP_ALIVE_S = 900.0
MAX_PERCENT = 1000.0
_SAME_RESET_S = 90.0  # providers' resets wander by seconds
_PARTS = (128, 64, 32)  # bytes of account, scope, window in a key

_Wire = tuple[float, float | None, int, Source]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


class Series(msgspec.Struct, frozen=True):
    """Which window of which account a series of sightings is about; `scope` "" = the whole account."""

    account: str
    scope: str
    window: str


class Sighting(msgspec.Struct, frozen=True):
    """One observation: unix seconds, percent used (may exceed 100), reset if known, seconds of the window."""

    at: float
    used_percent: float
    resets_at: float | None
    seconds: int
    source: Source = Source.HEADERS


Entry = tuple[bytes, Sighting]


class Watcher:
    """Decides on the event loop which observations are news. One a process."""

    def __init__(self) -> None:
        self._last: dict[bytes, Sighting] = {}

    def news(self, account: str, seen: WindowObservation) -> Entry | None:
        """What is to be written for an observation, or None when it says nothing new or nothing possible."""
        if not 0 <= seen.used_percent < math.inf or not 0 < seen.observed_at < math.inf:
            return None
        resets = seen.resets_at
        sighting = Sighting(
            seen.observed_at, min(round(seen.used_percent, 3), MAX_PERCENT),
            resets if resets is not None and 0 < resets < math.inf else None, max(0, seen.seconds), seen.source,
        )  # fmt: skip
        head = series_key(Series(account, seen.scope, seen.window))
        if not _is_news(self._last.get(head), sighting):
            return None
        self._last[head] = sighting
        return head, sighting


def write(txn: Txn, entries: Sequence[Entry]) -> list[bool]:
    """Write sightings; those another process has just written are left out (False)."""
    return [_write_one(txn, head, sighting) for head, sighting in entries]


def _write_one(txn: Txn, head: bytes, sighting: Sighting) -> bool:
    key = head + layout.time_key(sighting.at)
    before = next(txn.scan(layout.QUOTA, head, key + b"\0", reverse=True, limit=1), None)
    if before is not None and not _is_news(read_sighting(*before), sighting):
        return False
    value = (sighting.used_percent, sighting.resets_at, sighting.seconds, sighting.source)
    txn.put(layout.QUOTA, key, _encode(value))
    return True


def _is_news(last: Sighting | None, seen: Sighting) -> bool:
    if last is None or abs(seen.at - last.at) >= KEEP_ALIVE_S:
        return True
    return seen.used_percent != last.used_percent or not _same_reset(last.resets_at, seen.resets_at)


def _same_reset(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else abs(a - b) <= _SAME_RESET_S


def series_key(series: Series) -> bytes:
    """What the keys of a series begin with."""
    parts = (series.account, series.scope, series.window)
    return b"".join(
        part.replace("\0", " ").encode("utf-8", "replace")[:most] + b"\0"
        for part, most in zip(parts, _PARTS, strict=True)
    )


def all_series(reader: Reader) -> list[Series]:
    """Every series there is; one step a series, however long they are."""
    found: list[Series] = []
    start = b""
    while (pair := next(reader.scan(layout.QUOTA, start, limit=1), None)) is not None:
        head = pair[0][:-8]
        account, scope, window, _ = head.decode("utf-8", "replace").split("\0")
        found.append(Series(account, scope, window))
        start = head + b"\xff" * 9
    return found


def history(reader: Reader, series: Series, frm: float, to: float, *, limit: int) -> list[Sighting]:
    """The sightings with frm <= time < to, oldest first; of more than `limit`, the newest."""
    head = series_key(series)
    pairs = reader.scan(
        layout.QUOTA, head + layout.time_key(frm), head + layout.time_key(to), reverse=True, limit=limit
    )
    return [read_sighting(key, raw) for key, raw in pairs][::-1]


def read_sighting(key: bytes, raw: bytes) -> Sighting:
    """A row of the history."""
    percent, resets, seconds, source = _decode(raw)
    return Sighting(int.from_bytes(key[-8:], "big") / 1e6, percent, resets, seconds, source)
