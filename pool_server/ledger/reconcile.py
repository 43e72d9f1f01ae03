"""A day of the ledger beside what the vendor's own books say, and what explains the difference. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pool_server.core.models import Usage

AGREED = 0.01  # a difference below this share of the larger figure is none
KINDS = ("input", "cache_read", "cache_write", "output")


class KindCompared(NamedTuple):
    """One kind of tokens: what the pool counted, what the vendor did, and theirs less ours."""

    kind: str
    ours: int
    theirs: int

    @property
    def difference(self) -> int:
        return self.theirs - self.ours

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= AGREED * max(self.ours, self.theirs)


class Reconciled(NamedTuple):
    """`reasons` explain what does not agree, the likeliest first."""

    lines: tuple[KindCompared, ...]
    reasons: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        return all(line.agrees for line in self.lines)


def reconcile(ours: Mapping[str, Any], theirs: Usage, requests: int | None = None) -> Reconciled:
    """`ours` is a sum as `Sums.describe` tells it; `requests` how many the vendor counted, None = not told."""
    lines = tuple(KindCompared(kind, ours[kind], getattr(theirs, kind)) for kind in KINDS)
    more = sum(line.difference for line in lines if not line.agrees)
    if all(line.agrees for line in lines):
        return Reconciled(lines, ())
    return Reconciled(lines, tuple(_reasons(ours, lines, more, requests)))


def _reasons(ours: Mapping[str, Any], lines: tuple[KindCompared, ...], more: int, requests: int | None) -> list[str]:
    found = []
    if ours["partial"] and more > 0:
        found.append(
            f"{_number(ours['partial'], 'exchange')} begun and cut before the final usage came: the vendor bills what "
            "was generated, the pool counted what it was told."
        )
    if ours.get("estimated"):
        found.append(f"{_number(ours['estimated'], 'exchange')} told no usage: the pool's figures are estimates.")
    if requests is not None and requests > ours["requests"]:
        other = _number(requests - ours["requests"], "request")
        found.append(f"The vendor counts {other} more than the pool: other clients use the account or organisation.")
    elif more > 0 and requests is None:
        found.append("Whatever uses this account or organisation beside the pool is in the vendor's figures alone.")
    if more < 0:
        found.append("The vendor counts less: its report may not be complete yet, or leave some products out.")
    prompt = sum(line.difference for line in lines if line.kind != "output")
    if abs(prompt) <= AGREED * sum(line.theirs for line in lines) and not lines[-1].difference:
        found.append("Prompts add up as a whole: the vendor splits them otherwise between fresh input and caches.")
    return found


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
