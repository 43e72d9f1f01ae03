"""The one classifier: a vendor's rules, then those all vendors share, then the bare status.

A rule is data: what an answer must look like, and what it then is evidence of. Rules are read in order, the first
that fits decides. Patterns match from the beginning of the message and never what stands in quotes: an error may quote
a request, and a request must not be able to stop an account.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache

import msgspec

from pool_server.core.enums import FaultKind
from pool_server.core.models import (
    OF_ACCOUNT,
    OF_PROVIDER,
    OF_REQUEST,
    FamilyScope,
    Fault,
    FaultScope,
    ModelScope,
    WindowObservation,
)
from pool_server.providers.evidence.reading import ErrorFacts, is_challenge, message_of, read_error
from pool_server.providers.evidence.table import WITHIN_AN_ANSWER
from pool_server.providers.redact import short
from pool_server.providers.times import DAY, HOUR, MINUTE, WEEK, dated_reset, number, retry_after, until, wait_in_text
from pool_server.providers.windows import rate_reset

TEXT_WAIT_CAP = MINUTE  # "try again in 1.2s" is believed up to here, but in a refusal for a limit
LONGEST = 31 * DAY
_QUOTED = re.compile(r"(?<!\w)'[^'\n]{0,400}'(?!\w)|\"[^\"\n]{0,400}\"|`[^`\n]{0,400}`|“[^”\n]{0,400}”|‘[^’\n]{0,400}’")
_NAMES = re.compile(r"[`'\"“‘]([^`'\"“”‘’\s]{1,120})[`'\"”’]")
_SPAN = re.compile(r"\b(\d{1,2})[ -]?(?:hour|hr|h)\b|\b(week|month|day)|(周|月|天|小时)", re.I)
_SPANS = {"week": WEEK, "month": LONGEST, "day": DAY, "周": WEEK, "月": LONGEST, "天": DAY, "小时": 5 * HOUR}


class Of(StrEnum):
    """What a rule's fault speaks of."""

    REQUEST = "request"
    MODEL = "model"  # of the account for this model; of the request where no model is named
    ACCOUNT = "account"
    PROVIDER = "provider"


class ResetTime(StrEnum):
    """Where a rule's fault says when to come back, beside a dotted path into the body (a wait or a moment)."""

    HINT = ""  # Retry-After, else the message's "try again in"
    DATED = "dated"  # a date in the message; read in the rule's zone where it names none
    NONE = "none"  # nowhere: the cooldown's own length holds
    LIMIT = "limit"  # the vendor's own reader of quota headers and details


class QuotaLimit(msgspec.Struct, frozen=True):
    """What a vendor's quota headers or details say of a refusal. `kind` overrules the rule's; `family` names the limit
    that refused, `wide` says that it is the whole account's."""

    kind: FaultKind | None = None
    retry_at: float | None = None
    family: str = ""
    wide: bool = False
    windows: tuple[WindowObservation, ...] = ()


class Refused(msgspec.Struct, frozen=True):
    """A refusal as a vendor's limit reader gets it. `status` is the one the answer stands for."""

    status: int
    headers: Mapping[str, str]
    facts: ErrorFacts
    kind: FaultKind
    now: float
    model: str


class FaultRule(msgspec.Struct, frozen=True):
    """One row. All conditions that are given must hold.

    `name` matches the error's code or type as a whole, `code` and `type` one of them, `reason` Google's reason;
    `says` the beginning of the message (`verbatim`: with what it quotes); `has` a dotted path that must exist;
    `header` is "name: pattern".
    """

    kind: FaultKind
    of: Of = Of.REQUEST
    status: tuple[int, ...] = ()
    name: str = ""
    code: str = ""
    type: str = ""
    reason: str = ""
    says: str = ""
    verbatim: bool = False
    has: str = ""
    header: str = ""
    reset: str = ResetTime.HINT
    zone_h: int = 0  # hours east of UTC in which a date without a zone is read


class FaultTable(msgspec.Struct, frozen=True):
    """A vendor's rules. `limit` reads its quota headers and details; `rate_of` is what a bare 429 speaks of; `rate_cap`
    and `cap` bound in seconds what a rate limit and everything else may ask for."""

    vendor: str
    rules: tuple[FaultRule, ...] = ()
    limit: Callable[[Refused], QuotaLimit] | None = None
    rate_of: Of = Of.MODEL
    rate_cap: float = HOUR
    cap: float = WEEK


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.I | re.S)


def _whole(pattern: str, word: str) -> bool:
    return not pattern or (bool(word) and _pattern(pattern).fullmatch(word) is not None)


