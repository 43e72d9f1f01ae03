"""What a rollup row adds up: counts as whole numbers, so that sums are exact, and histograms for percentiles.

Costs are nano-dollars. Latencies fall into buckets a quarter of an octave wide (19 %), so a percentile read from
them is within 10 % of the true one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import add, sub
from typing import Any

import msgspec

from pool_server.core.enums import CostBasis, Outcome
from pool_server.core.models import MoveCost, UsageRecord
from pool_server.ledger.rollups.usage_sums import GroupSums, Percentiles, SharedAmount, TokenCounts, UsageSums

NANO = 1_000_000_000
STEPS = 4  # latency buckets an octave
COUNTS = (
    "requests", "failures", "partial", "input", "cache_read", "cache_write", "cache_write_1h", "output",
    "reasoning", "web_searches", "cost_nano", "unpriced", "attempts", "first_byte_ms", "first_byte_n", "total_ms",
    "total_n", "request_bytes", "response_bytes",
)  # fmt: skip
N = len(COUNTS)
AT = {name: i for i, name in enumerate(COUNTS)}
GOOD = frozenset({Outcome.OK.value, Outcome.CLIENT_GONE.value})

_Spread = dict[int | str, int]
_TOTAL = 1_000  # keys of a spread: first-byte buckets, total buckets from here on, outcomes, "!" + fault
_FAULT = "!"
_EXTRA = "+:"  # further counts by name, of which most rows have none
_EXTRA_BYTES = _EXTRA.encode()
MOVES, MOVE_TOKENS, MOVE_NANO, MOVES_UNPRICED = "moves", "move_tokens", "move_nano", "moves_unpriced"
ESTIMATED, ESTIMATED_NANO, ASSUMED, ASSUMED_NANO = "estimated", "estimated_nano", "assumed", "assumed_nano"

_APART = (_FAULT, _EXTRA)

_Told = tuple[
    int, int, int, int, int, int, float, int, int, int, int, int, int, int, int, int, int, float, int, float,
    int, int, float, int, float | None, float | None, Percentiles | None, Percentiles | None,
    dict[str, int], dict[str, int],
]  # fmt: skip
_Wire = tuple[
    int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, msgspec.Raw
]
_decode: Callable[[bytes], tuple[Any, ...]] = msgspec.msgpack.Decoder(_Wire).decode
_decode_spread = msgspec.msgpack.Decoder(_Spread).decode
_encode = msgspec.msgpack.Encoder().encode


class LeadingCounts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first counts of an encoded row, in the order of COUNTS: all that adds up in a chart, in half the time."""

    requests: int
    failures: int
    partial: int
    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int
    reasoning: int
    web_searches: int
    cost_nano: int


leading_counts: Callable[[bytes], LeadingCounts] = msgspec.msgpack.Decoder(LeadingCounts).decode


