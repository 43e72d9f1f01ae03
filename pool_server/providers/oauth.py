"""What the token endpoints of all vendors have in common (RFC 6749 §5.2 and what they make of it)."""

from __future__ import annotations

from typing import Any

from pool_server.core.enums import FaultKind
from pool_server.core.lenient_json import read_any
from pool_server.core.models import HttpAnswer
from pool_server.language import lazy
from pool_server.providers.base import RefreshRejectedError
from pool_server.providers.evidence.reading import ErrorFacts, is_challenge, message_of, read_error
from pool_server.providers.evidence.rules import FaultTable, classify
from pool_server.providers.evidence.shared import SHARED
from pool_server.providers.times import HOUR, MINUTE, retry_after

RATE_DEFAULT = MINUTE  # a 429 without a word of when
RATE_LEAST = 5
OPERATOR_WAIT = HOUR  # what only the operator can mend is asked again this seldom

_DEAD = frozenset(
    (
        "invalid_grant", "refresh_token_expired", "refresh_token_reused", "refresh_token_invalidated",
        "unauthorized_client", "token_revoked", "access_denied",
    )
)  # fmt: skip
_CLIENT = frozenset(("invalid_client", "deleted_client", "unsupported_grant_type"))
_GEO = "unsupported_country_region_territory"
_SHARED = FaultTable("token endpoint")


def token_answer(
    answer: HttpAnswer, *, now: float, dead_statuses: frozenset[int], rate_cap: float = HOUR
) -> dict[str, Any]:
    """The JSON object of a good token answer. Raises RefreshFault; `dead_statuses` are those that mean, as JSON
    and without a better word, that the refresh token is dead; `rate_cap` bounds the wait after a 429 (seconds)."""
    if answer.status == 0:
        error = _network_words(answer)
        raise RefreshRejectedError(lazy("the token endpoint could not be reached: {error}", error=error))
    if 200 <= answer.status < 300:
        return _tokens(answer)
    facts = read_error(answer.headers, answer.body)
    raise refresh_fault(answer, facts, now=now, dead_statuses=dead_statuses, rate_cap=rate_cap)


def _network_words(answer: HttpAnswer) -> str:
    return message_of(ErrorFacts(message=answer.error or "no connection"), 0)


def _tokens(answer: HttpAnswer) -> dict[str, Any]:
    data = read_any(answer.body)
    if not isinstance(data, dict):
        raise RefreshRejectedError(lazy("the token endpoint answered something that is no JSON object"))
    for name in ("access_token", "refresh_token", "id_token", "resource_url", "scope"):
        value = data.get(name)
        if value is not None and not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise RefreshRejectedError(lazy("the token endpoint answered a {name} that cannot be one", name=name))
    return data


def refresh_fault(
    answer: HttpAnswer, facts: ErrorFacts, *, now: float, dead_statuses: frozenset[int], rate_cap: float
) -> RefreshRejectedError:
    """What a refused refresh means."""
    status, words = answer.status, message_of(facts, answer.status)
    code = facts.code or facts.kind
    if is_challenge(status, answer.headers, answer.body, facts) or facts.html:
        return RefreshRejectedError(
            lazy("the token endpoint answered a web page ({status})", status=status), retry_at=now + 5 * MINUTE
        )
    if status == 429:
        wait = retry_after(answer.headers, now=now) or RATE_DEFAULT
        return RefreshRejectedError(
            lazy("the token endpoint asks to slow down: {words}", words=words),
            retry_at=now + min(max(wait, RATE_LEAST), rate_cap),
        )
    if status >= 500 or status in (408, 425):
        return RefreshRejectedError(lazy("the token endpoint fails ({status}): {words}", status=status, words=words))
    fault = classify(_SHARED, SHARED, status, answer.headers, answer.body, now=now, model="")
    if fault.kind is FaultKind.SUSPENDED:
        return RefreshRejectedError(
            lazy("the provider stopped the account: {words}", words=words), permanent=True, suspended=True
        )
    if facts.says(_GEO):
        return RefreshRejectedError(
            lazy("the token endpoint refuses this country; give the account the proxy_url it was signed in from"),
            retry_at=now + OPERATOR_WAIT,
        )
    if code in _CLIENT:
        return RefreshRejectedError(
            lazy("the OAuth client is refused ({code}): {words}", code=code, words=words), retry_at=now + OPERATOR_WAIT
        )
    if code in _DEAD or status in dead_statuses:
        return RefreshRejectedError(
            lazy("the refresh token is refused ({code}): {words}", code=code or status, words=words), permanent=True
        )
    return RefreshRejectedError(
        lazy("the token endpoint refuses ({status}): {words}", status=status, words=words), retry_at=now + 5 * MINUTE
    )


def lead_seconds(expires_at: float, issued_at: float | None, *, longest: float, unknown: float) -> float:
    """How long before its end a token is refreshed: `longest`, at most half its life; `unknown` when the time of
    issue is not known. It hangs on the credential alone, so that a due time does not move while a timer runs."""
    if issued_at is None or issued_at >= expires_at:
        return unknown
    return min(longest, (expires_at - issued_at) / 2)
