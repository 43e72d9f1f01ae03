"""Questions about the past, answered from rollups alone: totals, series, rankings, heat map, who uses what.

Everything here is read-only, safe in any thread and takes milliseconds; times are unix seconds. Ranges are half
open and may be widened to what is still kept (`from` and `to` of the answer say so).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal

from pool_server.ledger.records.keys import GRAINS, POOL, RECENT, ROLLUPS, Days, seconds_key, time_key, zone
from pool_server.ledger.rollups.reader import LABELS, Field, Filters, RollupRow, hourly, rows
from pool_server.ledger.rollups.sums import NANO, Sums, counts_of, percentiles
from pool_server.ledger.rollups.time_slices import Kept, Slice, Step, cover, cover_at, kept, widen
from pool_server.storage import Reader, Store

Metric = Literal[
    "tokens", "cost", "requests", "failures", "input", "cache_read", "cache_write", "output", "reasoning",
    "cache_share", "error_share", "first_byte_p50", "first_byte_p95", "total_p50", "total_p95",
]  # fmt: skip
STEP_SECONDS: dict[Step, int] = {"minute": 60, "hour": 3600, "day": 86_400}
MAX_POINTS = 3_000
LABEL_RANGE_S = 8 * 86_400  # of keys and conversations of everybody
OTHER = "other"
_DEFAULT = Filters()

_VALUES: dict[str, Callable[[Sums], float | int | None]] = {
    "tokens": lambda s: s["input"] + s["cache_read"] + s["cache_write"] + s["output"],
    "cost": lambda s: s["cost_nano"] / NANO,
    "requests": itemgetter("requests"),
    "failures": itemgetter("failures"),
    "input": itemgetter("input"),
    "cache_read": itemgetter("cache_read"),
    "cache_write": itemgetter("cache_write"),
    "output": itemgetter("output"),
    "reasoning": itemgetter("reasoning"),
    "cache_share": lambda s: _share(s["cache_read"], s["input"] + s["cache_read"] + s["cache_write"]),
    "error_share": lambda s: _share(s["failures"], s["requests"]),
    "first_byte_p50": lambda s: _percentile(s.first, 50),
    "first_byte_p95": lambda s: _percentile(s.first, 95),
    "total_p50": lambda s: _percentile(s.total, 50),
    "total_p95": lambda s: _percentile(s.total, 95),
}
METRICS = tuple(_VALUES)
_ADDITIVE = frozenset(METRICS[:9])  # the rest are shares and percentiles, which need more than a sum
_PERCENTILE = ("_p50", "_p95")
_NEVER = 1 << 40
# What `widen` is to take as kept, so that a chart's bounds fall on its own steps.
_KEPT_FOR: dict[Step, Kept] = {
    "minute": Kept(),
    "hour": Kept(minutes=_NEVER),
    "day": Kept(minutes=_NEVER, hours=_NEVER),
}


class Queries:
    """Answers from one store. `timezone` is the one days were kept in."""

    def __init__(self, store: Store, timezone: str) -> None:
        self._store = store
        self._timezone = timezone

    def total(self, frm: float, to: float, filters: Filters = _DEFAULT) -> Sums:
        """Everything in a range as one sum."""
        with self._store.read() as reader:
            slices, _, _ = self._slices(reader, frm, to)
            return _sum(rows(reader, slices, filters))

    def summary(self, frm: float, to: float, filters: Filters = _DEFAULT) -> dict[str, Any]:
        """{"from","to","total":{…},"providers":{name:{…}},"models":{name:{…}}}; the sums as in `Sums.describe`."""
        with self._store.read() as reader:
            slices, start, stop = self._slices(reader, frm, to)
            total = _sum(rows(reader, slices, filters))
            providers = _groups(rows(reader, slices, filters, ("provider",)))
            models = _groups(rows(reader, slices, filters, ("model",)))
        return {
            "from": start, "to": stop, "total": total.describe(),
            "providers": _described(providers), "models": _described(models),
        }  # fmt: skip

    def series(
        self,
        by: Field | None,
        step: Step,
        frm: float,
        to: float,
        filters: Filters = _DEFAULT,
        *,
        tz: str = "",
        metric: Metric = "tokens",
        top: int = 12,
        every: int = 1,
    ) -> dict[str, Any]:
        """A chart: {"from","to","step","tz","metric","buckets":[…],"series":[{"key","values":[…]}]}.

        One value a bucket, None where a share or percentile has nothing to say. Beyond the `top` largest groups
        the rest is one series "other". A chart begins where rows of its step begin. Days follow `tz` while hour
        rows are kept, the ledger's own zone before that. `every` steps are one bucket, by the clock: 6 hours from
        midnight on, 7 days from Monday on. Raises ValueError for more than MAX_POINTS steps.
        """
        names: tuple[Field, ...] = (by,) if by else ()
        _bounded(by, frm, to, filters)
        with self._store.read() as reader:
            have = kept(reader)
            local = Days((tz if frm >= have.hours else "") or self._timezone)
            if by in LABELS and (step == "minute" or (step == "hour" and not hourly(by, filters))):
                raise ValueError(f"use by {by} is not kept by the {step}")
            frm = max(frm, {"minute": have.minutes, "hour": have.hours, "day": 0}[step])
            start, stop = widen(frm, to, _KEPT_FOR[step], local)
            slices = self._chart_slices(step, start, stop, local)
            buckets = _buckets(step, start, stop, local)
            heads = _heads(step, every, buckets, local)
            buckets = list(dict.fromkeys(heads.values()))
            place = _placer(step, local)
            found = rows(reader, slices, filters, names)
            lines = _drawn(found, lambda at: heads.get(place(at), at), buckets, metric, top)
        return {
            "from": start, "to": stop, "step": step, "every": every, "tz": str(local.zone), "metric": metric,
            "buckets": buckets, "series": lines,
        }  # fmt: skip

    def top(
        self,
        by: Field,
        frm: float,
        to: float,
        filters: Filters = _DEFAULT,
        *,
        metric: Metric = "tokens",
        limit: int = 50,
        timed: bool = True,
    ) -> list[dict[str, Any]]:
        """The groups with most of `metric`, largest first, each {"key": name, …} with its sums.

        Not `timed`, percentiles and endings are left out, which halves the time; then `metric` must not be one.
        """
        _bounded(by, frm, to, filters)
        with self._store.read() as reader:
            slices, _, _ = self._slices(reader, frm, to, by, filters)
            groups = _groups(rows(reader, slices, filters, (by,)), full=timed)
        value = _VALUES[metric]
        ranked = sorted(groups.items(), key=lambda item: (-(value(item[1]) or 0), item[0]))
        return [{"key": names[0], **sums.describe()} for names, sums in ranked[:limit]]

    def matrix(self, frm: float, to: float, filters: Filters = _DEFAULT, *, limit: int = 2_000) -> list[dict[str, Any]]:
        """Who uses which account: {"user","account", tokens…, "total_tokens"}, most tokens first."""
        with self._store.read() as reader:
            slices, _, _ = self._slices(reader, frm, to)
            groups = _groups(rows(reader, slices, filters, ("user", "account")))
        tokens = _VALUES["tokens"]
        ranked = sorted(groups.items(), key=lambda item: (-(tokens(item[1]) or 0), item[0]))
        return [
            {"user": user, "account": account, **sums.tokens(), "total_tokens": tokens(sums)}
            for (user, account), sums in ranked[:limit]
        ]

    def heatmap(
        self, frm: float, to: float, filters: Filters = _DEFAULT, *, tz: str = "", metric: Metric = "tokens"
    ) -> dict[str, Any]:
        """{"from","to","tz","metric","cells": 7 lists (Monday first) of 24 values}, from hour rows."""
        where = zone(tz or self._timezone)
        with self._store.read() as reader:
            days = Days(self._timezone)
            have = kept(reader)
            start, stop = widen(max(frm, have.hours), to, _KEPT_FOR["hour"], days)
            hours: dict[int, Sums] = {}
            for row in rows(reader, [Slice(b"h", start, stop)], filters):
                hours.setdefault(row.bucket, Sums()).add(Sums.decode(row.raw))
        cells = [[Sums() for _ in range(24)] for _ in range(7)]
        for bucket, sums in hours.items():
            moment = datetime.fromtimestamp(bucket, where)
            cells[moment.weekday()][moment.hour].add(sums)
        value = _VALUES[metric]
        return {
            "from": start, "to": stop, "tz": str(where), "metric": metric,
            "cells": [[value(sums) for sums in day] for day in cells],
        }  # fmt: skip

    def _slices(
        self, reader: Reader, frm: float, to: float, by: Field | None = None, filters: Filters = _DEFAULT
    ) -> tuple[list[Slice], int, int]:
        """Slices of a range; of labels there are hours at most, of a user's only days."""
        days = Days(self._timezone)
        have = kept(reader)
        if by in LABELS:
            have = Kept(minutes=_NEVER, hours=have.hours if hourly(by, filters) else _NEVER)
        start, stop = widen(frm, to, have, days)
        end = days.after(stop) if start < stop and _nothing_since(reader, stop) else stop
        return cover(start, end, days), start, stop

    def _chart_slices(self, step: Step, start: int, stop: int, local: Days) -> list[Slice]:
        """Days and hours of another zone than the ledger's are put together from its hours."""
        days = Days(self._timezone)
        if step != "minute" and local.zone is not days.zone:
            return [Slice(b"h", start, stop)]
        return cover_at(step, start, stop, days)


