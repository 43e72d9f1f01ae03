"""The fault rules of the Messages API. Source: observed answers."""

from __future__ import annotations

from collections.abc import Mapping

from pool_server.core.enums import FaultKind
from pool_server.core.models import Fault
from pool_server.providers.claude import quota
from pool_server.providers.evidence.rules import FaultRule, FaultTable, Of, QuotaLimit, Refused, ResetTime, classify
from pool_server.providers.evidence.shared import SHARED
from pool_server.providers.evidence.vendors import CODED
from pool_server.providers.times import HOUR, retry_after, until

_K = FaultKind
SHORT_CAP = 5 * HOUR  # a 429 that names no window is believed for the shortest window at most (18 days were seen)
_PAYING = (400, 402, 403, 429)


def limit(refused: Refused) -> QuotaLimit:
    """A rejected account-wide window stops the account, a rejected model window the family; where none of them is
    rejected it is a short limit of this model."""
    headers, now = refused.headers, refused.now
    windows = tuple(quota.from_headers(headers, now=now, scope=quota.family(refused.model)))
    rejected = quota.refused(headers, now)
    if not rejected:
        return QuotaLimit(windows=windows)
    wide = [window for window in rejected if not window.scope]
    binding = wide or rejected
    longest = max(window.seconds for window in binding)
    ends = [until(window.resets_at, now=now, cap=window.seconds) for window in binding]
    told = retry_after(headers, now=now)
    if told is not None:
        ends.append(now + min(told, longest))
    return QuotaLimit(
        _K.QUOTA,
        max((end for end in ends if end is not None), default=None),
        family="" if wide else binding[0].scope,
        wide=bool(wide),
        windows=windows if all(window in windows for window in rejected) else (*windows, *rejected),
    )


CLAUDE = FaultTable(
    "claude",
    (
        # Asks for what the request may leave out; no window is used up.
        FaultRule(_K.REQUEST, status=(429,), says=r"usage credits are required for fast mode"),
        # What the plan does not cover: long contexts, other programs than the vendor's, anything once it is used up.
        FaultRule(
            _K.PLAN,
            status=_PAYING,
            says=r"[^.]{0,120}\b(?:extra usage|usage credits) (?:is|are) (?:required|needed|not enabled|disabled)"
            r"|(?:you're |you are |this account is )?out of (?:extra usage|usage credits)"
            r"|[^.]{0,120}\bdraws? from (?:your )?(?:extra usage|usage credits)"
            r"|[^.]{0,120}\b(?:not (?:included in|covered by|available (?:on|with|in))|beyond) your (?:\w+ )?plan\b"
            r"|the long context beta is not (?:yet )?available for this subscription"
            r"|this credential is only authorized for use with claude code",
        ),
        FaultRule(_K.PAYMENT, Of.ACCOUNT, status=(400, 402, 403), says=r"your credit balance is too low"),
        FaultRule(
            _K.QUOTA,
            Of.ACCOUNT,
            status=_PAYING,
            says=r"you have reached your specified (?:\w+ )?api usage limits",
            reset=ResetTime.DATED,
        ),
        FaultRule(
            _K.AUTH,
            Of.ACCOUNT,
            status=(401, 403),
            says=r"(?:the |your )?(?:oauth )?(?:access )?token (?:has been revoked|has expired|revoked)"
            r"|invalid (?:bearer token|x-api-key)",
        ),
        FaultRule(
            _K.NEEDS_USER,
            Of.ACCOUNT,
            status=(403,),
            says=r"oauth authentication is currently not allowed for this organization",
        ),
        FaultRule(_K.NOT_FOUND, Of.MODEL, status=(404,), type="not_found_error", says=r"model: \S{1,200}$"),
        *CODED,  # an address of somebody else's that speaks this API has codes of its own
    ),
    limit,
    rate_cap=SHORT_CAP,
)


def of_claude(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of the Messages API means to a Claude account."""
    return classify(CLAUDE, SHARED, status, headers, body, now=now, model=model)
