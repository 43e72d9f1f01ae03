"""What the client is told when the pool cannot serve: one honest error, worded from the decision's own record. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from pool_server import dialects
from pool_server.accounts import Decision
from pool_server.core.enums import Conduct, Denial, ErrorKind, Outcome, Provider, Refusal, SpoolFullReason
from pool_server.core.models import ClientError, Fault
from pool_server.providers import UNUSABLE
from pool_server.providers.evidence.reading import untold
from pool_server.providers.evidence.table import EVIDENCE, ToldAs
from pool_server.users import Denied

_OPERATOR = frozenset({Refusal.SUSPENDED, Refusal.DISABLED})
_UNFIT = frozenset({Refusal.MODEL_NOT_SERVED, Refusal.PLAN_UNFIT, Refusal.TRANSPORT, Refusal.PROVIDER})
_SPENT = frozenset({Refusal.EXHAUSTED, Refusal.MODEL_EXHAUSTED, Refusal.RESERVED})
_LIMITED = frozenset({Refusal.RATE_LIMITED, Refusal.RETURNING})
_RESTING = frozenset({Refusal.COOLING, Refusal.EXPIRED})
_RETRY_S = 5.0  # a 5xx asks for a pause of this length when nobody said better
_REFUSED_STATUS = {
    Denial.NO_KEY: 401,
    Denial.BAD_KEY: 401,
    Denial.EXPIRED_KEY: 401,
    Denial.REVOKED_KEY: 401,
    Denial.USER_DISABLED: 403,
    Denial.NOT_LOCAL: 403,
    Denial.PROVIDER: 403,
    Denial.MODEL: 403,
    Denial.STORE: 503,
}
_ITSELF_KIND = {400: ErrorKind.BAD_REQUEST, 401: ErrorKind.AUTH, 403: ErrorKind.FORBIDDEN, 404: ErrorKind.NOT_FOUND,
                413: ErrorKind.TOO_LARGE}  # fmt: skip

_OUTCOMES = {
    ErrorKind.BAD_REQUEST: Outcome.REQUEST_FAULT,
    ErrorKind.TOO_LARGE: Outcome.REQUEST_FAULT,
    ErrorKind.CONTINUATION: Outcome.REQUEST_FAULT,
    ErrorKind.RATE: Outcome.EXHAUSTED,
    ErrorKind.EXHAUSTED: Outcome.EXHAUSTED,
    ErrorKind.NO_ACCOUNT: Outcome.NO_ACCOUNT,
    ErrorKind.NOT_FOUND: Outcome.NO_ACCOUNT,
    ErrorKind.UNREACHABLE: Outcome.UPSTREAM,
    ErrorKind.AUTH: Outcome.DENIED,
    ErrorKind.FORBIDDEN: Outcome.DENIED,
    ErrorKind.LIMIT: Outcome.DENIED,
    ErrorKind.BUSY: Outcome.DENIED,
    ErrorKind.UPGRADE: Outcome.REQUEST_FAULT,
    ErrorKind.DRAINING: Outcome.CUT,
    ErrorKind.CUT: Outcome.CUT,
}


def outcome_of(error: ClientError, *, attempted: bool) -> Outcome:
    """How an exchange that ended with this error is recorded, over whichever transport. `attempted`: an account was
    asked."""
    if attempted and (error.own_words or error.kind is ErrorKind.NOT_FOUND):
        return Outcome.REQUEST_FAULT
    if attempted and error.kind is ErrorKind.CONTINUATION:
        return Outcome.UPSTREAM
    return _OUTCOMES[error.kind]


def as_heard(error: ClientError, conduct: Conduct, now: float) -> ClientError:
    """The error in the form that stops the program that asked; `now` in unix seconds. Codex asks after a 403 or 404 six
    times over HTTP, thirteen times where it began on a socket, and shows a 400 at once. opencode sleeps through a 429,
    and goes on at words of a rate limit or of trying again in some time; a 403 without them is shown at once."""
    if conduct is Conduct.REPEATS and error.status in (403, 404):
        return msgspec.structs.replace(error, status=400)
    left = None if error.retry_at is None else error.retry_at - now
    if conduct is not Conduct.WAITS or error.status != 429 or (left is not None and left <= dialects.PATIENCE_S + 1):
        return error
    when = f" It returns in {dialects.duration(math.ceil(left))}." if left is not None else ""
    message = f"{sentence(error.message).replace('rate limited', 'out of room')}{when}"
    code = "usage_limit_reached" if error.kind is ErrorKind.RATE else error.code
    return msgspec.structs.replace(
        error, kind=ErrorKind.FORBIDDEN, message=message, status=403, retry_at=None, code=code
    )


def denied(refusal: Denied) -> ClientError:
    """The error for a caller who is not let in, or not further."""
    status = _REFUSED_STATUS.get(refusal.denial, 429)
    kind = {401: ErrorKind.AUTH, 403: ErrorKind.FORBIDDEN, 503: ErrorKind.NO_ACCOUNT}.get(status, ErrorKind.LIMIT)
    return ClientError(kind, refusal.message, status, refusal.retry_at, code=refusal.denial.value)


_SPOOL_FULL = {
    SpoolFullReason.USER: (ErrorKind.LIMIT, 429, "Your uploads under way take all the room one user has"),
    SpoolFullReason.TOTAL: (ErrorKind.BUSY, 503, "Uploads under way take all the room this pool has for them"),
    SpoolFullReason.DESCRIPTORS: (ErrorKind.BUSY, 503, "This pool has no file left to hold the request"),
    SpoolFullReason.DISK: (ErrorKind.NO_ACCOUNT, 507, "The pool has no disk space left to hold this request"),
}


def spool_full(reason: SpoolFullReason, now: float) -> ClientError:
    """The error for a body that cannot be kept; `now` in unix seconds."""
    kind, status, message = _SPOOL_FULL[reason]
    if reason is SpoolFullReason.DISK:
        return ClientError(kind, f"{message}.", status)
    return ClientError(kind, f"{message}; try again in a moment.", status, now + _RETRY_S, code=f"spool_{reason.value}")


def sockets_full(most: int, now: float) -> ClientError:
    """One WebSocket more than a user may have."""
    message = f"You have {most} WebSockets open, the most of one user; close one and try again."
    return ClientError(ErrorKind.LIMIT, message, 429, now + _RETRY_S, code="sockets")


def frames_full(now: float) -> ClientError:
    """A WebSocket message that there is no room for."""
    message = "There is no room for a message of this size just now; try again in a moment."
    return ClientError(ErrorKind.BUSY, message, 503, now + _RETRY_S, code="messages")


def whole_account() -> ClientError:
    """A call of the families that no friend may make."""
    message = "This call acts on the provider's whole account; ask the operator of this pool."
    return ClientError(ErrorKind.FORBIDDEN, message, 403, code="acts_on_whole_account")


def no_previous_response() -> ClientError:
    """The response a request goes on from is not there, or is somebody else's."""
    message = "The previous response was not found; send the conversation again in full."
    return ClientError(ErrorKind.CONTINUATION, message, 400, code="previous_response_not_found")


