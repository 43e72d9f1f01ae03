"""The charts: each a table of values, the sentence that says what one sees in it, and its look. Pure.

The page's script draws what `Chart.drawing` says, the same values as the table's, to the same digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from typing import NamedTuple

import msgspec

from pool_server.language import Words
from pool_server.language import gettext as _
from pool_server.ledger import Percentiles, SeriesLine, UsageSeries
from pool_server.texts import format
from pool_server.web.base.shared.names import Names, colours

Values = Sequence[float | None]
LEAST_CUT = 0.25  # of a chart, empty at its beginning, is not drawn
BEFORE = "before"  # the key and the colour of the line of the range before
SPANS = Words(
    {"24h": "in the last 24 hours", "7d": "in the last 7 days", "30d": "in the last 30 days",
     "1y": "in the last year", "custom": "in this range"}
)  # fmt: skip
LONG_DAYS = 70  # beyond so many days, the axis names months


class ChartLine(NamedTuple):
    """One line of a chart: its name, the class of its colour, its values, and what they come to in words."""

    key: str
    name: str
    colour: str
    values: Values
    total: str


class Point(NamedTuple):
    """One step of the time axis: its words, and what the axis says there ("" = nothing)."""

    label: str
    tick: str


class DrawnLine(msgspec.Struct):
    name: str
    colour: str
    values: list[float | None]


class Drawing(msgspec.Struct, omit_defaults=True):
    """What the page's script draws: the labels and ticks of the time axis, and a value a step of each line. `at`: where
    each step begins and the last one ends, in unix seconds, of a chart whose bars can be opened."""

    labels: list[str]
    ticks: list[str]
    lines: list[DrawnLine]
    at: list[float] = []


class Chart(NamedTuple):
    """`unit` is what the values are called in a heading; `kind` how a value is written: count, money, percent, ms."""

    id: str
    title: str
    sentence: str
    unit: str
    kind: str
    stacked: bool
    points: tuple[Point, ...]
    lines: tuple[ChartLine, ...]
    at: tuple[float, ...] = ()  # see `Drawing`

    @property
    def empty(self) -> bool:
        return not any(value for line in self.lines if line.key != BEFORE for value in line.values)

    def cell(self, value: float | None) -> str:
        """A value as the table lists it: every digit, nothing but the figure."""
        if value is None:
            return ""
        return format.figure(f"{value * FACTOR.get(self.kind, 1):,.{DIGITS.get(self.kind, 0)}f}")

    def drawing(self) -> str:
        """What is drawn, as JSON."""
        factor, digits = FACTOR.get(self.kind, 1), DIGITS.get(self.kind, 0)
        lines = [
            DrawnLine(line.name, line.colour, [None if v is None else round(v * factor, digits) for v in line.values])
            for line in self.lines
        ]
        labels, ticks = [point.label for point in self.points], [point.tick for point in self.points]
        found = Drawing(labels, ticks, lines, [*self.at])
        return msgspec.json.encode(found).decode()


DIGITS = {"money": 2, "percent": 1}  # of a kind's values, as table and drawing have them
FACTOR = {"percent": 100}
SHORT: dict[str, Callable[[float | None], str]] = {
    "count": format.count,
    "money": format.money,
    "percent": lambda v: _("unknown") if v is None else format.percent(100 * v),
    "ms": lambda v: _("unknown") if v is None else format.took(v),
}


def points(chart: UsageSeries, where: tzinfo) -> tuple[Point, ...]:
    """The time axis of an answer of the ledger, in the viewer's zone."""
    step, buckets, every = chart.step, chart.buckets, chart.every
    long = step == "day" and len(buckets) * every > LONG_DAYS
    return tuple(_point(datetime.fromtimestamp(at, where), step, len(buckets), every, long=long) for at in buckets)


def _point(at: datetime, step: str, count: int, every: int, *, long: bool) -> Point:
    weekday, named = format.weekday(at), format.month(at)
    day = _("{weekday} {day} {month}", weekday=weekday, day=at.day, month=named)
    if step == "day":
        if long:
            label = _("{day} {year}", day=day, year=at.year)
            label = _("week of {day}", day=label) if every == 7 else label
            tick = _("{month} {year}", month=named, year=at.year) if at.month == 1 else named
            return Point(label, tick if at.day <= every else "")
        return Point(day, _("{day} {month}", day=at.day, month=named) if at.weekday() == 0 or count <= 10 else "")
    clock = format.time_of_day(at)
    if step == "minute":
        if every < 30:
            return Point(clock, clock if at.minute % 15 == 0 else "")
        return Point(f"{weekday} {clock}", clock if at.hour % 3 == 0 and at.minute == 0 else "")
    if count <= 50 and every == 1:
        return Point(f"{weekday} {clock}", clock if at.hour % 3 == 0 else "")
    return Point(f"{day} {clock}", f"{weekday} {at.day}" if at.hour == 0 else "")


def begins(chart: UsageSeries) -> int:
    """The bucket with which charts by day begin: years without any use before the first are not drawn."""
    count = len(chart.buckets)
    first = next((i for i in range(count) if any(line.values[i] for line in chart.series)), 0)
    return first if chart.step == "day" and first > LEAST_CUT * count else 0


