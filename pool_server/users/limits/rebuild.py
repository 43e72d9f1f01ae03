"""Counters made anew from the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from pool_server.users.limits import counters
from pool_server.users.limits.counters import Use
from pool_server.users.limits.periods import Bounds


class Used(Protocol):
    """The ledger's sums of a user, or of one key of theirs, since a moment in unix seconds."""

    def __call__(self, user: str, since: float, key: str = "", /) -> Mapping[str, float]: ...


decode_use = msgspec.msgpack.Decoder(Use).decode

_KEPT_S = 70 * 86_400.0  # of counters nobody uses, from the beginning of their last month
_STEPS = 5  # the rolling window is rebuilt from this many questions


def counters_of(used: Used | None, owner: str, epoch: str, marks: Bounds, now: float) -> Use:
    """What the ledger knows of an owner. The rolling window is asked for in steps, so that it ages as it should."""
    use = Use(epoch, day=marks.day, week=marks.week, month=marks.month)
    oldest = min(marks.month, marks.week, now - counters.ROLLING)
    of = _since(used, *owner.partition("\0"))
    if of(oldest) == (0, 0.0):
        return use
    use.day_tokens, use.day_cost = of(marks.day)
    use.week_tokens, use.week_cost = of(marks.week)
    use.month_tokens, use.month_cost = of(marks.month)
    step = counters.ROLLING / _STEPS
    younger = 0
    for back in range(1, _STEPS + 1):
        start = now - back * step
        total, _ = of(start)
        if total > younger:
            use.rolling.insert(0, (int(start + step) // counters.BUCKET * counters.BUCKET, total - younger))
        younger = max(younger, total)
    return use


def renewed(fresh: Use, old: Use | None, now: float) -> Use:
    """Counters of another life of the machine, made anew: its workers are dead, what they reported was used."""
    for left in old.by.values() if old is not None else ():
        counters.count(fresh, left.seen_tokens, left.seen_cost, now)
    return fresh


def stale(raw: bytes, now: float) -> bool:
    """Whether counters were last used so long ago that all they count is over: they can be made anew."""
    use = decode_use(raw)
    return not use.by and max(use.month, use.week) < now - _KEPT_S


def _since(used: Used | None, user: str, _: str, key: str) -> Callable[[float], tuple[int, float]]:
    """What answers with the tokens and US dollars of a user, or of one key, since a moment."""
    if used is None:
        return lambda since: (0, 0.0)
    return lambda since: _sums(used(user, since, key) if key else used(user, since))


def _sums(row: Mapping[str, float]) -> tuple[int, float]:
    """Tokens and US dollars of a usage row of the ledger (`input` without cache, `reasoning` part of `output`)."""
    tokens = sum(row.get(name) or 0 for name in ("input", "cache_read", "cache_write", "output"))
    return int(tokens), float(row.get("cost_usd") or 0.0)
