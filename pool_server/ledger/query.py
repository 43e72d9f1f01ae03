"""Questions about the past, answered from rollups alone: totals, series, rankings, heat map, who uses what.

Everything here is read-only, safe in any thread and takes milliseconds; times are unix seconds. Ranges are half
open and may be widened to what is still kept (`from` and `to` of the answer say so).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache

import msgspec

from pool_server.ledger.bill_split import UsedHere
from pool_server.ledger.chart import (
    Metric,
    SeriesLine,
    UsageSeries,
    adds_up,
    drawn,
    gathered,
    lines,
    measure,
    one_line,
    ranked,
    rest_of,
    takes_time,
    title,
)
from pool_server.ledger.ports import LedgerPort, LogFilters, UsageReader
from pool_server.ledger.quota_history import Sighting
from pool_server.ledger.records.days import Days, zone
from pool_server.ledger.records.layout import OTHER
from pool_server.ledger.rollups.reader import LABELS, Field, Filters, RollupRow, hourly
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.time_slices import Kept, Slice, Step, cover, cover_at, widen
from pool_server.ledger.rollups.usage_sums import AccountUser, GroupSums, UsageSummary, UsageSums, WeekHours
from pool_server.ledger.shared_use import SharedUses

STEP_SECONDS: dict[Step, int] = {"minute": 60, "hour": 3600, "day": 86_400}
MAX_POINTS = 3_000
LONG_S = 62 * 86_400  # a chart of more days than this is not read group by group and day by day
LABEL_RANGE_S = 8 * 86_400  # of keys and conversations of everybody
MOST_SIGHTINGS = 20_000
CREDITS = "credits"  # a window that is a balance
_GRAIN_SECONDS = {b"m": 60, b"h": 3600, b"d": 86_400}
_DEFAULT = Filters()

_NEVER = 1 << 40
# What `widen` is to take as kept, so that a chart's bounds fall on its own steps.
_KEPT_FOR: dict[Step, Kept] = {
    "minute": Kept(),
    "hour": Kept(minutes=_NEVER),
    "day": Kept(minutes=_NEVER, hours=_NEVER),
}
_WEIGHTS: tuple[Metric, ...] = ("cost", "tokens")


class Queries:
    """Answers from one store. `timezone` is the one that is shown where none is asked for."""

    def __init__(self, port: LedgerPort, timezone: str) -> None:
        self._port = port
        self._timezone = timezone

    def total(self, frm: float, to: float, filters: Filters = _DEFAULT) -> Sums:
        """Everything in a range as one sum."""
        with self._port.read() as reader:
            slices, _, _ = self._slices(reader, frm, to)
            return _sum(reader, slices, filters)

    def of_key(self, user: str, key: str, frm: float, to: float) -> Sums:
        """What one key of a user was used for. There are days of keys, no hours: what begins within a day is added up
        from its records."""
        with self._port.read() as reader:
            days = reader.days()
            first = days.start(frm) if days.start(frm) == frm else days.after(frm)
            part = LogFilters(user=user, since=frm, until=min(first, to))
            whole = reader.rows(
                [Slice(b"d", first, days.after(to))], Filters(user=user), ("key",), apart=False, timed=False
            )
            found = Sums.together([raw for _, names, raw in whole if names == (key,)], full=False)
            for record in reader.records_of(part):
                if record.key == key:
                    found.add(Sums.of(record))
        return found

    def summary(self, frm: float, to: float, filters: Filters = _DEFAULT) -> UsageSummary:
        """A range as a whole, and by provider and model."""
        with self._port.read() as reader:
            slices, start, stop = self._slices(reader, frm, to)
            total = _sum(reader, slices, filters)
            providers = _groups(reader.rows(slices, filters, ("provider",), apart=False, timed=False))
            models = _groups(reader.rows(slices, filters, ("model",), apart=False, timed=False))
        return UsageSummary(start, stop, total.describe(), _described(providers), _described(models))

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
    ) -> UsageSeries:
        """Use over time. Beyond the `top` largest groups
        the rest is one series "other". A chart begins where rows of its step begin. Days follow `tz` while hour
        rows are kept, the ledger's own zone before that. `every` steps are one bucket, by the clock: 6 hours from
        midnight on, 7 days from Monday on. Raises ValueError for more than MAX_POINTS steps.
        """
        names: tuple[Field, ...] = (by,) if by else ()
        _bounded(by, frm, to, filters)
        with self._port.read() as reader:
            have = reader.kept()
            local = Days(tz) if tz and frm >= have.hours else reader.days()
            if by in LABELS and (step == "minute" or (step == "hour" and not hourly(by, filters))):
                raise ValueError(f"use by {by} is not kept by the {step}")
            frm = max(frm, {"minute": have.minutes, "hour": have.hours, "day": 0}[step])
            start, stop = widen(frm, to, _KEPT_FOR[step], local)
            slices = _chart_slices(step, start, stop, local, reader.days())
            buckets = _buckets(step, start, stop, local)
            heads = _heads(step, every, buckets, local)
            buckets = list(dict.fromkeys(heads.values()))
            place = _placer(step, local)

            @cache  # lines have their rows in the same buckets
            def drawn_at(at: int) -> int:
                return heads.get(place(at), at)

            if by and by not in LABELS and adds_up(metric) and any(_is_long(part) for part in slices):
                chart = _long_lines(reader, slices, filters, by, drawn_at, buckets, metric, top, local)
            else:
                found = reader.rows(slices, filters, names, timed=takes_time(metric))
                chart = lines(found, drawn_at, buckets, metric, top)
        return UsageSeries(start, stop, step, every, str(local.zone), metric, buckets, chart)

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
    ) -> list[GroupSums]:
        """The groups with most of `metric`, largest first.

        Not `timed`, percentiles and endings are left out, which halves the time.
        """
        _bounded(by, frm, to, filters)
        with self._port.read() as reader:
            slices, _, _ = self._slices(reader, frm, to, by, filters)
            found = gathered(reader.rows(slices, filters, (by,), apart=False, timed=timed or takes_time(metric)))
        order = sorted(found, key=lambda names: (-(measure(metric, found[names]) or 0), names))[:limit]
        return [Sums.together(found[names], full=timed).of_group(names[0]) for names in order]

    def matrix(
        self,
        frm: float,
        to: float,
        filters: Filters = _DEFAULT,
        *,
        accounts: Collection[str] | None = None,
        limit: int = 2_000,
    ) -> list[AccountUser]:
        """Who uses which account, most tokens first. `accounts` = of these alone: adding up what each person used of
        each of hundreds is most of the work."""
        with self._port.read() as reader:
            slices, _, _ = self._slices(reader, frm, to)
            rows = reader.rows(slices, filters, ("user", "account"), apart=False, timed=False)
            found = _groups(row for row in rows if accounts is None or row[1][1] in accounts)
        order = sorted(found.items(), key=lambda item: (-item[1].all_tokens, item[0]))
        return [
            AccountUser(
                **msgspec.structs.asdict(sums.tokens()), user=user, account=account, total_tokens=sums.all_tokens
            )
            for (user, account), sums in order[:limit]
        ]

    def shared_use(self, frm: float, to: float, owners: Mapping[str, str], *, person: str = "") -> SharedUses:
        """Who gave and who took; `owners` maps an account to its owner's id. With `person`, of this one alone."""

        def told(row: RollupRow) -> bool:
            user, account = row[1]
            return not person or user == person or owners.get(account) == person

        with self._port.read() as reader:
            slices, _, _ = self._slices(reader, frm, to)
            rows = reader.rows(slices, Filters(), ("user", "account"), apart=False, timed=False)
            found = _groups(filter(told, rows))
        return SharedUses(found, owners)

    def uses(self, frm: float, to: float) -> dict[str, list[UsedHere]]:
        """By account: who used it when, in the finest buckets that are kept."""
        found: dict[str, list[UsedHere]] = {}
        with self._port.read() as reader:
            slices, _, _ = self._slices(reader, frm, to)
            for part in slices:
                seconds = _GRAIN_SECONDS[part.grain]
                for at, (user, account), raw in reader.rows([part], Filters(), ("user", "account"), timed=False):
                    told = Sums.decode(raw).brief()
                    used = UsedHere(at, seconds, user, told.total_tokens, told.cost_usd, told.unpriced)
                    found.setdefault(account, []).append(used)
        return found

    def window_history(self, frm: float, to: float) -> dict[str, list[Sighting]]:
        """By account: the sightings of the longest window of the whole account."""
        found: dict[str, list[Sighting]] = {}
        with self._port.read() as reader:
            for one in reader.series():
                if one.scope or one.window == CREDITS:
                    continue
                seen = reader.sightings(one, frm, to, MOST_SIGHTINGS)
                known = found.get(one.account)
                if seen and (known is None or seen[-1].seconds > known[-1].seconds):
                    found[one.account] = seen
        return found

    def by_hour(self, frm: float, to: float) -> list[tuple[int, float]]:
        """(begin of the hour, what it used at list prices), of hours that used something; in tokens where nothing that
        was used has a price."""
        for metric in _WEIGHTS:
            found = self.series(None, "hour", frm, to, tz="UTC", metric=metric)
            values = found.series[0].values if found.series else []
            hours = [(at, value) for at, value in zip(found.buckets, values, strict=False) if value]
            if hours:
                return hours
        return []

    def heatmap(
        self, frm: float, to: float, filters: Filters = _DEFAULT, *, tz: str = "", metric: Metric = "tokens"
    ) -> WeekHours:
        """The hours of the week, from hour rows."""
        where = zone(tz or self._timezone)
        with self._port.read() as reader:
            have = reader.kept()
            start, stop = widen(max(frm, have.hours), to, _KEPT_FOR["hour"], reader.days())
            cells: list[list[list[bytes]]] = [[[] for _ in range(24)] for _ in range(7)]
            for bucket, _, raw in reader.rows([Slice(b"h", start, stop)], filters, timed=takes_time(metric)):
                moment = datetime.fromtimestamp(bucket, where)
                cells[moment.weekday()][moment.hour].append(raw)
        return WeekHours(start, stop, str(where), metric, [[measure(metric, raws) for raws in day] for day in cells])

    def _slices(
        self, reader: UsageReader, frm: float, to: float, by: Field | None = None, filters: Filters = _DEFAULT
    ) -> tuple[list[Slice], int, int]:
        """Slices of a range; of labels there are hours at most, of a user's only days."""
        days = reader.days()
        have = reader.kept()
        if by in LABELS:
            have = Kept(minutes=_NEVER, hours=have.hours if hourly(by, filters) else _NEVER)
        start, stop = widen(frm, to, have, days)
        end = days.after(stop) if start < stop and reader.nothing_since(stop) else stop
        slices = cover(start, end, days)
        return slices if by in LABELS else reader.with_months(slices, days), start, stop