def holder_out(decision: Decision) -> ClientError:
    """The one account that holds what the request names cannot be asked."""
    if not decision.candidates:
        message = "This was kept by an account that is no longer in the pool."
        return ClientError(ErrorKind.NOT_FOUND, message, 404)
    message = "The account that keeps this cannot be asked now."
    return ClientError(ErrorKind.NO_ACCOUNT, message, 503, decision.retry_at)


def not_live(providers: tuple[Provider, ...]) -> ClientError:
    """A live conversation whose vendor has no account here."""
    provider = providers[0] if providers else None
    name = provider.value if provider is not None else "fitting"
    message = f"Live conversations are never translated, and the pool has no {name} key; the operator must add one."
    return ClientError(ErrorKind.NO_ACCOUNT, message, 503, provider=provider)


def unserved(
    decision: Decision,
    faults: Sequence[Fault],
    providers: tuple[Provider, ...],
    model: str,
    now: float,
    *,
    refusal: Fault | None = None,
    repeats: bool = False,
    home: bool = True,
) -> ClientError:
    """The error when no account is left to try. `faults` are those met, in their order, `refusal` one of them that is
    the request's and no account's; `now` in unix seconds; `repeats`: the client asks a 503 again and again; `home`: the
    vendor whose call this is has accounts here."""
    provider = providers[0] if providers else None
    name = " or ".join(_concerned(decision, providers)) or "fitting"
    if decision.hard_lost:
        message = "The account that holds this conversation cannot serve now; send the conversation again in full."
        return ClientError(ErrorKind.CONTINUATION, message, 400, code="previous_response_not_found", provider=provider)
    own = refusal or next((fault for fault in reversed(faults) if EVIDENCE[fault.kind].told is ToldAs.ITSELF), None)
    if own is not None:
        return itself(own, provider)
    if decision.retry_at is not None and decision.refused.keys() & (_SPENT | _LIMITED | _RESTING):
        error = _returns(decision, faults, name, provider)
        if error is not None:
            return error
    if faults:
        return _after(faults, decision, name, model, repeats, provider, now)
    return _nobody(decision, name, model, repeats, provider, home=home)


