"""What is told and recorded where the pool cannot serve: one outcome for one event, and whole sentences."""

from __future__ import annotations

import pytest

from pool_server.accounts import Decision
from pool_server.core.enums import Conduct, Denial, ErrorKind, FaultKind, Outcome, Provider, Refusal, Strategy
from pool_server.core.models import ClientError, Fault
from pool_server.gateway import final_error
from pool_server.providers.evidence.table import EVIDENCE, ToldAs
from pool_server.users import Denied

NOW = 1_790_000_000.0
ENDS = (".", "!", "?", "…")
REFUSED = {
    ErrorKind.BAD_REQUEST, ErrorKind.TOO_LARGE, ErrorKind.UPGRADE,
}  # fmt: skip
OUTCOMES = {
    Outcome.REQUEST_FAULT: REFUSED,
    Outcome.EXHAUSTED: {ErrorKind.RATE, ErrorKind.EXHAUSTED},
    Outcome.NO_ACCOUNT: {ErrorKind.NO_ACCOUNT},
    Outcome.UPSTREAM: {ErrorKind.UNREACHABLE},
    Outcome.DENIED: {ErrorKind.AUTH, ErrorKind.FORBIDDEN, ErrorKind.LIMIT, ErrorKind.BUSY},
    Outcome.CUT: {ErrorKind.DRAINING, ErrorKind.CUT},
}
ASKED = {ErrorKind.NOT_FOUND: Outcome.REQUEST_FAULT, ErrorKind.CONTINUATION: Outcome.UPSTREAM}
UNASKED = {ErrorKind.NOT_FOUND: Outcome.NO_ACCOUNT, ErrorKind.CONTINUATION: Outcome.REQUEST_FAULT}


def outcome(kind: ErrorKind, attempted: bool, own_words: bool = False) -> Outcome:
    return final_error.outcome_of(ClientError(kind, "m", 400, own_words=own_words), attempted=attempted)


@pytest.mark.parametrize("kind", list(ErrorKind))
@pytest.mark.parametrize("attempted", [False, True])
def test_one_event_has_one_outcome(kind: ErrorKind, attempted: bool) -> None:
    """`attempted`: an account was asked, over whichever transport."""
    by_kind = {kind: outcome for outcome, kinds in OUTCOMES.items() for kind in kinds}
    assert outcome(kind, attempted) is (by_kind | (ASKED if attempted else UNASKED))[kind]
    assert outcome(kind, True, own_words=True) is Outcome.REQUEST_FAULT, "the provider's own words are the request's"


def decision(**refused: int) -> Decision:
    return Decision(None, None, Strategy.BALANCED, [], refused={Refusal(name): n for name, n in refused.items()})


@pytest.mark.parametrize("kind", list(FaultKind))
@pytest.mark.parametrize("said", ["it broke", "it broke.", "why?", "", "wait…"])
def test_whatever_a_provider_says_the_error_is_whole_sentences(kind: FaultKind, said: str) -> None:
    fault = Fault(kind, message=said, status=500)
    told = final_error.unserved(decision(), [fault], (Provider.CLAUDE,), "m", NOW)
    assert told.own_words or told.message.endswith(ENDS)
    assert ".." not in told.message and told.message.strip() == told.message
    told_as = {ToldAs.RATE: ErrorKind.RATE, ToldAs.QUOTA: ErrorKind.EXHAUSTED}.get(EVIDENCE[kind].told)
    assert told_as is None or told.kind is told_as, "a rate limit is no quota"
    assert final_error.cut(Provider.CLAUDE, [fault]).message.endswith(ENDS)


@pytest.mark.parametrize("refusal", list(Refusal))
@pytest.mark.parametrize("back", [None, NOW + 60])
@pytest.mark.parametrize("model", ["", "m"])
def test_whatever_keeps_accounts_from_serving_is_told_in_whole_sentences(
    refusal: Refusal, back: float | None, model: str
) -> None:
    found = decision(**{refusal.value: 1})
    found.retry_at = back
    told = final_error.unserved(found, [], (Provider.CLAUDE,), model, NOW)
    assert told.message.endswith(ENDS) and told.message[0].isupper()
    limited = refusal in (Refusal.RATE_LIMITED, Refusal.RETURNING) and back is not None
    assert (told.kind is ErrorKind.RATE and "rate limited" in told.message) >= limited, "a rate limit is no quota"


@pytest.mark.parametrize("denial", list(Denial))
def test_what_the_pool_denies_is_no_quota_of_a_provider(denial: Denial) -> None:
    told = final_error.denied(Denied(denial, "your limit is reached", 429, NOW + 60))
    kinds = {401: ErrorKind.AUTH, 403: ErrorKind.FORBIDDEN, 429: ErrorKind.LIMIT, 503: ErrorKind.NO_ACCOUNT}
    assert told.kind is kinds[told.status] and told.code == denial.value and told.retry_at == NOW + 60


@pytest.mark.parametrize(
    ("conduct", "error", "told"),
    [
        (Conduct.REPEATS, ClientError(ErrorKind.FORBIDDEN, "no", 403), (400, "no")),
        (Conduct.REPEATS, ClientError(ErrorKind.NOT_FOUND, "no", 404), (400, "no")),
        (Conduct.REPEATS, ClientError(ErrorKind.LIMIT, "no", 429, NOW + 7200), (429, "no")),
        (Conduct.WAITS, ClientError(ErrorKind.FORBIDDEN, "no", 403), (403, "no")),
        (Conduct.WAITS, ClientError(ErrorKind.LIMIT, "no", 429, NOW + 7200), (403, "no. It returns in 2h.")),
        (Conduct.WAITS, ClientError(ErrorKind.EXHAUSTED, "No.", 429, NOW + 62), (403, "No. It returns in 62s.")),
        (Conduct.WAITS, ClientError(ErrorKind.RATE, "It is rate limited.", 429), (403, "It is out of room.")),
        (Conduct.WAITS, ClientError(ErrorKind.LIMIT, "no", 429, NOW + 60), (429, "no")),
        (Conduct.USUAL, ClientError(ErrorKind.LIMIT, "no", 429, NOW + 7200), (429, "no")),
    ],
)
def test_a_program_that_would_not_stop_is_told_in_a_form_that_stops_it(
    conduct: Conduct, error: ClientError, told: tuple[int, str]
) -> None:
    found = final_error.as_heard(error, conduct, NOW)
    assert (found.status, found.message) == told
    assert found == error or (found.retry_at is None and "rate_limit" not in found.code)