class Sums:
    """Adds up exchanges: `n` holds the counts in the order of COUNTS, `spread` maps bucket or word to count."""

    __slots__ = ("n", "spread")

    def __init__(self) -> None:
        self.n: list[int] = [0] * N
        self.spread: _Spread = {}

    @property
    def first(self) -> dict[int, int]:
        """First-byte latencies: bucket → count."""
        return {key: count for key, count in self.spread.items() if type(key) is int and key < _TOTAL}

    @property
    def total(self) -> dict[int, int]:
        """Latencies to the last byte of exchanges that ended well: bucket → count."""
        return {key - _TOTAL: count for key, count in self.spread.items() if type(key) is int and key >= _TOTAL}

    @property
    def outcomes(self) -> dict[str, int]:
        return {key: n for key, n in self.spread.items() if type(key) is str and not key.startswith(_APART)}

    @property
    def faults(self) -> dict[str, int]:
        """Kinds of fault of single attempts: these may outnumber the failures that clients saw."""
        return {key[1:]: n for key, n in self.spread.items() if type(key) is str and key.startswith(_FAULT)}

    def extra(self, name: str) -> int:
        """A count that most exchanges add nothing to: of estimates, of assumed prices."""
        return self.spread.get(_EXTRA + name, 0)

    def __getitem__(self, name: str) -> int:
        return self.n[AT[name]]

    @classmethod
    def of(cls, rec: UsageRecord) -> Sums:
        """One cleaned and priced record as sums."""
        sums = cls()
        usage = rec.usage
        good = rec.outcome in GOOD
        first = rec.first_byte_ms
        timed = rec.outcome == Outcome.OK
        sums.n = [
            1, 0 if good else 1, 1 if rec.partial else 0, usage.input, usage.cache_read, usage.cache_write,
            usage.cache_write_1h, usage.output, usage.reasoning, usage.web_searches, cost_nano(rec.cost),
            1 if rec.cost is None and usage.total else 0, len(rec.attempts),
            0 if first is None else int(first), 0 if first is None else 1,
            int(rec.total_ms) if timed else 0, 1 if timed else 0, rec.request_bytes, rec.response_bytes,
        ]  # fmt: skip
        spread = sums.spread
        if first is not None:
            spread[bucket_of(first)] = 1
        if timed:
            spread[_TOTAL + bucket_of(rec.total_ms)] = 1
        spread[rec.outcome] = 1
        for attempt in rec.attempts:
            if attempt.fault:
                spread[_FAULT + attempt.fault] = spread.get(_FAULT + attempt.fault, 0) + 1
        if usage.estimated:
            _note(spread, ESTIMATED, ESTIMATED_NANO, rec.cost)
        if rec.cost_basis == CostBasis.ASSUMED and rec.cost is not None:
            _note(spread, ASSUMED, ASSUMED_NANO, rec.cost)
        if rec.move is not None:
            _note_move(spread, rec.move)
        return sums

    def add(self, other: Sums) -> None:
        """Add to this one, in place."""
        self.n = list(map(add, self.n, other.n))
        _merge(self.spread, other.spread)

    def plus(self, other: Sums) -> Sums:
        """The sum of both as a new one; neither changes."""
        both = Sums.__new__(Sums)
        both.n = list(map(add, self.n, other.n))
        both.spread = self.spread.copy()
        _merge(both.spread, other.spread)
        return both

    def less(self, part: Sums) -> Sums:
        """What is left without `part`, which was counted here."""
        rest = Sums.__new__(Sums)
        rest.n = list(map(sub, self.n, part.n))
        rest.spread = {key: left for key, n in self.spread.items() if (left := n - part.spread.get(key, 0))}
        return rest

    @classmethod
    def together(cls, raws: Sequence[bytes], *, full: bool) -> Sums:
        """Encoded rows added up. Not `full`, their histograms are left out, which takes a fifth of the time."""
        sums = cls()
        if not raws:
            return sums
        decoded = list(map(_decode, raws))
        sums.n = [sum(column) for column in islice(zip(*decoded, strict=True), N)]
        if full:
            sums.spread = _merged(row[N] for row in decoded)
        else:
            noted = _merged(row[N] for raw, row in zip(raws, decoded, strict=True) if _EXTRA_BYTES in raw)
            sums.spread = {key: n for key, n in noted.items() if type(key) is str and key.startswith(_EXTRA)}
        return sums

    def slim(self) -> Sums:
        """The counts without the histograms; nobody changes either in place."""
        slim = Sums.__new__(Sums)
        slim.n = self.n
        slim.spread = {key: n for key, n in self.spread.items() if type(key) is str and key.startswith(_EXTRA)}
        return slim

    def encode(self) -> bytes:
        return _encode((*self.n, self.spread))

    @classmethod
    def decode(cls, raw: bytes) -> Sums:
        sums = cls()
        values = _decode(raw)
        sums.n = list(values[:N])
        sums.spread = _decode_spread(values[N])
        return sums

    def parted(self) -> tuple[bytes | None, bytes | None]:
        """What goes with the counts, encoded: histograms with endings, and further counts; None = there are none."""
        extra = {key: n for key, n in self.spread.items() if type(key) is str and key.startswith(_EXTRA)}
        spread = {key: n for key, n in self.spread.items() if key not in extra}
        return _encode(spread) if spread else None, _encode(extra) if extra else None

    @classmethod
    def joined(cls, counts: Sequence[int], parts: Iterable[bytes | None]) -> Sums:
        """Sums of counts and what goes with them, as `parted` gives it."""
        sums = cls()
        sums.n = list(counts)
        for part in parts:
            if part is not None:
                _merge(sums.spread, _decode_spread(part))
        return sums

    @property
    def all_tokens(self) -> int:
        n = self.n
        return n[3] + n[4] + n[5] + n[7]

    def tokens(self) -> TokenCounts:
        """The shape in which every answer carries use: tokens, requests and dollars."""
        n = self.n
        return TokenCounts(n[3], n[4], n[5], n[7], n[8], n[0], n[10] / NANO)

    def brief(self) -> SharedAmount:
        n = self.n
        return SharedAmount(n[0], self.all_tokens, n[10] / NANO, n[11])

    def describe(self) -> UsageSums:
        """Everything a page shows."""
        return UsageSums(*self._told())

    def of_group(self, key: str) -> GroupSums:
        return GroupSums(*self._told(), key)

    def _told(self) -> _Told:
        """The fields of `UsageSums`."""
        n, extra = self.n, self.extra
        prompt = n[3] + n[4] + n[5]
        return (
            n[3], n[4], n[5], n[7], n[8], n[0], n[10] / NANO, n[11], self.all_tokens, n[1], n[2], n[6], n[9], n[12],
            n[17], n[18], extra(ESTIMATED), extra(ESTIMATED_NANO) / NANO, extra(ASSUMED), extra(ASSUMED_NANO) / NANO,
            extra(MOVES), extra(MOVE_TOKENS), extra(MOVE_NANO) / NANO, extra(MOVES_UNPRICED),
            n[4] / prompt if prompt else None, n[1] / n[0] if n[0] else None,
            percentiles(self.first), percentiles(self.total), self.outcomes, self.faults,
        )  # fmt: skip


