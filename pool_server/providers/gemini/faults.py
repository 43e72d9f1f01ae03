"""Google's error details and quota buckets (google.rpc.Status; Code Assist's own reasons)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.enums import FaultKind, FaultScope, Source
from pool_server.core.models import Fault, WindowObservation
from pool_server.providers.base import UsageAnswer
from pool_server.providers.faults import ErrorFacts, build, common, effective_status, is_challenge, read_error
from pool_server.providers.json_fields import as_list, as_object, as_text
from pool_server.providers.times import (
    DAY,
    HOUR,
    MINUTE,
    duration,
    moment,
    number,
    pacific_midnight,
    retry_after,
    wait_in_text,
)
from pool_server.providers.windows import percent

HINT_CAP = DAY
SHORT_WAIT = 5 * MINUTE  # the vendor's client waits so long itself; longer is a used-up quota
_NO_LIMIT = re.compile(r"\blimit: 0(?![\d.])", re.I)  # the tier does not have the model at all

# ErrorInfo reasons (google.api.ErrorReason and Code Assist's own) → what they mean.
_REASONS: dict[str, tuple[FaultKind, FaultScope]] = {
    "TOS_VIOLATION": (FaultKind.SUSPENDED, FaultScope.ACCOUNT),
    "CONSUMER_SUSPENDED": (FaultKind.SUSPENDED, FaultScope.ACCOUNT),
    "VALIDATION_REQUIRED": (FaultKind.NEEDS_USER, FaultScope.ACCOUNT),
    "SERVICE_DISABLED": (FaultKind.NEEDS_USER, FaultScope.ACCOUNT),
    "BILLING_DISABLED": (FaultKind.PAYMENT, FaultScope.ACCOUNT),
    "API_KEY_INVALID": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "ACCESS_TOKEN_EXPIRED": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "CREDENTIALS_MISSING": (FaultKind.AUTH, FaultScope.ACCOUNT),
    "SECURITY_POLICY_VIOLATED": (FaultKind.PERMISSION, FaultScope.ACCOUNT),
    "MODEL_CAPACITY_EXHAUSTED": (FaultKind.CAPACITY, FaultScope.MODEL),
    "INSUFFICIENT_G1_CREDITS_BALANCE": (FaultKind.PAYMENT, FaultScope.MODEL),
}


class GoogleErrorDetails(msgspec.Struct, frozen=True):
    """What the `details` of a google.rpc error say. `delay` and `reset` are seconds: when to try again, and when
    the quota itself begins anew."""

    reason: str = ""
    delay: float | None = None
    reset: float | None = None
    quotas: str = ""  # ids and metrics of violated quotas, lower case
    model: str = ""


def read_details(
    error: Mapping[str, Any], message: str, headers: Mapping[str, str], *, now: float
) -> GoogleErrorDetails:
    """Reason and delay: RetryInfo, then ErrorInfo's metadata, then the text, then Retry-After."""
    reason = model = quotas = ""
    retry = reset = None
    for item in as_list(error.get("details"))[:50]:
        detail = as_object(item)
        kind = as_text(detail.get("@type")).rpartition(".")[2]
        if kind == "RetryInfo":
            retry = duration(detail.get("retryDelay"))
        elif kind == "ErrorInfo":
            metadata = as_object(detail.get("metadata"))
            reason = as_text(detail.get("reason")).upper()[:80] or reason
            model = as_text(metadata.get("model"))[:120] or model
            quotas += " " + as_text(metadata.get("quota_limit")).lower()
            reset = _reset(metadata, now)
        elif kind == "QuotaFailure":
            for violation in as_list(detail.get("violations"))[:50]:
                entry = as_object(violation)
                quotas += f" {entry.get('quotaId', '')} {entry.get('quotaMetric', '')}".lower()[:400]
                model = as_text(as_object(entry.get("quotaDimensions")).get("model"))[:120] or model
    delay = next((d for d in (retry, reset, wait_in_text(message), retry_after(headers, now=now)) if d), None)
    return GoogleErrorDetails(reason, delay, reset, quotas, model.lower())


def _reset(metadata: Mapping[str, Any], now: float) -> float | None:
    delay = duration(metadata.get("quotaResetDelay"))
    if delay is None:
        at = moment(metadata.get("quotaResetTimeStamp"))
        delay = at - now if at is not None and at > now else None
    return delay


