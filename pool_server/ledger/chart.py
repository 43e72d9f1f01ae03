"""Rollup rows put together as a page shows them: groups with their sums, lines of a chart, single values.

Rows stay encoded until it is known what is asked of them: a year of days has tens of thousands, most of which give one
number each. Nothing here reads the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Literal

import msgspec

from pool_server.ledger.records.layout import OTHER
from pool_server.ledger.rollups.reader import RollupRow
from pool_server.ledger.rollups.sums import NANO, LeadingCounts, latencies, leading_counts, percentile

Metric = Literal[
    "tokens", "cost", "requests", "failures", "input", "cache_read", "cache_write", "output", "reasoning",
    "cache_share", "error_share", "first_byte_p50", "first_byte_p95", "total_p50", "total_p95",
]  # fmt: skip


class SeriesLine(msgspec.Struct):
    """One line of a chart: a value a bucket, None where a share or percentile has nothing to say."""

    key: str
    values: list[float | None]

    @property
    def total(self) -> float:
        """What its values come to, of a metric that adds up."""
        return sum(value or 0 for value in self.values)


class UsageSeries(msgspec.Struct, rename={"frm": "from"}):
    """A chart of use over time. `frm`, `to` and `buckets` are unix seconds; `every` steps are one bucket."""

    frm: int
    to: int
    step: str
    every: int
    tz: str
    metric: str
    buckets: list[int]
    series: list[SeriesLine]


# What can simply be added up, and the parts and wholes of shares.
_ADDED: dict[str, Callable[[LeadingCounts], int]] = {
    "tokens": lambda counts: counts.input + counts.cache_read + counts.cache_write + counts.output,
    "cost": attrgetter("cost_nano"),
    "requests": attrgetter("requests"),
    "failures": attrgetter("failures"),
    "input": attrgetter("input"),
    "cache_read": attrgetter("cache_read"),
    "cache_write": attrgetter("cache_write"),
    "output": attrgetter("output"),
    "reasoning": attrgetter("reasoning"),
}
_SHARES: dict[str, tuple[Callable[[LeadingCounts], int], Callable[[LeadingCounts], int]]] = {
    "cache_share": (_ADDED["cache_read"], lambda counts: counts.input + counts.cache_read + counts.cache_write),
    "error_share": (_ADDED["failures"], _ADDED["requests"]),
}
_PERCENTILES: dict[str, tuple[str, int]] = {
    "first_byte_p50": ("first", 50),
    "first_byte_p95": ("first", 95),
    "total_p50": ("total", 50),
    "total_p95": ("total", 95),
}
METRICS = (*_ADDED, *_SHARES, *_PERCENTILES)

_requests = _ADDED["requests"]


def measure(metric: str, raws: Sequence[bytes]) -> float | int | None:
    """A metric of encoded rows, of which no more is read than it needs; None where a share or a percentile has nothing
    to say."""
    if metric in _ADDED:
        return _scaled(metric, sum(map(_ADDED[metric], map(leading_counts, raws))))
    if metric in _SHARES:
        counts = list(map(leading_counts, raws))
        part, whole = (sum(map(number_of, counts)) for number_of in _SHARES[metric])
        return part / whole if whole else None
    kind, point = _PERCENTILES[metric]
    return percentile(latencies(raws, kind), point)


def _scaled(metric: str, number: int) -> float | int:
    return number / NANO if metric == "cost" else number


def gathered(found: Iterable[RollupRow]) -> dict[tuple[str, ...], list[bytes]]:
    """The encoded rows of each group."""
    raws: dict[tuple[str, ...], list[bytes]] = {}
    for _, names, raw in found:
        raws.setdefault(names, []).append(raw)
    return raws


def lines(
    found: Iterable[RollupRow], drawn_at: Callable[[int], int], buckets: Sequence[int], metric: Metric, top: int
) -> list[SeriesLine]:
    """The lines of a chart, largest first; beyond `top` of them the rest is one line more.

    `drawn_at` says in which of `buckets` a row's bucket is drawn. Metrics that add up rank by themselves, the rest by
    requests.
    """
    draw = _added_lines if metric in _ADDED else _measured_lines
    return draw(found, drawn_at, buckets, metric, top)


def adds_up(metric: str) -> bool:
    """Whether a metric of a whole is the sum of its parts'."""
    return metric in _ADDED


