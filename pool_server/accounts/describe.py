"""Accounts as people need them: enum values and numbers, no texts of the pool's own and nothing secret. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from pool_server.accounts.health import windows as win
from pool_server.accounts.health.probing import probe_due
from pool_server.accounts.health.state import AccountHealth, Cooldown
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import RETURNING
from pool_server.accounts.selection.score import Candidate
from pool_server.core.enums import AccountState, Provider, Refusal
from pool_server.core.models import WindowObservation

MOST_LOOKED_AT = 64  # accounts of a cohort; a pool with more has its mean estimated from as many


def account_row(account: Account, now: float, standing: Candidate) -> dict[str, Any]:
    """One account. Times are unix seconds (`served_at`: when it last answered this worker), `latency_ms` milliseconds,
    percentages 0 to 100 and more."""
    credential, options, health, state = account.credential, account.options, account.health, account.state
    score, terms = standing.shown()
    ready = state is AccountState.READY
    return {
        "id": account.id,
        "provider": str(account.provider),
        "kind": str(credential.kind),
        "plan": credential.plan,
        "label": options.label,
        "state": str(state),
        "reason": None if ready else str(health.event),
        "message": "" if ready else health.reason,
        "set_by": str(health.actor),
        "since": health.since or None,
        "windows": [window_row(w, now) for w in sorted(health.windows.values(), key=lambda w: (w.scope, w.seconds))],
        "cooldown_until": cooldown_until(health, now),
        "unreachable_until": account.unreachable_until if account.unreachable_until > now else None,
        "rests": [
            _cooldown_row(health, scope, cooldown, now)
            for scope, cooldown in health.cooldowns.items()
            if cooldown.until > now
        ],
        "in_flight": account.in_flight,
        "expires_at": credential.expires_at,
        "admin_key": bool(credential.admin_key),
        "sign_in_ends": credential.sign_in_ends,
        "served_at": account.served_at or None,
        "can_refresh": account.refreshable,
        "last_fault": _fault_row(health),
        "latency_ms": None if health.latency is None else round(health.latency * 1000),
        "priority": options.priority,
        "weight": options.weight,
        "owner": account.owner,
        "reserve": options.reserve,
        "disabled": options.disabled,
        "score": score,
        "terms": terms,
        "refusal": str(standing.refusal) if standing.refusal else None,
        "until": standing.until,
    }  # fmt: skip


def standing_row(account: Account, refusal: Refusal | None, standing: Candidate) -> dict[str, Any]:
    """Would this account be chosen now, and why or why not."""
    score, terms = standing.shown()
    return {
        "account": account.id,
        "eligible": refusal is None,
        "refusal": str(refusal) if refusal else None,
        "until": standing.until,
        "score": score,
        "terms": terms,
        "priority": account.options.priority,
    }


def window_row(w: WindowObservation, now: float) -> dict[str, Any]:
    """One window as it reads now. `elapsed_percent` is the pace mark: the share of the window's time that is
    gone."""
    left = win.time_left(w, now)
    return {
        "window": w.window,
        "scope": w.scope,
        "seconds": w.seconds,
        "used_percent": round(win.used(w, now), 2),
        "resets_at": w.resets_at if left is not None else None,
        "elapsed_percent": round(100 * (1 - left / w.seconds), 1) if left is not None and w.seconds else None,
        "source": str(w.source),
        "observed_at": w.observed_at,
    }


def _cooldown_row(health: AccountHealth, scope: str, cooldown: Cooldown, now: float) -> dict[str, Any]:
    return {
        "scope": scope,
        "kind": cooldown.kind.value,
        "until": cooldown.until,
        "since": cooldown.since,
        "level": cooldown.level,
        "code": cooldown.code,
        "message": cooldown.message,
        "confirmed": cooldown.confirmed,
        "probe_at": probe_due(health, (scope,) if scope else (), now),
    }


def cooldown_until(health: AccountHealth, now: float) -> float | None:
    """When the whole account's cooldown ends, None without one."""
    cooldown = health.cooldown
    cooling = health.state in (AccountState.COOLING, AccountState.EXHAUSTED, AccountState.PROBING)
    return cooldown.until if cooling and cooldown is not None and cooldown.until > now else None


def _fault_row(health: AccountHealth) -> dict[str, Any] | None:
    note = health.last_fault
    if note is None:
        return None
    return {"at": note.at, "kind": note.kind.value, "code": note.code, "message": note.message,
            "status": note.status, "model": note.model}  # fmt: skip


def provider_row(provider: Provider, accounts: list[Account], standings: list[Candidate], now: float) -> dict[str, Any]:
    """One provider's accounts together. `room_percent` is the mean of what its usable accounts have left."""
    usable = [a for a, s in zip(accounts, standings, strict=True) if s.refusal is None]
    cooling = [s.until for s in standings if s.refusal in RETURNING and s.until is not None]
    room, windows = _pooled(accounts, now)
    return {
        "provider": provider.value,
        "accounts": dict(Counter(a.state.value for a in accounts)),
        "ready": len(usable),
        "total": len(accounts),
        "room_percent": None if room is None else round(room, 1),
        "windows": windows,
        "next_return": min(cooling) if cooling else None,
        "in_flight": sum(a.in_flight for a in accounts),
        "unreachable": sum(a.unreachable_until > now for a in accounts),
        "returning": sum(s.refusal is Refusal.RETURNING for s in standings),
    }


_DEAD = (AccountState.NEEDS_LOGIN, AccountState.SUSPENDED)


class _Sum:
    """One window of many accounts, added up."""

    __slots__ = ("accounts", "resets_at", "used")

    def __init__(self) -> None:
        self.accounts = 0
        self.used = 0.0
        self.resets_at: float | None = None


def _pooled(accounts: Iterable[Account], now: float) -> tuple[float | None, list[dict[str, Any]]]:
    """The mean percent left in the tightest windows of those accounts that live (None: unknown), and per window of
    whole accounts the mean use and the next reset."""
    sums: dict[tuple[int, str], _Sum] = {}
    rooms: list[float] = []
    for account in accounts:
        if account.options.disabled or account.health.state in _DEAD:
            continue
        most = -1.0
        for w in account.health.windows.values():
            if w.scope or w.window == win.CREDITS:
                continue
            percent = win.used(w, now)
            most = max(most, percent)
            group = sums.get((w.seconds, w.window))
            if group is None:
                group = sums[w.seconds, w.window] = _Sum()
            group.accounts += 1
            group.used += percent
            if w.resets_at is not None and w.resets_at > now:
                group.resets_at = min(group.resets_at or w.resets_at, w.resets_at)
        if most >= 0:
            rooms.append(max(0.0, win.FULL - most))
    rows = [
        {
            "window": name,
            "seconds": seconds,
            "accounts": group.accounts,
            "used_percent": round(group.used / group.accounts, 1),
            "resets_at": group.resets_at,
        }
        for (seconds, name), group in sorted(sums.items())
    ]
    return (sum(rooms) / len(rooms) if rooms else None), rows


def sample(accounts: Collection[Account]) -> list[Account]:
    """At most `MOST_LOOKED_AT` of the accounts, spread evenly over them."""
    step = max(1, -(-len(accounts) // MOST_LOOKED_AT))
    return list(islice(accounts, 0, None, step))


def glance(provider: Provider, accounts: list[Account], now: float) -> tuple[float | None, list[dict[str, Any]]]:
    """(percent of room left, windows) as in `Accounts.summary()`, without the rest of its row."""
    standings = [Candidate(account.id) for account in accounts]
    row = provider_row(provider, accounts, standings, now)
    return row["room_percent"], row["windows"]
