"""The part of reading a usage endpoint's answer that is the same for all vendors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pool_server.core.enums import FaultKind
from pool_server.core.models import Fault, HttpAnswer
from pool_server.providers.base import UsageAnswer
from pool_server.providers.evidence.rules import network_fault
from pool_server.providers.json_fields import decode
from pool_server.providers.times import retry_after


class Classify(Protocol):
    """A provider module's `classify`."""

    def __call__(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault: ...


def usage_object(
    answer: HttpAnswer, classify: Classify, *, now: float, back_off: float, limited_back_off: float
) -> dict[str, Any] | UsageAnswer:
    """The JSON object of a good answer, else a UsageAnswer with the fault and when to ask again: after `back_off`
    seconds, after a rate limit at least `limited_back_off`, later when the provider names a later moment (of at
    most a day)."""
    if answer.status == 0:
        return UsageAnswer(fault=network_fault(answer.error), retry_at=now + back_off)
    data = decode(answer.body) if 200 <= answer.status < 300 else {}
    if data:
        return data
    # A success that is no JSON object is a broken endpoint, no error within an answer.
    fault = classify(answer.status if answer.status >= 300 else 502, answer.headers, answer.body, now=now, model="")
    limited = answer.status == 429 or fault.kind in (FaultKind.RATE, FaultKind.QUOTA)
    wait = max(limited_back_off if limited else back_off, min(retry_after(answer.headers, now=now) or 0.0, 86400.0))
    return UsageAnswer(fault=fault, retry_at=now + wait)
