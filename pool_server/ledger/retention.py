"""Forgets what is old, a little at a time, so that recording never waits behind it.

Minute rows stay 2 days, hour rows 90, day rows for ever; single exchanges, the days of conversations and quota
sightings as the settings say.
A clock that jumps ahead must not empty the ledger: what counts as "now" moves on by at most a day a run.
"""

from __future__ import annotations

import msgspec

from pool_server.ledger.records import layout
from pool_server.ledger.records.codec import unpack
from pool_server.ledger.records.days import Days
from pool_server.ledger.rollups.time_slices import PRUNED, Kept, kept
from pool_server.storage import Txn

DAY_S = 86_400
MINUTES_KEPT_S = 2 * DAY_S
HOURS_KEPT_S = 90 * DAY_S
MAX_ADVANCE_S = DAY_S  # a run
EVERY_S = 3600.0
STEP = 200  # deletions a transaction
_CLOCK = b"prune_clock"


class Cut(msgspec.Struct, frozen=True):
    """Everything before these instants goes; unix seconds."""

    records: float
    minutes: int
    hours: int


def plan(now: float, retention_days: int, days: Days, have: Kept) -> Cut:
    """Where to cut. Minutes end at a full hour and hours at a midnight, so that coarser rows take over there."""
    return Cut(
        records=now - retention_days * DAY_S,
        minutes=max(have.minutes, days.hour(max(0.0, now - MINUTES_KEPT_S))),
        hours=max(have.hours, days.start(max(0.0, now - HOURS_KEPT_S))),
    )


def advanced(clock: bytes | None, now: float) -> float:
    """What counts as now; `clock` is what counted so in the last run, None = there was none."""
    return now if clock is None else min(now, float(clock) + MAX_ADVANCE_S)


def begin(txn: Txn, now: float, retention_days: int, days: Days) -> Cut:
    """Start a run: note what will be gone, before it goes."""
    now = advanced(txn.get(layout.NOTES, _CLOCK), now)
    have = kept(txn)
    cut = plan(now, retention_days, days, have)
    txn.put(layout.NOTES, _CLOCK, repr(now).encode())
    left = Kept(minutes=cut.minutes, hours=cut.hours, records=max(have.records, int(cut.records)))
    txn.put(layout.NOTES, PRUNED, msgspec.json.encode(left))
    return cut


def step(txn: Txn, cut: Cut) -> bool:
    """Delete up to about STEP rows; True while there is more."""
    gone = _records(txn, cut.records)
    head = b"d" + layout.CONVERSATION
    gone += txn.delete_range(layout.ROLLUPS, head, head + layout.seconds_key(cut.records), limit=STEP)
    for grain, before in ((b"m", cut.minutes), (b"h", cut.hours)):
        for dimension in layout.DIMENSIONS + layout.LABELS:
            if gone >= STEP:
                return True
            head = grain + dimension
            gone += txn.delete_range(layout.ROLLUPS, head, head + layout.seconds_key(before), limit=STEP - gone)
    return gone >= STEP


def _records(txn: Txn, before: float) -> int:
    old = list(txn.scan(layout.RECORDS, b"", layout.time_key(before), limit=STEP // 4))  # each has four or five rows
    for key, raw in old:
        txn.delete(layout.RECORDS, key)
        try:
            rec = unpack(raw)
        except ValueError:
            continue  # its index entries lead nowhere, which readers bear
        txn.delete(layout.RECORD_IDS, rec.id.encode())
        if rec.job:
            for name in (layout.made_key(rec.job), layout.counted_key(rec.job)):
                if txn.get(layout.RECORD_IDS, name) == key:
                    txn.delete(layout.RECORD_IDS, name)
        for entry in layout.index_keys(rec, key):
            txn.delete(layout.RECORD_INDEX, entry)
    return len(old) * 5


def quota(txn: Txn, before: float) -> bool:
    """Delete up to STEP old sightings, but never a series' last one; True while there is more."""
    gone = 0
    stop = layout.time_key(before)
    prefix = b""
    while gone < STEP:
        found = next(txn.scan(layout.QUOTA, prefix, limit=1), None)
        if found is None:
            return False
        head = found[0][:-8]
        last = next(txn.scan(layout.QUOTA, head, head + b"\xff" * 9, reverse=True, limit=1))[0]
        gone += txn.delete_range(layout.QUOTA, head, min(head + stop, last), limit=STEP - gone)
        prefix = head + b"\xff" * 9
    return True