def itself(fault: Fault, provider: Provider | None, unread: str = "") -> ClientError:
    """A refusal that is the request's, in the provider's own words where it has any; `unread` says why they are not
    known."""
    status = fault.status if 400 <= fault.status < 500 else 400
    kind = _ITSELF_KIND.get(status, ErrorKind.BAD_REQUEST)
    if fault.message == untold(fault.status):
        said = f", {unread}." if unread else " and said no more."
        message = f"{provider.value if provider else 'The provider'} refused this call ({fault.message}){said}"
        return ClientError(kind, message, status, code=fault.code, provider=provider)
    return ClientError(kind, fault.message, status, code=fault.code, provider=provider, own_words=True)


def _returns(decision: Decision, faults: Sequence[Fault], name: str, provider: Provider | None) -> ClientError | None:
    """Accounts come back by themselves: out of quota or rate limited in words of their own; None where what they rest
    from says more."""
    refused, at = decision.refused, decision.retry_at
    assert at is not None
    told = {EVIDENCE[fault.kind].told for fault in faults}
    if refused.keys() & _SPENT or ToldAs.QUOTA in told:
        return exhausted(name, at, provider)
    if refused.keys() & _LIMITED or ToldAs.RATE in told:
        return limited(name, at, provider)
    if told & {ToldAs.UNREACHABLE, ToldAs.UNAVAILABLE, ToldAs.MODEL}:
        return None
    if Refusal.COOLING not in refused:
        message = f"Every {name} sign-in of the pool is being refreshed."
        return ClientError(ErrorKind.RATE, message, 429, at, "rate_limit_exceeded", provider)
    return _cooling(name, at, provider)


def _concerned(decision: Decision, providers: tuple[Provider, ...]) -> list[str]:
    """The vendors whose accounts could have served, else the one whose call this is."""
    vendors = [candidate.account.partition(":")[0] for candidate in decision.candidates]
    return list(dict.fromkeys(vendors)) or [one.value for one in providers[:1]]


def exhausted(name: str, retry_at: float, provider: Provider | None) -> ClientError:
    """Every account is out of quota until `retry_at` (unix seconds); each dialect says when that is in its own way."""
    message = f"Every {name} account of the pool is out of room."
    return ClientError(ErrorKind.EXHAUSTED, message, 429, retry_at, "usage_limit_reached", provider)


def limited(name: str, retry_at: float, provider: Provider | None) -> ClientError:
    """Every account is rate limited until `retry_at` (unix seconds)."""
    message = f"Every {name} account of the pool is rate limited."
    return ClientError(ErrorKind.RATE, message, 429, retry_at, "rate_limit_exceeded", provider)


def _cooling(name: str, retry_at: float, provider: Provider | None) -> ClientError:
    message = f"Every {name} account of the pool is cooling down after a fault."
    return ClientError(ErrorKind.RATE, message, 429, retry_at, "rate_limit_exceeded", provider)


