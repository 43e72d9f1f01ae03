"""The fault rules of Codex's backend and of the OpenAI API. Source: observed answers."""

from __future__ import annotations

from collections.abc import Mapping

from pool_server.core.enums import FaultKind
from pool_server.core.models import Fault, WindowObservation
from pool_server.providers.codex import quota
from pool_server.providers.evidence.reading import ErrorFacts
from pool_server.providers.evidence.rules import FaultRule, FaultTable, Of, QuotaLimit, Refused, ResetTime, classify
from pool_server.providers.evidence.shared import SHARED
from pool_server.providers.times import MONTH, WEEK, moment, number, retry_after, until

_K = FaultKind
_MONTHLY_PLANS = frozenset(("free", "go", "guest", "free_workspace", "business", "self_serve_business_usage_based"))
_LIMIT_TYPES = (
    "usage_limit_reached|usage_limit_exceeded|workspace_owner_usage_limit_reached|workspace_member_usage_limit_reached"
)


def limit(refused: Refused) -> QuotaLimit:
    """A used-up window of the account or of a separately metered limit; a short rate limit where none is used up."""
    windows = quota.from_headers(refused.headers, now=refused.now)
    full = any(window.used_percent >= 100 for window in windows if not window.scope)
    if refused.kind is not _K.QUOTA and (refused.facts.says("rate_limit_exceeded") or not full):
        scope = quota.family(refused.model) if refused.model else ""
        return QuotaLimit(windows=tuple(quota.from_headers(refused.headers, now=refused.now, scope=scope)))
    scope = quota.limit_scope(refused.headers.get("x-codex-active-limit", ""))
    if scope:  # the header names a limit by its id, its windows may go by a name
        active = refused.headers.get("x-codex-active-limit", "").lower().replace("_", "-")
        scope = quota.limit_scope(active, refused.headers.get(f"x-{active}-limit-name", ""))
    end = _limit_end(refused.headers, refused.facts, windows, scope, refused.now)
    return QuotaLimit(_K.QUOTA, end, scope, wide=not scope, windows=tuple(windows))


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


CODEX = FaultTable(
    "codex",
    (
        FaultRule(_K.QUOTA, Of.ACCOUNT, name=_LIMIT_TYPES, reset=ResetTime.LIMIT),
        FaultRule(_K.PAYMENT, Of.ACCOUNT, name=r"\w+_credits_depleted"),
        FaultRule(_K.MODEL_UNSUPPORTED, Of.ACCOUNT, name="usage_not_included"),
        FaultRule(_K.NEEDS_USER, Of.ACCOUNT, name="deactivated_workspace"),
        FaultRule(_K.TRANSIENT, name="websocket_connection_limit_reached"),
        FaultRule(_K.CAPACITY, Of.MODEL, status=(429, 500, 503), says=r"(?:the )?(?:selected )?model is at capacity"),
        FaultRule(_K.RATE, Of.ACCOUNT, name="rate_limit_exceeded", reset=ResetTime.LIMIT),
    ),
    limit,
    rate_of=Of.ACCOUNT,
)


def of_codex(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of the ChatGPT backend or the OpenAI API means to a Codex account."""
    return classify(CODEX, SHARED, status, headers, body, now=now, model=model)
