"""Google's fault rules, error details and quota buckets (google.rpc.Status; Code Assist's own reasons)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.enums import FaultKind, Source
from pool_server.core.models import Fault, WindowObservation
from pool_server.providers.base import UsageAnswer
from pool_server.providers.evidence.rules import FaultRule, FaultTable, Of, QuotaLimit, Refused, ResetTime, classify
from pool_server.providers.evidence.shared import SHARED
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
_K = FaultKind


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


def limit(refused: Refused) -> QuotaLimit:
    """Which quota of Google's refused, and when it begins anew: each is counted for one model."""
    facts, now = refused.facts, refused.now
    details = read_details(facts.error, facts.message, refused.headers, now=now)
    if refused.kind is _K.CAPACITY:
        return QuotaLimit(retry_at=_at(details.delay, now, SHORT_WAIT))
    if refused.kind is not _K.RATE:
        return QuotaLimit(family=details.model)
    daily = any(word in details.quotas for word in ("perday", "per_day", "daily"))
    long = details.delay is not None and details.delay > SHORT_WAIT
    if daily or long or details.reason == "QUOTA_EXHAUSTED":
        # a day's quota often comes with a delay of seconds, which only invites the next refusal
        at = _at(details.reset if daily else details.delay, now, HINT_CAP) or pacific_midnight(now)
        return QuotaLimit(_K.QUOTA, at, details.model)
    wait = _at(details.delay, now, SHORT_WAIT)
    if wait is None and ("perminute" in details.quotas or "per_minute" in details.quotas):
        wait = now + MINUTE
    return QuotaLimit(retry_at=wait, family=details.model)


def _at(delay: float | None, now: float, cap: float) -> float | None:
    """Delays are rounded up to whole seconds: asking a fraction too early costs another refusal."""
    return None if delay is None or delay <= 0 else now + min(math.ceil(delay), cap)


_USER_MUST_ACT = (
    r"you are currently configured to use a google cloud project but lack a gemini code assist license"
    r"|you must be a named user on your organization"
    r"|(?:your|this) (?:current )?account is not eligible for gemini code assist"
    r"|your api key was reported as leaked"
)

GEMINI = FaultTable(
    "gemini",
    (
        # ErrorInfo reasons: google.api.ErrorReason and Code Assist's own.
        FaultRule(_K.SUSPENDED, Of.ACCOUNT, reason="tos_violation|consumer_suspended"),
        FaultRule(
            _K.NEEDS_USER,
            Of.ACCOUNT,
            reason="validation_required|service_disabled|subscription_required|license_required|account_not_eligible",
        ),
        FaultRule(_K.PAYMENT, Of.ACCOUNT, reason="billing_disabled"),
        FaultRule(
            _K.AUTH,
            Of.ACCOUNT,
            reason="api_key_invalid|access_token_expired|access_token_type_unsupported|credentials_missing",
        ),
        FaultRule(_K.PERMISSION, Of.ACCOUNT, reason="security_policy_violated"),
        FaultRule(_K.CAPACITY, Of.MODEL, reason="model_capacity_exhausted", reset=ResetTime.LIMIT),
        FaultRule(_K.PAYMENT, Of.MODEL, reason="insufficient_g1_credits_balance", reset=ResetTime.LIMIT),
        FaultRule(_K.CAPACITY, Of.MODEL, status=(429, 503), says=r".{0,200}\bno capacity", reset=ResetTime.LIMIT),
        # The tier does not have the model at all.
        FaultRule(
            _K.MODEL_UNSUPPORTED, Of.MODEL, status=(429,), says=r".{0,3900}\blimit: 0(?![\d.])", reset=ResetTime.LIMIT
        ),
        # Paid keys: money, and the operator's own cap on it. Both come as a rate.
        FaultRule(
            _K.PAYMENT,
            Of.ACCOUNT,
            status=(402, 403, 429),
            says=r"[^.]{0,60}\bprepa(?:yment|id) credits? (?:are|is|have been|has been) (?:depleted|exhausted|used up)"
            r"|[^.]{0,60}\bexceeded its (?:\w+ )?spend(?:ing)? (?:cap|limit)\b",
        ),
        FaultRule(_K.RATE, Of.MODEL, status=(429,), reset=ResetTime.LIMIT),
        # Sentences.
        FaultRule(_K.AUTH, Of.ACCOUNT, status=(400, 401, 403), says=r"api key (?:not valid|expired)"),
        FaultRule(_K.NEEDS_USER, Of.ACCOUNT, status=(403,), says=_USER_MUST_ACT),
        FaultRule(_K.PERMISSION, Of.ACCOUNT, status=(400, 403), says=r"user location is not supported"),
        FaultRule(
            _K.SUSPENDED,
            Of.ACCOUNT,
            status=(403,),
            says=r"[^.]{0,200}\b(?:disabled|suspended|denied)\b[^.]{0,80}\bviolation of (?:\w+ ){0,3}terms of service",
        ),
        FaultRule(
            _K.NOT_FOUND,
            Of.MODEL,
            status=(404,),
            says=r"models/\S{1,200} is not found for api version",
            reset=ResetTime.NONE,
        ),
        FaultRule(_K.TRANSIENT, status=(499,)),  # Google cancelled it; the vendor's client tries again
    ),
    limit,
    rate_cap=HINT_CAP,
    cap=HINT_CAP,
)


def of_gemini(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of the Gemini API or Code Assist means."""
    return classify(GEMINI, SHARED, status, headers, body, now=now, model=model)


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