def wire(counts: Sequence[int], parts: Sequence[bytes]) -> bytes:
    """An encoded row of counts and what goes with them, any number of such parts."""
    if len(parts) == 1:
        return _encode((*counts, msgspec.Raw(parts[0])))
    return _encode((*counts, _merged(msgspec.Raw(part) for part in parts)))


def latencies(raws: Iterable[bytes], kind: str) -> dict[int, int]:
    """One histogram of encoded rows added up: "first" byte or "total", as `Sums.first` and `Sums.total`."""
    sums = Sums()
    sums.spread = _merged(_decode(raw)[N] for raw in raws)
    return sums.first if kind == "first" else sums.total


def _merged(packed: Iterable[msgspec.Raw]) -> _Spread:
    into: defaultdict[int | str, int] = defaultdict(int)
    for spread in map(_decode_spread, packed):
        for key, count in spread.items():
            into[key] += count
    return dict(into)


def cost_nano(cost: float | None) -> int:
    """Dollars as whole nano-dollars; an unknown cost adds nothing (and is counted as unpriced)."""
    return 0 if cost is None else round(cost * NANO)


def bucket_of(ms: float) -> int:
    """The latency bucket of a duration; everything up to a millisecond is bucket 0."""
    return 0 if ms <= 1.0 else 1 + int(math.log2(ms) * STEPS)


def bucket_edges(bucket: int) -> tuple[float, float]:
    """A bucket's durations in milliseconds: from, to."""
    return (0.0, 1.0) if bucket <= 0 else (2 ** ((bucket - 1) / STEPS), 2 ** (bucket / STEPS))


def percentiles(spread: Mapping[int, int]) -> Percentiles | None:
    """Read from a histogram; None when it is empty."""
    if not spread:
        return None
    return Percentiles(*(percentile(spread, point) or 0.0 for point in (50, 90, 95, 99)))


def percentile(spread: Mapping[int, int], point: int) -> float | None:
    """Milliseconds that `point` percent of a histogram stayed within; None when it is empty."""
    count = sum(spread.values())
    return _quantile(spread, count * point / 100) if count else None


def _quantile(spread: Mapping[int, int], rank: float) -> float:
    seen = 0
    low, high = 0.0, 0.0
    for bucket in sorted(spread):
        low, high = bucket_edges(bucket)
        here = spread[bucket]
        if seen + here >= rank:
            return round(low + (high - low) * (rank - seen) / here, 1)
        seen += here
    return round(high, 1)


def _note(spread: _Spread, count: str, nano: str, cost: float | None) -> None:
    spread[_EXTRA + count] = 1
    if cost:
        spread[_EXTRA + nano] = cost_nano(cost)


def _note_move(spread: _Spread, move: MoveCost) -> None:
    """A move whose price is not known is counted as such: it adds nothing to the sum, and is not free."""
    spread[_EXTRA + MOVES] = 1
    if move.tokens:
        spread[_EXTRA + MOVE_TOKENS] = move.tokens
    if move.cost is None:
        spread[_EXTRA + MOVES_UNPRICED] = 1
    elif move.cost:
        spread[_EXTRA + MOVE_NANO] = cost_nano(move.cost)


def _merge(into: _Spread, other: _Spread) -> None:
    for key, count in other.items():
        into[key] = into.get(key, 0) + count
