"""Fault classes of Codex and of OpenAI-shaped endpoints. Source: observed answers."""

from __future__ import annotations

from collections.abc import Mapping

from pool_server.core.enums import FaultKind, FaultScope
from pool_server.core.models import Fault, WindowObservation
from pool_server.providers.codex import quota
from pool_server.providers.faults import (
    TEXT_WAIT_CAP,
    ErrorFacts,
    build,
    by_code,
    common,
    effective_status,
    hint,
    is_challenge,
    read_error,
)
from pool_server.providers.times import HOUR, MONTH, WEEK, moment, number, retry_after, until

RATE_CAP = HOUR  # a short-term limit that asks for more is not one
_MONTHLY_PLANS = frozenset(("free", "go", "guest", "free_workspace", "business", "self_serve_business_usage_based"))
_SPENT = "_credits_depleted"
_LIMIT_TYPES = ("usage_limit_reached", "usage_limit_exceeded", "workspace_owner_usage_limit_reached",
                "workspace_member_usage_limit_reached")  # fmt: skip


def classify(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of the ChatGPT backend or the OpenAI API means."""
    facts = read_error(headers, body)
    status = effective_status(status, facts)
    if is_challenge(status, headers, body, facts):
        return common(status, headers, body, facts, now=now, model=model)
    if facts.says(*_LIMIT_TYPES):
        return _limit_reached(status, headers, facts, now=now, model=model)
    if facts.code.endswith(_SPENT) or facts.kind.endswith(_SPENT):
        return build(FaultKind.PAYMENT, FaultScope.ACCOUNT, facts, status)
    if facts.says("usage_not_included"):
        return build(FaultKind.MODEL_UNSUPPORTED, FaultScope.ACCOUNT, facts, status)
    if facts.says("deactivated_workspace"):
        return build(FaultKind.NEEDS_USER, FaultScope.ACCOUNT, facts, status)
    if facts.says("websocket_connection_limit_reached"):
        return build(FaultKind.TRANSIENT, FaultScope.NONE, facts, status)
    if "at capacity" in facts.message[:500].lower():
        at = hint(headers, facts, now=now, cap=TEXT_WAIT_CAP)
        return build(FaultKind.CAPACITY, FaultScope.MODEL, facts, status, retry_at=at, model=model)
    if facts.says("rate_limit_exceeded"):
        return _rate(status, headers, facts, now=now, model=model)
    if status == 429 and by_code(status, facts, model) is None:
        if any(window.used_percent >= 100 for window in quota.from_headers(headers, now=now) if not window.scope):
            return _limit_reached(status, headers, facts, now=now, model=model)
        return _rate(status, headers, facts, now=now, model=model)
    return common(status, headers, body, facts, now=now, model=model)


def _limit_reached(status: int, headers: Mapping[str, str], facts: ErrorFacts, *, now: float, model: str) -> Fault:
    windows = quota.from_headers(headers, now=now)
    scope = quota.limit_scope(headers.get("x-codex-active-limit", ""))
    if scope:  # the header names a limit by its id, its windows may go by a name
        active = headers.get("x-codex-active-limit", "").lower().replace("_", "-")
        scope = quota.limit_scope(active, headers.get(f"x-{active}-limit-name", ""))
    return build(
        FaultKind.QUOTA,
        FaultScope.MODEL if scope else FaultScope.ACCOUNT,
        facts,
        status,
        retry_at=_limit_end(headers, facts, windows, scope, now),
        model=model,
        family=scope,
        windows=tuple(windows),
    )


def _limit_end(
    headers: Mapping[str, str], facts: ErrorFacts, windows: list[WindowObservation], scope: str, now: float
) -> float | None:
    """The end of the wait in the order of trust: `resets_at`, `resets_in_seconds`, `Retry-After`, the exhausted
    window's own reset; never further off than the longest window."""
    mine = [window for window in windows if window.scope == scope and window.seconds]
    plan = str(facts.error.get("plan_type", "")).lower()
    cap = max((w.seconds for w in mine), default=MONTH if plan in _MONTHLY_PLANS else WEEK)
    told = until(moment(facts.error.get("resets_at")), now=now, cap=cap)
    if told is not None:
        return told
    for seconds in (number(facts.error.get("resets_in_seconds")), retry_after(headers, now=now)):
        if seconds is not None and seconds > 0:
            return now + min(seconds, cap)
    ends = [w.resets_at for w in mine if w.used_percent >= 100 and w.resets_at is not None and w.resets_at > now]
    return max(ends, default=None)


def _rate(status: int, headers: Mapping[str, str], facts: ErrorFacts, *, now: float, model: str) -> Fault:
    windows = quota.from_headers(headers, now=now, scope=quota.family(model) if model else "")
    at = hint(headers, facts, now=now, cap=RATE_CAP)
    return build(FaultKind.RATE, FaultScope.ACCOUNT, facts, status, retry_at=at, model=model, windows=tuple(windows))