def _bounded(by: Field | None, frm: float, to: float, filters: Filters) -> None:
    """Raises ValueError for everybody's keys or conversations over more time than can be read at once."""
    if by in LABELS and LABELS[by][0] is None and filters.user is None and to - frm > LABEL_RANGE_S:
        raise ValueError(f"use by {by} is told of one user, or of at most {LABEL_RANGE_S // 86_400} days")


def _nothing_since(reader: Reader, at: int) -> bool:
    """Whether the current day's row may stand for its hours: nothing was recorded after the range."""
    for grain in GRAINS:
        head = grain + POOL
        if next(reader.scan(ROLLUPS, head + seconds_key(at), head + b"\xff", limit=1), None) is not None:
            return False
    return next(reader.scan(RECENT, time_key(at), limit=1), None) is None


def _buckets(step: Step, start: int, stop: int, days: Days) -> list[int]:
    """The start of every bucket of a chart, also of empty ones."""
    if (stop - start) // STEP_SECONDS[step] > MAX_POINTS:
        raise ValueError(f"a range of {stop - start} s has more than {MAX_POINTS} steps of a {step}")
    buckets = []
    at = start
    while at < stop:
        buckets.append(at)
        at = days.after(at) if step == "day" else at + STEP_SECONDS[step]
    return buckets


