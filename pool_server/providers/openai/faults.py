"""The fault rules of OpenAI-compatible endpoints with an API key."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pool_server.core.enums import FaultKind
from pool_server.core.models import Fault
from pool_server.providers.codex.faults import CODEX
from pool_server.providers.evidence.rules import FaultRule, FaultTable, Of, QuotaLimit, Refused, ResetTime, classify
from pool_server.providers.evidence.shared import SHARED
from pool_server.providers.evidence.vendors import COMPATIBLE, VENDORS
from pool_server.providers.windows import rate_windows


def limit(refused: Refused) -> QuotaLimit:
    """The short rate limits of a key, which are counted for one model."""
    return QuotaLimit(windows=tuple(rate_windows(refused.headers, now=refused.now, scope=refused.model.lower())))


_OWN = tuple(rule for rule in CODEX.rules if rule.kind is not FaultKind.RATE)
OPENAI = FaultTable(
    "openai",
    (*COMPATIBLE, *_OWN, FaultRule(FaultKind.RATE, Of.MODEL, name="rate_limit_exceeded", reset=ResetTime.LIMIT)),
    limit,
)


def of_key(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of an OpenAI-compatible endpoint means to a key."""
    return classify(OPENAI, SHARED, status, headers, body, now=now, model=model)


@lru_cache(maxsize=256)
def _table(vendor: str) -> FaultTable:
    return FaultTable(vendor, (*VENDORS.get(vendor, ()), *OPENAI.rules), limit)


def of_vendor(vendor: str, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """The same at a vendor's own host: its own rules come first."""
    return classify(_table(vendor), SHARED, status, headers, body, now=now, model=model)