def classify(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of the Gemini API or Code Assist means."""
    facts = read_error(headers, body)
    status = effective_status(status, facts)
    if is_challenge(status, headers, body, facts):
        return common(status, headers, body, facts, now=now, model=model)
    details = read_details(facts.error, facts.message, headers, now=now)
    known = _REASONS.get(details.reason)
    if known is not None and known[0] is not FaultKind.CAPACITY:
        return build(*known, facts, status, model=model, family=details.model, code=details.reason)
    text = facts.message[:1000].lower()
    if known is not None or (status in (429, 503) and "no capacity" in text):
        at = _at(details.delay, now, SHORT_WAIT)
        return build(FaultKind.CAPACITY, FaultScope.MODEL, facts, status, retry_at=at, model=model, code=details.reason)
    if status == 429:
        return _limited(status, facts, details, now=now, model=model)
    return _refusal(status, facts, text, model) or common(
        status, headers, body, facts, now=now, model=model, cap=HINT_CAP
    )


def _at(delay: float | None, now: float, cap: float) -> float | None:
    """Delays are rounded up to whole seconds: asking a fraction too early costs another refusal."""
    return None if delay is None or delay <= 0 else now + min(math.ceil(delay), cap)


def _limited(status: int, facts: ErrorFacts, details: GoogleErrorDetails, *, now: float, model: str) -> Fault:
    scope = FaultScope.MODEL  # every quota of Google's is counted per model
    family, code = details.model, details.reason
    if _NO_LIMIT.search(facts.message[:4000]):
        return build(
            FaultKind.MODEL_UNSUPPORTED, scope, facts, status, model=model, family=family, code=code or "limit_0"
        )
    daily = any(word in details.quotas for word in ("perday", "per_day", "daily"))
    long = details.delay is not None and details.delay > SHORT_WAIT
    if daily or long or details.reason == "QUOTA_EXHAUSTED":
        # a day's quota often comes with a delay of seconds, which only invites the next refusal
        at = _at(details.reset if daily else details.delay, now, HINT_CAP) or pacific_midnight(now)
        return build(FaultKind.QUOTA, scope, facts, status, retry_at=at, model=model, family=family, code=code)
    wait = _at(details.delay, now, SHORT_WAIT)
    if wait is None and ("perminute" in details.quotas or "per_minute" in details.quotas):
        wait = now + MINUTE
    return build(FaultKind.RATE, scope, facts, status, retry_at=wait, model=model, family=family, code=code)


def _refusal(status: int, facts: ErrorFacts, text: str, model: str) -> Fault | None:
    """Refusals that only their words tell apart."""
    if status in (400, 401, 403) and ("api key not valid" in text or "api key expired" in text):
        return build(FaultKind.AUTH, FaultScope.ACCOUNT, facts, status)
    if status == 403 and "reported as leaked" in text:
        return build(FaultKind.NEEDS_USER, FaultScope.ACCOUNT, facts, status)
    if status in (400, 403) and "user location is not supported" in text:
        return build(FaultKind.PERMISSION, FaultScope.ACCOUNT, facts, status)
    if status == 403 and ("violation of" in text and "terms of service" in text):
        return build(FaultKind.SUSPENDED, FaultScope.ACCOUNT, facts, status)
    if status == 404 and "requested entity was not found" in text and model:
        return build(FaultKind.NOT_FOUND, FaultScope.MODEL, facts, status, model=model)
    if status == 499:  # Google cancelled it; the vendor's client tries again
        return build(FaultKind.TRANSIENT, FaultScope.NONE, facts, status)
    return None


def from_usage(data: Mapping[str, Any], *, now: float) -> UsageAnswer:
    """The answer of `retrieveUserQuota`: a day's share left per model."""
    windows: list[WindowObservation] = []
    for item in as_list(data.get("buckets"))[:500]:
        bucket = as_object(item)
        left = number(bucket.get("remainingFraction"))
        model = as_text(bucket.get("modelId")).lower().removeprefix("models/")[:120]
        if left is None or not model:
            continue
        reset = moment(bucket.get("resetTime"))
        resets_at = None if reset is None else min(reset, now + DAY + HOUR)
        kind = as_text(bucket.get("tokenType")).upper()
        name = "1d" if kind in ("", "REQUESTS") else f"1d {kind.lower()[:24]}"
        windows.append(
            WindowObservation(name, DAY, percent(100 * (1 - left)), resets_at, Source.USAGE_ENDPOINT, now, model)
        )
    return UsageAnswer(windows=tuple(windows))