def takes_time(metric: str) -> bool:
    """Whether a metric is read from histograms of latency."""
    return metric in _PERCENTILES


def ranked(found: Iterable[RollupRow], metric: str) -> list[tuple[str, ...]]:
    """The groups of rows by a metric that adds up, largest first."""
    number_of = _ADDED[metric]
    sums: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for _, names, raw in found:
        sums[names] += number_of(leading_counts(raw))
    return sorted(sums, key=lambda names: (-sums[names], names))


def one_line(found: Iterable[RollupRow], drawn_at: Callable[[int], int], metric: str) -> dict[int, int]:
    """The values of one line by the bucket they are drawn in, of a metric that adds up."""
    number_of = _ADDED[metric]
    line: defaultdict[int, int] = defaultdict(int)
    for bucket, _, raw in found:
        line[drawn_at(bucket)] += number_of(leading_counts(raw))
    return line


def drawn(named: Sequence[tuple[str, Mapping[int, int]]], buckets: Sequence[int], metric: str) -> list[SeriesLine]:
    """Lines of a metric that adds up as a chart has them."""
    return [SeriesLine(key, [_scaled(metric, line.get(at, 0)) for at in buckets]) for key, line in named]


def rest_of(whole: Mapping[int, int], parts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """What remains of a line without its parts."""
    rest = dict(whole)
    for part in parts:
        for at, number in part.items():
            rest[at] -= number
    return rest


def _added_lines(
    found: Iterable[RollupRow], drawn_at: Callable[[int], int], buckets: Sequence[int], metric: str, top: int
) -> list[SeriesLine]:
    number_of = _ADDED[metric]
    numbers: defaultdict[tuple[str, ...], defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    last, at = -1, -1
    for bucket, names, raw in found:
        if bucket != last:  # rows come bucket by bucket
            last, at = bucket, drawn_at(bucket)
        numbers[names][at] += number_of(leading_counts(raw))
    order = sorted(numbers, key=lambda names: (-sum(numbers[names].values()), names))
    named: list[tuple[str, Mapping[int, int]]] = [(title(names), numbers[names]) for names in order[:top]]
    if len(order) > top:
        rest: defaultdict[int, int] = defaultdict(int)
        for names in order[top:]:
            for at, number in numbers[names].items():
                rest[at] += number
        named.append((OTHER, rest))
    return drawn(named, buckets, metric)


def _measured_lines(
    found: Iterable[RollupRow], drawn_at: Callable[[int], int], buckets: Sequence[int], metric: str, top: int
) -> list[SeriesLine]:
    cells: dict[tuple[str, ...], dict[int, list[bytes]]] = {}
    weights: dict[tuple[str, ...], int] = {}
    for bucket, names, raw in found:
        cells.setdefault(names, {}).setdefault(drawn_at(bucket), []).append(raw)
        weights[names] = weights.get(names, 0) + _requests(leading_counts(raw))
    order = sorted(cells, key=lambda names: (-weights[names], names))
    named = [(title(names), cells[names]) for names in order[:top]]
    if len(order) > top:
        rest: dict[int, list[bytes]] = {}
        for names in order[top:]:
            for at, raws in cells[names].items():
                rest.setdefault(at, []).extend(raws)
        named.append((OTHER, rest))
    return [SeriesLine(key, [measure(metric, line.get(bucket, ())) for bucket in buckets]) for key, line in named]


def title(names: tuple[str, ...]) -> str:
    return names[0] if names else "all"