def _chart_slices(step: Step, start: int, stop: int, local: Days, kept: Days) -> list[Slice]:
    """Days and hours of another zone than the ledger's are put together from its hours."""
    if step == "minute" or local.eras == kept.eras or kept.all_in(local.zone, start, stop):
        return cover_at(step, start, stop, kept)
    return [Slice(b"h", start, stop)]


def _is_long(part: Slice) -> bool:
    return part.grain == b"d" and part.stop - part.start > LONG_S


def _long_lines(
    reader: UsageReader,
    slices: Sequence[Slice],
    filters: Filters,
    by: Field,
    drawn_at: Callable[[int], int],
    buckets: Sequence[int],
    metric: Metric,
    top: int,
    days: Days,
) -> list[SeriesLine]:
    """What `lines` draws of many days, without reading every group's days: months say which groups are the largest,
    only those are read by the day, and the rest is what remains of the whole."""
    order = ranked(reader.rows(reader.with_months(slices, days), filters, (by,), apart=False, timed=False), metric)

    def line(only: Filters) -> dict[int, int]:
        return one_line(reader.rows(slices, only, timed=False), drawn_at, metric)

    named = [(title(names), line(msgspec.structs.replace(filters, **{by: names[0]}))) for names in order[:top]]
    if len(order) > top:
        named.append((OTHER, rest_of(line(filters), [values for _, values in named])))
    return drawn(named, buckets, metric)