def cut(chart: UsageSeries, first: int) -> UsageSeries:
    """A chart without its first buckets."""
    lines = [SeriesLine(line.key, line.values[first:]) for line in chart.series]
    return msgspec.structs.replace(chart, buckets=chart.buckets[first:], series=lines)


def use(
    chart: UsageSeries,
    field: str | None,
    names: Names,
    where: tzinfo,
    span: str,
    *,
    quiet: bool = False,
    before: tuple[str, UsageSeries] | None = None,
) -> Chart:
    """Tokens or dollars over time, stacked by person, model, provider or account. `quiet` = its beginning is cut;
    `before` = the range before as one line, with its name."""
    kind = "money" if chart.metric == "cost" else "count"
    unit = _("US dollars at API prices") if kind == "money" else _("tokens")
    lines = [line for line in chart.series if any(line.values)]
    classes = colours(field, [line.key for line in lines], names.book)
    drawn = tuple(
        ChartLine(line.key, names(field, line.key), classes[line.key], line.values,
             SHORT[kind](line.total))
        for line in lines
    )  # fmt: skip
    axis = points(chart, where)
    sentence = _use_sentence(drawn, axis, kind, span, chart, field)
    if quiet:
        sentence += " " + _("Nothing was used before {label}.", label=axis[0].label)
    if before is not None:
        drawn += (_before(*before, len(axis), kind),)
    return Chart("use", _("Use over time"), sentence, unit, kind, True, axis, drawn, (*chart.buckets, chart.to))


def _before(name: str, chart: UsageSeries, count: int, kind: str) -> ChartLine:
    """The last `count` steps: a change of clocks makes one range longer than the other."""
    values = [value or 0.0 for value in _only(chart)][-count:]
    total = SHORT[kind](sum(value or 0 for value in values))
    return ChartLine(BEFORE, name, BEFORE, [*[None] * (count - len(values)), *values], total)


def _use_sentence(
    lines: Sequence[ChartLine], axis: Sequence[Point], kind: str, span: str, chart: UsageSeries, field: str | None
) -> str:
    sums = [sum(line.values[i] or 0 for line in lines) for i in range(len(axis))]
    total = sum(sums)
    if not total:
        return _("Nothing was used {span}.", span=span)
    most = max(range(len(sums)), key=sums.__getitem__)
    what = SHORT[kind](total) if kind == "money" else format.of_tokens(total)
    when, peak = _when(chart, axis, most), SHORT[kind](sums[most])
    words = _("{what} {span}, the most {when} ({peak})", what=what, span=span, when=when, peak=peak)
    if len(lines) > 1:
        share = 100 * sum(value or 0 for value in lines[0].values) / total
        name = format.isolated(lines[0].name)
        said = _("; {share} of it by {name}") if field == "user" else _("; {share} of it is {name}")
        words += said.format(share=format.percent(share), name=name)
    return words + "."


def _when(chart: UsageSeries, axis: Sequence[Point], i: int) -> str:
    label = axis[i].label
    if chart.step != "day":
        return _("at {time}", time=label)
    return _("in the {week}", week=label) if chart.every == 7 else _("on {day}", day=label)


def cache(chart: UsageSeries, share: float | None, where: tzinfo) -> Chart:
    """The share of what was sent that came from a cache; `share` of the whole range, 0 to 1, None: nothing was sent."""
    values = _only(chart)
    known = [(value, i) for i, value in enumerate(values) if value is not None]
    axis = points(chart, where)
    sentence = _("Nothing was sent, so nothing could come from a cache.")
    if share is not None and known:
        low, at = min(known)
        sentence = _("{share} of all input tokens came from a cache", share=format.percent(100 * share))
        if len(known) > 1 and low < share - 0.05:
            sentence += _(", the least {when} ({low})", when=_when(chart, axis, at), low=format.percent(100 * low))
        sentence += "."
    line = ChartLine("all", _("from a cache"), "", values, SHORT["percent"](share))
    return Chart("cache", _("Cache reads"), sentence, _("percent of input tokens"), "percent", False, axis, (line,))


def latency(ident: str, half: UsageSeries, most: UsageSeries, spread: Percentiles | None, where: tzinfo) -> Chart:
    """How long until the first byte ("first_byte"), or until the answer was complete ("total")."""
    first = ident == "first_byte"
    sentence = _("No answer in this range, so there is nothing to time.")
    if spread:
        p50, p95 = format.took(spread.p50), format.took(spread.p95)
        sentence = (
            _("Half of all answers began within {p50}, 95 of 100 within {p95}.", p50=p50, p95=p95)
            if first
            else _("Half of all answers were complete within {p50}, 95 of 100 within {p95}.", p50=p50, p95=p95)
        )
    lines = (
        ChartLine("p50", "p50", "line-0", _only(half), SHORT["ms"](spread.p50 if spread else None)),
        ChartLine("p95", "p95", "band", _only(most), SHORT["ms"](spread.p95 if spread else None)),
    )
    title = _("Until the first byte") if first else _("Until the answer was complete")
    return Chart(ident, title, sentence, _("milliseconds"), "ms", False, points(half, where), lines)


def _only(chart: UsageSeries) -> Values:
    return chart.series[0].values if chart.series else [None] * len(chart.buckets)
