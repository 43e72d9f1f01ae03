"""Weeks × strategies as one table: what each served of the most that could be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pool_server.simulation.specification import WeekSpec

WITHOUT_SCORE = "–"


def coarser(spec: WeekSpec, factor: float) -> WeekSpec:
    """The same week with requests so many times as large and as many times fewer: the same load in less time."""
    people = tuple(msgspec.structs.replace(one, cost=one.cost * factor) for one in spec.people)
    bursts = tuple(msgspec.structs.replace(one, each=max(1, round(one.each / factor))) for one in spec.bursts)
    return msgspec.structs.replace(spec, people=people, bursts=bursts)


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as `simulate` gives them, with a bound, as a table: percent served of the bound, means over what was run
    more than once; in bold what no other strategy of the week passes by a tenth of a percent."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        share = row["served_of_bound"]
        if share is not None:
            found.setdefault(row["scenario"], {}).setdefault(row["strategy"], []).append(100.0 * share)
    names = list(dict.fromkeys(name for week in found.values() for name in week))
    lines = ["| week | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for week, by_name in found.items():
        means = {name: sum(shares) / len(shares) for name, shares in by_name.items()}
        best = max(means.values())
        cells = [_cell(means.get(name), best) for name in names]
        lines.append(f"| {week} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(share: float | None, best: float) -> str:
    if share is None:
        return WITHOUT_SCORE
    return f"**{share:.1f}**" if share >= best - 0.1 else f"{share:.1f}"