def fits(rule: FaultRule, status: int, headers: Mapping[str, str], facts: ErrorFacts, plain: str) -> bool:
    """Does the answer look as the rule says? `plain` is the message without what it quotes."""
    if rule.status and status not in rule.status:
        return False
    if rule.name and not (_whole(rule.name, facts.code) or _whole(rule.name, facts.kind)):
        return False
    if not (_whole(rule.code, facts.code) and _whole(rule.type, facts.kind) and _whole(rule.reason, facts.reason)):
        return False
    if rule.has and facts.at(rule.has) is None:
        return False
    if rule.header:
        name, _, value = rule.header.partition(": ")
        if not _pattern(value).search(headers.get(name, "")):
            return False
    text = facts.message[:2000] if rule.verbatim else plain
    return not rule.says or _pattern(rule.says).match(text) is not None


def classify(
    table: FaultTable,
    shared: tuple[FaultRule, ...],
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    model: str,
) -> Fault:
    """What an error answer of a vendor means. `status` below 400: an error within an answer of success, of which only
    the closed list speaks of the account."""
    facts = read_error(headers, body)
    within = status < 400
    status = effective_status(status, facts)
    if is_challenge(status, headers, body, facts):
        return _fault(FaultKind.CHALLENGE, OF_ACCOUNT, facts, status, code="challenge")
    plain = unquoted(facts.message)
    rule = next((r for r in (*table.rules, *shared) if fits(r, status, headers, facts, plain)), None)
    fault = _apply(rule or by_status(table, status), table, status, headers, facts, now=now, model=model)
    if rule is None:
        fault = msgspec.structs.replace(fault, bare=True)
    if within and fault.kind not in WITHIN_AN_ANSWER:
        return _fault(FaultKind.REQUEST, OF_REQUEST, facts, fault.status)
    return fault


def unquoted(message: str) -> str:
    """The beginning of a message, without what it quotes: that may be a request's."""
    return _QUOTED.sub("''", message[:2000].lstrip())


def _apply(
    rule: FaultRule,
    table: FaultTable,
    status: int,
    headers: Mapping[str, str],
    facts: ErrorFacts,
    *,
    now: float,
    model: str,
) -> Fault:
    if rule.of is Of.MODEL and rule.kind in _OF_THE_NAMED and not names(facts, model):
        return _fault(FaultKind.REQUEST, OF_REQUEST, facts, status)
    limit = QuotaLimit()
    if table.limit is not None and (rule.reset == ResetTime.LIMIT or rule.kind is FaultKind.RATE):
        limit = table.limit(Refused(status, headers, facts, rule.kind, now, model))
    kind = limit.kind or rule.kind
    scope = _scope(rule, limit, kind, model)
    retry_at = limit.retry_at
    if retry_at is None and kind not in _TIMELESS:
        retry_at = _retry_at(rule, kind, table, status, headers, facts, now)
    return _fault(kind, scope, facts, status, retry_at=retry_at, windows=limit.windows)


_MOMENT = 1e9  # seconds; no wait is so long
_OF_THE_NAMED = frozenset({FaultKind.NOT_FOUND, FaultKind.MODEL_UNSUPPORTED})
_TIMELESS = frozenset(
    {
        FaultKind.REQUEST,
        FaultKind.CONTINUATION,
        FaultKind.ENCRYPTED_CONTENT,
        FaultKind.CLIENT_GONE,
        FaultKind.CLIENT,
        FaultKind.PLAN,
        FaultKind.AUTH,
        FaultKind.NOT_FOUND,
        FaultKind.MODEL_UNSUPPORTED,
        FaultKind.SUSPENDED,
        FaultKind.NEEDS_USER,
    }
)


def _scope(rule: FaultRule, limit: QuotaLimit, kind: FaultKind, model: str) -> FaultScope:
    if limit.wide:
        return OF_ACCOUNT
    if limit.family:
        return FamilyScope(limit.family)
    if rule.of is Of.PROVIDER:
        return OF_PROVIDER
    if rule.of is Of.REQUEST:
        return OF_REQUEST
    if rule.of is Of.ACCOUNT:
        # A side call without a model has limits of its own: they say nothing of the account's models.
        return OF_REQUEST if kind is FaultKind.RATE and not model else OF_ACCOUNT
    return ModelScope(model) if model else OF_REQUEST


def _retry_at(
    rule: FaultRule,
    kind: FaultKind,
    table: FaultTable,
    status: int,
    headers: Mapping[str, str],
    facts: ErrorFacts,
    now: float,
) -> float | None:
    if rule.reset == ResetTime.NONE:
        return None
    if rule.reset == ResetTime.DATED:
        at = until(dated_reset(facts.message, zone_h=rule.zone_h), now=now, cap=_span(facts.message))
        if at is not None:
            return at
    elif rule.reset not in (ResetTime.HINT, ResetTime.LIMIT):
        seconds = number(facts.at(rule.reset))
        if seconds is not None and seconds > _MOMENT:  # of the clock, in seconds or milliseconds
            seconds = (seconds / 1000 if seconds > 1000 * _MOMENT else seconds) - now
        if seconds is not None and seconds > 0:
            return now + min(seconds, table.cap)
    cap = table.cap
    if kind is FaultKind.RATE:
        cap = table.rate_cap
    elif status >= 500:
        cap = min(cap, HOUR)
    elif kind is FaultKind.CAPACITY:
        cap = TEXT_WAIT_CAP
    told = status == 429 and kind in (FaultKind.RATE, FaultKind.QUOTA)
    at = hint(headers, facts, now=now, cap=cap, text_cap=cap if told else TEXT_WAIT_CAP)
    return until(rate_reset(headers, now=now), now=now, cap=cap) if at is None and told else at


