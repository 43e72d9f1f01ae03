"""The fault rules of Qwen's portal and of DashScope. Source: the vendor's CLI and documentation."""

from __future__ import annotations

from collections.abc import Mapping

from pool_server.core.enums import FaultKind
from pool_server.core.models import Fault
from pool_server.providers.evidence.rules import (
    FaultRule,
    FaultTable,
    Of,
    QuotaLimit,
    Refused,
    ResetTime,
    classify,
    hint,
)
from pool_server.providers.evidence.shared import SHARED
from pool_server.providers.evidence.vendors import COMPATIBLE, DASHSCOPE
from pool_server.providers.times import DAY, shanghai_midnight
from pool_server.providers.windows import rate_windows

_K = FaultKind
_SPENT = r"[^.\n]{0,120}\bquota exceeded\b"


def limit(refused: Refused) -> QuotaLimit:
    """A day's free quota begins anew at midnight in Shanghai; anything else is a key's short limit."""
    if refused.kind is not _K.QUOTA:
        return QuotaLimit(windows=tuple(rate_windows(refused.headers, now=refused.now, scope=refused.model.lower())))
    at = hint(refused.headers, refused.facts, now=refused.now, cap=DAY)
    daily = refused.status == 403 or "free allocated" in refused.facts.message[:1000].lower()
    return QuotaLimit(retry_at=at or (shanghai_midnight(refused.now) if daily else None))


QWEN_OWN = (
    FaultRule(_K.PAYMENT, Of.ACCOUNT, status=(400, 402, 403), says=r"[^.\n]{0,120}\b(?:overdue-payment|arrearage)\b"),
    FaultRule(_K.QUOTA, Of.ACCOUNT, status=(403, 429), name="insufficient_quota|quota_exceeded", reset=ResetTime.LIMIT),
    FaultRule(_K.QUOTA, Of.ACCOUNT, status=(403, 429), says=_SPENT, reset=ResetTime.LIMIT),
    FaultRule(
        _K.AUTH,
        Of.ACCOUNT,
        status=(401, 403),
        says=r"(?:the |your )?(?:invalid access token|(?:access )?token (?:is |has )?expired)",
    ),
)
QWEN = FaultTable("qwen", (*DASHSCOPE, *QWEN_OWN, *COMPATIBLE), limit, rate_cap=DAY)


def of_qwen(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of Qwen's portal or DashScope means."""
    return classify(QWEN, SHARED, status, headers, body, now=now, model=model)
