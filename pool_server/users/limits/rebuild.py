"""Counters made anew from the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pool_server.users.limits import counters
from pool_server.users.limits.counters import Use
from pool_server.users.limits.periods import Bounds

Used = Callable[[str, float], Mapping[str, float]]  # (user id, unix seconds) → the ledger's sums since then
_STEPS = 5  # the rolling window is rebuilt from this many questions


def counters_of(used: Used | None, user: str, epoch: str, marks: Bounds, now: float) -> Use:
    """What the ledger knows of a user. The rolling window is asked for in steps, so that it ages as it should."""
    use = Use(epoch, day=marks.day, week=marks.week, month=marks.month)
    oldest = min(marks.month, marks.week, now - counters.ROLLING)
    if used is None or _sums(used(user, oldest)) == (0, 0.0):
        return use
    use.day_tokens, use.day_cost = _sums(used(user, marks.day))
    use.week_tokens, use.week_cost = _sums(used(user, marks.week))
    use.month_tokens, use.month_cost = _sums(used(user, marks.month))
    step = counters.ROLLING / _STEPS
    younger = 0
    for back in range(1, _STEPS + 1):
        start = now - back * step
        total, _ = _sums(used(user, start))
        if total > younger:
            use.rolling.insert(0, (int(start + step) // counters.BUCKET * counters.BUCKET, total - younger))
        younger = max(younger, total)
    return use


def _sums(row: Mapping[str, float]) -> tuple[int, float]:
    """Tokens and US dollars of a usage row of the ledger (`input` without cache, `reasoning` part of `output`)."""
    tokens = sum(row.get(name) or 0 for name in ("input", "cache_read", "cache_write", "output"))
    return int(tokens), float(row.get("cost_usd") or 0.0)
