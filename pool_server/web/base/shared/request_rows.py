"""Exchanges as rows of pages and answers: what, when, how much, what to do when one failed."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.core.enums import Outcome, Provider
from pool_server.core.models import Attempt, Usage, UsageRecord
from pool_server.texts import labels
from pool_server.web.base.shared.names import Names

FURTHER = (
    "cache_write_1h",
    "cache_write_12h",
    "cache_read_explicit",
    "web_searches",
    "audio_in",
    "image_in",
    "video_in",
    "audio_cache_read",
    "image_cache_read",
    "audio_out",
    "image_out",
    "other_kinds",
)
CARRIED = ("translation", "dropped", "approximated")  # of a decision: what became of the request, of no account
TONES = {Outcome.OK: "good", Outcome.CLIENT_GONE: "quiet"}


def row(record: UsageRecord) -> dict[str, Any]:
    """One exchange of the asking user. No account is named: whose it was is not theirs to see. Times: `at` unix
    seconds, the others milliseconds."""
    outcome = Outcome(record.outcome)
    usage = record.usage
    return {
        "id": record.id,
        "at": record.at,
        "provider": record.provider,
        "provider_name": labels.PROVIDERS[Provider(record.provider)] if record.provider else "",
        "model": record.model,
        "status": record.status,
        "outcome": record.outcome,
        "words": labels.OUTCOMES[outcome],
        "tone": TONES.get(outcome, "bad"),
        "message": record.message,
        "advice": labels.ADVICE[outcome],
        "usage": counts(usage),
        "total_tokens": usage.total if usage.counted else None,
        "cost_usd": record.cost,
        "cost_basis": record.cost_basis,
        "partial": record.partial,
        "first_byte_ms": record.first_byte_ms,
        "total_ms": record.total_ms,
        "agent": record.agent,
        **{name: value for name in ("answered", "tier", "speed", "geo") if (value := getattr(record, name))},
        **{name: value for name in CARRIED if (value := record.decision.get(name))},
    }


def counts(usage: Usage) -> dict[str, Any]:
    """A usage in an API answer: what every one has, and further counts where they are more than nothing."""
    return {
        "input": usage.input,
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write,
        "output": usage.output,
        "reasoning": usage.reasoning,
        "known": usage.known,
        "estimated": usage.estimated,
        **{name: value for name in FURTHER if (value := getattr(usage, name))},
    }


def shown(record: UsageRecord, names: Names, *, admin: bool) -> dict[str, Any]:
    """One exchange as its user sees it; for the admin also who, which account, the attempts and the decision."""
    own = row(record)
    if not admin:
        return own
    return {
        **own,
        "user": record.user,
        "user_name": names.user(record.user),
        "account": record.account,
        "operation": record.operation,
        "dialect": record.dialect,
        "transport": record.transport,
        "session": record.session,
        "key": record.key,
        "attempts": [_attempt(one) for one in record.attempts],
        "decision": record.decision,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(attempt)
    return told if attempt.usage is None else {**told, "usage": counts(attempt.usage)}
