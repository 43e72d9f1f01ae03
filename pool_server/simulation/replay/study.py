"""What happened, how well a replay of it agrees, and what would have happened otherwise, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from itertools import pairwise
from typing import Any

import msgspec

from pool_server.language import marked
from pool_server.simulation.replay.allowance import Allowance
from pool_server.simulation.replay.holdings import Holding
from pool_server.simulation.replay.past import Past
from pool_server.simulation.replay.run import Findings, Replay, ReplaySums, recorded
from pool_server.simulation.replay.vendors import unused_in
from pool_server.simulation.replay.what_if import WhatIf
from pool_server.simulation.strategies import strategies
from pool_server.users.limits.periods import Calendar

Progress = Callable[[str, int, int], None]  # what is replayed, requests done, requests in all


class Variant(msgspec.Struct):
    """One past: its sums, and the least and the greatest of each over the seeds."""

    what: str
    sums: ReplaySums
    low: ReplaySums
    high: ReplaySums


class Study(msgspec.Struct):
    """`differs`: for each sum, how far the replay of what happened is from what happened (share of the latter, of all
    requests where that is nothing). `unexplained`: recorded refusals although headroom was left, which every replay
    repeats. `unknown`: accounts of whose windows nothing is known, so that they bound nothing."""

    frm: float
    to: float
    recorded: ReplaySums
    replayed: Variant
    what_ifs: list[Variant]
    differs: dict[str, float]
    unexplained: int
    unknown: list[str]
    unread: int
    gaps: list[tuple[float, float]]


def study(
    past: Past, holdings: Sequence[Holding], what_ifs: Sequence[WhatIf], *, strategy: str, seeds: int, zone: tzinfo,
    span: tuple[float, float], progress: Progress,
) -> Study:  # fmt: skip
    """Replay a past as it was, and as each what-if has it."""
    told, paid = Findings(), frozenset(one.id for one in holdings if one.paid)
    real = recorded(past, paid)
    real.unused = unused_in(holdings)
    as_it_was = WhatIf(marked("as it was"), added=[], limits={})
    variants = []
    for what in (as_it_was, *what_ifs):
        runs = []
        for seed in range(max(1, seeds)):
            replay = _replay(past, holdings, what, told, strategy, seed, zone, first=what is as_it_was and not seed)
            name = what.text if seeds == 1 else f"{what.text} ({seed + 1} of {seeds})"
            runs.append(replay.run(lambda done, name=name: progress(name, done, len(past))))  # type: ignore[misc]
        variants.append(Variant(what.text, runs[0], _each(min, runs), _each(max, runs)))
    return Study(
        *span, real, variants[0], variants[1:], differences(real, variants[0].sums), len(told.unexplained),
        [one.id for one in holdings if not one.paid and not any(w.worth is not None for w in one.windows)],
        past.unread, gaps(past.at, span),
    )  # fmt: skip


def _replay(
    past: Past, holdings: Sequence[Holding], what: WhatIf, told: Findings, strategy: str, seed: int, zone: tzinfo, *,
    first: bool,
) -> Replay:  # fmt: skip
    kind = strategies()[what.strategy or strategy]
    left = [one for one in holdings if one.id not in what.accounts] + what.added
    without = frozenset(n for user in what.users if (n := past.known(user)) is not None)
    limited = None
    if what.limited is not None:
        number = past.known(what.limited)
        limited = frozenset(() if number is None else (number,))
    allowance = Allowance(what.limits, limited, Calendar(zone)) if what.limits else None
    added = frozenset(one.id for one in what.added)
    return Replay(
        past, left, kind(seed), seed=seed, told=told, first=first, without=without, allowance=allowance, added=added
    )


def _each(of: Callable[..., Any], runs: Sequence[ReplaySums]) -> ReplaySums:
    names = ReplaySums.__struct_fields__
    return ReplaySums(**{name: of(getattr(run, name) for run in runs) for name in names})


def differences(real: ReplaySums, replayed: ReplaySums) -> dict[str, float]:
    """How far each sum of a replay is from the real one."""
    found = {}
    for name in ReplaySums.__struct_fields__:
        was, now = getattr(real, name), getattr(replayed, name)
        base = was or (real.requests if isinstance(was, int) else real.cost) or 1
        found[name] = round(abs(now - was) / base, 5)
    return found


def gaps(
    times: Sequence[float], span: tuple[float, float], *, least_s: float = 3 * 86_400.0
) -> list[tuple[float, float]]:
    """Stretches of so many days and more without any record: the ledger may lack them."""
    marks = [span[0], *times, span[1]]
    return [(a, b) for a, b in pairwise(marks) if b - a >= least_s]


def plain(found: Study) -> Mapping[str, Any]:
    """A study as plain data."""
    data: Mapping[str, Any] = msgspec.to_builtins(found)
    return data