def _span(text: str) -> float:
    """The longest a limit can last by the words of its message: "5 hour", "weekly", "monthly"; a month otherwise."""
    found = _SPAN.search(text[:400])
    if found is None:
        return LONGEST
    hours, word, sign = found.groups()
    return int(hours) * HOUR if hours else _SPANS[(word or sign).lower()]


def hint(
    headers: Mapping[str, str], facts: ErrorFacts, *, now: float, cap: float, text_cap: float = TEXT_WAIT_CAP
) -> float | None:
    """When to try again by `Retry-After` (capped) or, where it is missing, by the message's own words."""
    seconds = retry_after(headers, now=now)
    if seconds is None:
        seconds = wait_in_text(unquoted(facts.message))
        cap = min(cap, text_cap)
    return None if seconds is None or seconds <= 0 else now + min(seconds, cap)


def names(facts: ErrorFacts, model: str) -> bool:
    """Does the error speak of this model, and not of another thing it names (a tool's model, a file)?"""
    asked = model.lower()
    param = facts.error.get("param")
    if not asked or (isinstance(param, str) and param not in ("", "model")):
        return False
    named = [name.lower() for name in _NAMES.findall(facts.message[:2000])]
    return not named or any(name in asked or asked in name for name in named)


def by_status(table: FaultTable, status: int) -> FaultRule:
    """The rule of a bare status."""
    if status == 429:
        return FaultRule(FaultKind.RATE, table.rate_of, reset=ResetTime.LIMIT)
    if status == 408 or (status >= 500 and status not in _STATUSES):
        return _TRANSIENT
    return _STATUSES.get(status, _REQUEST)


_REQUEST = FaultRule(FaultKind.REQUEST)
_TRANSIENT = FaultRule(FaultKind.TRANSIENT, Of.MODEL)
_STATUSES = {
    401: FaultRule(FaultKind.AUTH, Of.ACCOUNT),
    402: FaultRule(FaultKind.PAYMENT, Of.ACCOUNT),
    403: FaultRule(FaultKind.PERMISSION, Of.ACCOUNT),
    404: FaultRule(FaultKind.NOT_FOUND),
    499: FaultRule(FaultKind.CLIENT_GONE),
    529: FaultRule(FaultKind.OVERLOAD),
}

_WORD_STATUS = {  # errors within an answer of success carry no status
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found": 404,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "usage_limit_reached": 429,
    "resource_exhausted": 429,
    "internal": 500,
    "unavailable": 503,
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "internal_error": 500,
    "internalerror": 500,
    "internal_server_error": 500,
    "internalservererror": 500,
    "service_unavailable_error": 503,
    "timeout_error": 504,
}


def effective_status(status: int, facts: ErrorFacts) -> int:
    """`status`, or for an error within an answer of success what its code or type stands for; 400 when nothing tells:
    what is not known is the request's."""
    if status >= 400:
        return status
    error = facts.error
    for value in (error.get("status_code"), error.get("status"), error.get("code")):
        declared = number(value)
        if declared is not None and 400 <= declared <= 599:
            return int(declared)
    return _WORD_STATUS.get(facts.code) or _WORD_STATUS.get(facts.kind) or 400


def _fault(
    kind: FaultKind,
    scope: FaultScope,
    facts: ErrorFacts,
    status: int,
    *,
    retry_at: float | None = None,
    code: str = "",
    windows: tuple[WindowObservation, ...] = (),
) -> Fault:
    word = code or facts.code or facts.reason.upper() or facts.kind
    return Fault(kind, scope, retry_at, short(word, 80), message_of(facts, status), status, windows)


UNUSABLE = "unusable_answer"


def unusable_answer(why: str) -> Fault:
    """An answer came whole, and nothing can be made of it; as little as with no answer is an account to blame."""
    return Fault(FaultKind.NETWORK, OF_PROVIDER, code=UNUSABLE, message=short(why))


def network_fault(exc_text: str) -> Fault:
    """No connection, cut off or timed out, in the words of the exception. It cools no account: the pool's own line may
    be the cause, and one dead line must not look like an exhausted pool."""
    return Fault(FaultKind.NETWORK, OF_PROVIDER, code="network", message=short(exc_text) or "no connection")