def _after(
    faults: Sequence[Fault],
    decision: Decision,
    name: str,
    model: str,
    repeats: bool,
    provider: Provider | None,
    now: float,
) -> ClientError:
    """The error after attempts that all failed: by the last fault."""
    fault = faults[-1]
    told = EVIDENCE[fault.kind].told
    retry_at = fault.retry_at or now + _RETRY_S
    if told is ToldAs.QUOTA:
        return exhausted(name, retry_at, provider)
    if told is ToldAs.RATE:
        return limited(name, retry_at, provider)
    if told is ToldAs.MODEL:
        return itself(fault, provider)
    if told is ToldAs.ACCOUNT:
        return _nobody(decision, name, model, repeats, provider, fault)
    if told is ToldAs.UNREACHABLE:
        what = "gave no answer that can be passed on" if fault.code == UNUSABLE else "could not be reached"
        message = f"{name} {what}: {sentence(fault.message or 'no answer')}"
        return ClientError(ErrorKind.UNREACHABLE, message, 502, now + _RETRY_S, provider=provider)
    message = f"{name} cannot answer now: {sentence(fault.message or fault.kind.value)}"
    return ClientError(ErrorKind.UNREACHABLE, message, 503, retry_at, fault.code, provider)


def _nobody(
    decision: Decision,
    name: str,
    model: str,
    repeats: bool,
    provider: Provider | None,
    fault: Fault | None = None,
    home: bool = True,
) -> ClientError:
    """No account can serve, and none returns by itself: what stands in the way of each, from the decision's record."""
    refused = decision.refused.keys() - {Refusal.TRIED}
    if Refusal.NOT_FORCED in refused:
        message = "The account asked for by X-Pool-Account cannot serve this request."
        return ClientError(ErrorKind.FORBIDDEN, message, 403, code="account_unfit", provider=provider)
    if Refusal.NOT_SHARED in refused and refused <= _UNFIT | {Refusal.NOT_SHARED}:
        message = f"No {name} account of the pool is shared with you; ask the operator."
        return ClientError(ErrorKind.FORBIDDEN, message, 403, code="not_shared", provider=provider)
    elsewhere = not home and not refused & {Refusal.MODEL_NOT_SERVED, Refusal.PLAN_UNFIT}
    if refused and refused <= _UNFIT and not elsewhere:
        return _unfit(refused, model, provider)
    signed_out = refused & {Refusal.NEEDS_LOGIN, Refusal.EXPIRED}
    if signed_out or (fault is not None and not refused & _OPERATOR):
        message = f"No {name} account of the pool is signed in; the operator must sign one in again."
    elif refused & _OPERATOR:
        message = f"Every {name} account of the pool is switched off or stopped; the operator must enable one."
    elif refused and not elsewhere:
        message = f"No {name} account of the pool can serve this now; the operator's page says why."
    else:
        message = f"The pool has no {name} account; the operator must put a credential file into its pool folder."
    status = 400 if repeats else 503  # a 400 is shown at once
    return ClientError(ErrorKind.NO_ACCOUNT, message, status, provider=provider)


def _unfit(refused: set[Refusal], model: str, provider: Provider | None) -> ClientError:
    if model and refused & {Refusal.MODEL_NOT_SERVED, Refusal.PLAN_UNFIT, Refusal.TRANSPORT}:
        message = f"No account here serves {model[:80]!r}; /v1/models lists what does."
        return ClientError(ErrorKind.NOT_FOUND, message, 404, code="model_not_found", provider=provider)
    message = "No account here answers this kind of call."
    return ClientError(ErrorKind.NOT_FOUND, message, 404, code="not_served", provider=provider)


def cut(provider: Provider, faults: Sequence[Fault]) -> ClientError:
    """An answer that broke off after the client had seen some of it."""
    why = sentence(faults[-1].message) if faults else "the answer broke off."
    return ClientError(ErrorKind.CUT, f"{provider.value}: {why}", 502, provider=provider)


def sentence(text: str) -> str:
    """The text with an end."""
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def resend() -> ClientError:
    """A conversation that nobody can go on with by an id."""
    message = "This conversation must be sent again in full."
    return ClientError(ErrorKind.CONTINUATION, message, 400, code="previous_response_not_found")
