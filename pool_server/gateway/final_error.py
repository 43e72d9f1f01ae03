"""What the client is told when the pool cannot serve: one honest error. Pure."""

from __future__ import annotations

from pool_server.accounts import Decision
from pool_server.core.enums import Denial, ErrorKind, FaultKind, Provider, Refusal
from pool_server.core.models import ClientError, Fault
from pool_server.gateway.http.body import SpoolFullReason
from pool_server.users import Denied

_OPERATOR = frozenset({Refusal.NEEDS_LOGIN, Refusal.SUSPENDED, Refusal.DISABLED, Refusal.EXPIRED})
_UNFIT = frozenset({Refusal.MODEL_NOT_SERVED, Refusal.PLAN_UNFIT, Refusal.TRANSPORT})
_OUT = frozenset({FaultKind.QUOTA, FaultKind.RATE, FaultKind.PAYMENT, FaultKind.CAPACITY})
_ACCOUNT = frozenset({FaultKind.AUTH, FaultKind.PERMISSION, FaultKind.SUSPENDED, FaultKind.NEEDS_USER})
_MODEL = frozenset({FaultKind.NOT_FOUND, FaultKind.MODEL_UNSUPPORTED})
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


def unserved(
    decision: Decision, fault: Fault | None, providers: tuple[Provider, ...], model: str, now: float
) -> ClientError:
    """The error when no account is left to try. `now` in unix seconds decides how a return is worded."""
    provider = providers[0] if providers else None
    name = " or ".join(_concerned(decision, providers)) or "fitting"
    refusals = {candidate.refusal for candidate in decision.candidates if candidate.refusal is not None}
    if decision.hard_lost:
        message = "The account that holds this conversation cannot serve now; send the conversation again in full."
        return ClientError(ErrorKind.CONTINUATION, message, 400, code="previous_response_not_found", provider=provider)
    if fault is not None and fault.kind in _MODEL:
        return _no_model(name, model, provider)
    if fault is None or fault.kind in _OUT | _ACCOUNT:
        if decision.retry_at is not None:
            return exhausted(name, decision.retry_at, provider)
        if fault is not None and fault.kind in _OUT:
            return exhausted(name, fault.retry_at or now + _RETRY_S, provider)
        if refusals and refusals <= _UNFIT | {Refusal.PROVIDER}:
            return _no_model(name, model, provider)
        return _no_account(name, refusals, fault, provider)
    if fault.kind is FaultKind.NETWORK:
        message = f"{name} could not be reached: {fault.message or 'no answer'}."
        return ClientError(ErrorKind.UNREACHABLE, message, 502, now + _RETRY_S, provider=provider)
    if decision.retry_at is not None and Refusal.COOLING in refusals and fault.kind is not FaultKind.OVERLOAD:
        return exhausted(name, decision.retry_at, provider)
    message = f"{name} cannot answer now: {fault.message or fault.kind.value}."
    return ClientError(ErrorKind.UNREACHABLE, message, 503, fault.retry_at or now + _RETRY_S, fault.code, provider)


def _concerned(decision: Decision, providers: tuple[Provider, ...]) -> list[str]:
    """The vendors whose accounts could have served, else the one whose call this is."""
    vendors = [candidate.account.partition(":")[0] for candidate in decision.candidates]
    return list(dict.fromkeys(vendors)) or [one.value for one in providers[:1]]


def exhausted(name: str, retry_at: float, provider: Provider | None) -> ClientError:
    """Every account is out until `retry_at` (unix seconds); each dialect says when that is in its own way."""
    message = f"Every {name} account of the pool is out of room."
    return ClientError(ErrorKind.EXHAUSTED, message, 429, retry_at, "usage_limit_reached", provider)


def _no_model(name: str, model: str, provider: Provider | None) -> ClientError:
    message = f"No {name} account of the pool offers the model {model[:80]!r}."
    return ClientError(ErrorKind.NOT_FOUND, message, 404, code="model_not_found", provider=provider)


def _no_account(name: str, refusals: set[Refusal], fault: Fault | None, provider: Provider | None) -> ClientError:
    if Refusal.NOT_FORCED in refusals:
        message = "The account asked for by X-Pool-Account cannot serve this request."
    elif Refusal.NEEDS_LOGIN in refusals or (fault is not None and fault.kind in _ACCOUNT):
        message = f"No {name} account of the pool is signed in; the operator must sign one in again."
    elif refusals & _OPERATOR:
        message = f"Every {name} account of the pool is switched off or stopped; the operator must enable one."
    else:
        message = f"The pool has no {name} account; the operator must put a credential file into its pool folder."
    return ClientError(ErrorKind.NO_ACCOUNT, message, 503, provider=provider)


def resend() -> ClientError:
    """A conversation that nobody can go on with by an id."""
    message = "This conversation must be sent again in full."
    return ClientError(ErrorKind.CONTINUATION, message, 400, code="previous_response_not_found")
