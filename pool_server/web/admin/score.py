"""The terms of an account's score as sentences with their numbers, from a row of `Accounts.describe()`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pool_server.accounts.describe import QuotaWindowRow
from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.texts import format, labels


class Term(NamedTuple):
    """One term: what it is about in this account's own figures, and what it adds."""

    words: str
    value: str


def terms(row: Mapping[str, Any], now: float) -> tuple[Term, ...]:
    """ "Its week ends in 4 d with 83 % unused: +0.22", the largest effect first."""
    ranked = sorted(row["terms"].items(), key=lambda item: -abs(item[1]))
    return tuple(Term(_words(name, row, now), f"{value:+.2f}") for name, value in ranked)


def standing(row: Mapping[str, Any], back: str = "") -> str:
    """Why an account is or is not selected now: "Not selected: 5-hour window used up, back at 16:20"."""
    words = labels.standing(row)
    return _("{words}, back at {back}", words=words, back=back) if back and row.get("refusal") else words


def _words(name: str, row: Mapping[str, Any], now: float) -> str:
    match name:
        case "pace":
            return _pace(row, now)
        case "room":
            fullest = max(_known(row), key=lambda window: window.used_percent or 0, default=None)
            if fullest is not None:
                name = labels.window(fullest.window, fullest.scope)
                return _(
                    "Its {name} window is {used_percent} used",
                    name=name,
                    used_percent=format.percent(fullest.used_percent),
                )
        case "in_flight":
            return ngettext("{n} request in flight", "{n} requests in flight", row["in_flight"])
        case "latency" if row.get("latency_ms") is not None:
            return _("Answers begin after {latency_ms}", latency_ms=format.took(row["latency_ms"]))
    plain = labels.TERMS.get(name, name)
    return plain[:1].upper() + plain[1:]


def _pace(row: Mapping[str, Any], now: float) -> str:
    """The longest window that says when it ends: it weighs most."""
    ends = [window for window in _known(row) if (window.resets_at or 0) > now]
    longest = max(ends, key=lambda window: window.seconds, default=None)
    if longest is None:
        return _("The pace of its windows")
    unused = format.percent(max(0.0, 100 - (longest.used_percent or 0)))
    left = format.duration((longest.resets_at or now) - now)
    return _(
        "Its {window} ends in {left} with {unused} unused",
        window=labels.window(longest.window, longest.scope),
        left=left,
        unused=unused,
    )


def _known(row: Mapping[str, Any]) -> list[QuotaWindowRow]:
    return [w for w in row["windows"] if w.used_percent is not None and w.window != "credits"]