def _bounded(by: Field | None, frm: float, to: float, filters: Filters) -> None:
    """Raises ValueError for everybody's keys or conversations over more time than can be read at once."""
    if by in LABELS and LABELS[by][0] is None and filters.user is None and to - frm > LABEL_RANGE_S:
        raise ValueError(f"use by {by} is told of one user, or of at most {LABEL_RANGE_S // 86_400} days")


def _buckets(step: Step, start: int, stop: int, days: Days) -> list[int]:
    """The start of every bucket of a chart, also of empty ones."""
    if (stop - start) // STEP_SECONDS[step] > MAX_POINTS:
        raise ValueError(f"a range of {stop - start} s has more than {MAX_POINTS} steps of a {step}")
    buckets = []
    at = start
    while at < stop:
        buckets.append(at)
        # Hours begin with their day: where clocks change by half an hour its last one is shorter.
        at = days.after(at) if step == "day" else min(at + STEP_SECONDS[step], days.after(at))
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
            group = (days.date(at).toordinal() + 6) // every, 0
        elif step == "hour":  # of the clock, which jumps on two days a year
            group = (midnight, days.date(at).hour // every)
        else:
            group = (midnight, (at - midnight) // STEP_SECONDS[step] // every)
        heads[at] = first.setdefault(group, at)
    return heads


def _placer(step: Step, days: Days) -> Callable[[int], int]:
    """Which chart bucket a row belongs to."""
    if step == "day":
        return days.start
    return days.hour if step == "hour" else int


def _sum(reader: UsageReader, slices: Sequence[Slice], filters: Filters) -> Sums:
    return Sums.together([raw for _, _, raw in reader.rows(slices, filters, apart=False)], full=True)


def _groups(found: Iterable[RollupRow]) -> dict[tuple[str, ...], Sums]:
    """The counts of each group of rows."""
    return {names: Sums.together(raws, full=False) for names, raws in gathered(found).items()}


def _described(found: dict[tuple[str, ...], Sums]) -> dict[str, UsageSums]:
    return {names[0]: sums.describe() for names, sums in sorted(found.items())}