def _heads(step: Step, every: int, buckets: Sequence[int], days: Days) -> dict[int, int]:
    """Step → the first step of the bucket it is drawn in, by the clock and not by where the range begins."""
    heads: dict[int, int] = {}
    first: dict[tuple[int, int], int] = {}
    for at in buckets:
        midnight = days.start(at)
        if every <= 1:
            group = (at, 0)
        elif step == "day":
            group = (datetime.fromtimestamp(at, days.zone).toordinal() + 6) // every, 0
        else:
            group = (midnight, (at - midnight) // STEP_SECONDS[step] // every)
        heads[at] = first.setdefault(group, at)
    return heads


def _placer(step: Step, days: Days) -> Callable[[int], int]:
    """Which chart bucket a row belongs to."""
    if step == "day":
        return days.start
    return days.hour if step == "hour" else int


def _drawn(
    found: Iterable[RollupRow], place: Callable[[int], int], buckets: Sequence[int], metric: Metric, top: int
) -> list[dict[str, Any]]:
    """The lines of a chart."""
    if metric in _ADDITIVE:
        return _summed(found, place, buckets, metric, top)
    return _lines(_cells(found, place, full=metric.endswith(_PERCENTILE)), buckets, metric, top)


def _summed(
    found: Iterable[RollupRow], place: Callable[[int], int], buckets: Sequence[int], metric: Metric, top: int
) -> list[dict[str, Any]]:
    """`_lines` of what can simply be added up: no row is kept, so that a year of days stays quick."""
    value, row_sums = _VALUES[metric], Sums()
    lines: dict[tuple[str, ...], dict[int, float]] = {}
    for row in found:
        line = lines.get(row.names)
        if line is None:
            line = lines[row.names] = {}
        row_sums.n = list(counts_of(row.raw))
        at = place(row.bucket)
        line[at] = line.get(at, 0) + (value(row_sums) or 0)
    ranked = sorted(lines, key=lambda names: (-sum(lines[names].values()), names))
    drawn = [(names[0] if names else "all", lines[names]) for names in ranked[:top]]
    if len(ranked) > top:
        rest: dict[int, float] = {}
        for names in ranked[top:]:
            for at, number in lines[names].items():
                rest[at] = rest.get(at, 0) + number
        drawn.append((OTHER, rest))
    return [{"key": key, "values": [line.get(bucket, 0) for bucket in buckets]} for key, line in drawn]


def _cells(
    found: Iterable[RollupRow], place: Callable[[int], int], *, full: bool
) -> dict[tuple[str, ...], dict[int, Sums]]:
    cells: dict[tuple[str, ...], dict[int, Sums]] = {}
    for row in found:
        line = cells.setdefault(row.names, {})
        _add(line.setdefault(place(row.bucket), Sums()), row.raw, full=full)
    return cells


def _lines(
    cells: dict[tuple[str, ...], dict[int, Sums]], buckets: Sequence[int], metric: Metric, top: int
) -> list[dict[str, Any]]:
    """The groups with most requests each as a line, the rest as one more."""
    value, weight = _VALUES[metric], _VALUES["requests"]
    ranked = sorted(cells, key=lambda names: (-sum(weight(s) or 0 for s in cells[names].values()), names))
    lines = [(names[0] if names else "all", cells[names]) for names in ranked[:top]]
    if len(ranked) > top:
        rest: dict[int, Sums] = {}
        for names in ranked[top:]:
            for bucket, sums in cells[names].items():
                rest.setdefault(bucket, Sums()).add(sums)
        lines.append((OTHER, rest))
    nothing = Sums()
    return [{"key": key, "values": [value(line.get(bucket, nothing)) for bucket in buckets]} for key, line in lines]


def _groups(found: Iterable[RollupRow], *, full: bool = False) -> dict[tuple[str, ...], Sums]:
    groups: dict[tuple[str, ...], Sums] = {}
    for row in found:
        sums = groups.get(row.names)
        if sums is None:
            sums = groups[row.names] = Sums()
        _add(sums, row.raw, full=full)
    return groups


def _sum(found: Iterable[RollupRow]) -> Sums:
    return _groups(found, full=True).get((), Sums())


def _add(sums: Sums, raw: bytes, *, full: bool) -> None:
    if full:
        sums.add(Sums.decode(raw))
    else:
        sums.add_counts(raw)


def _described(groups: dict[tuple[str, ...], Sums]) -> dict[str, Any]:
    return {names[0]: sums.describe() for names, sums in sorted(groups.items())}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percentile(spread: dict[int, int], point: int) -> float | None:
    found = percentiles(spread, (point,))
    return None if found is None else found[f"p{point}"]
