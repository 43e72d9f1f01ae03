"""The states of an account and what moves it from one to another, as a table.

DISABLED is not in the table: it is the operator's word in the credential file and lies over the learnt state,
which goes on underneath, so that an account enabled again is what it would be anyway.
"""

from __future__ import annotations

from enum import StrEnum

from pool_server.core.enums import AccountState as State
from pool_server.core.enums import FaultKind, Refusal


class AccountEvent(StrEnum):
    """What can happen to an account. Together with who said so it is the evidence for a state."""

    QUOTA = "quota"  # the provider refused: used up or unpaid
    FAULT = "fault"  # any other fault that cools the whole account
    FULL = "full"  # a window read 100 % on real traffic
    LOW = "low"  # hardly any room left: no new conversations
    ROOM = "room"  # windows show room again
    RESTED = "rested"  # the cooldown is over
    ANSWERED = "answered"  # a real request was answered
    PROBE = "probe"  # a half-open request began
    PROBE_LOST = "probe_lost"  # it ended without telling anything
    LOGIN_LOST = "login_lost"  # the credential is dead for good
    STOPPED = "stopped"  # the provider stopped the account
    NEW_LOGIN = "new_login"  # the file brought another credential
    RESET = "reset"  # the operator's button


class StateActor(StrEnum):
    """Who set a state."""

    PROVIDER = "provider"  # an answer to a real request
    USAGE = "usage"  # the usage endpoint
    REFRESH = "refresh"  # the token endpoint
    CLOCK = "clock"
    OPERATOR = "operator"
    FILE = "file"


_STOPS = {AccountEvent.LOGIN_LOST: State.NEEDS_LOGIN, AccountEvent.STOPPED: State.SUSPENDED}
_FRESH = {AccountEvent.NEW_LOGIN: State.READY, AccountEvent.RESET: State.READY}
_COOLDOWNS = {
    AccountEvent.QUOTA: State.EXHAUSTED,
    AccountEvent.FAULT: State.COOLING,
    AccountEvent.FULL: State.EXHAUSTED,
}
_ENDS = {AccountEvent.ROOM: State.READY, AccountEvent.RESTED: State.READY, AccountEvent.ANSWERED: State.READY}

TRANSITIONS: dict[State, dict[AccountEvent, State]] = {
    State.READY: {**_COOLDOWNS, **_STOPS, AccountEvent.LOW: State.DRAINING},
    State.DRAINING: {**_COOLDOWNS, **_STOPS, **_FRESH, AccountEvent.ROOM: State.READY},
    State.COOLING: {**_STOPS, **_FRESH, **_ENDS, AccountEvent.PROBE: State.PROBING,
                    AccountEvent.QUOTA: State.EXHAUSTED, AccountEvent.FULL: State.EXHAUSTED},
    State.EXHAUSTED: {**_STOPS, **_FRESH, **_ENDS, AccountEvent.PROBE: State.PROBING},
    State.PROBING: {**_STOPS, **_FRESH, **_ENDS, AccountEvent.PROBE_LOST: State.COOLING,
                    AccountEvent.QUOTA: State.EXHAUSTED, AccountEvent.FAULT: State.COOLING},
    State.NEEDS_LOGIN: {**_FRESH, AccountEvent.STOPPED: State.SUSPENDED},
    State.SUSPENDED: {**_FRESH},
}  # fmt: skip


def after(state: State, event: AccountEvent) -> State:
    """The state that follows; the same one when the event means nothing to it."""
    return TRANSITIONS[state].get(event, state)


STATE_REFUSALS: dict[State, Refusal] = {
    State.COOLING: Refusal.COOLING,
    State.EXHAUSTED: Refusal.EXHAUSTED,
    State.NEEDS_LOGIN: Refusal.NEEDS_LOGIN,
    State.SUSPENDED: Refusal.SUSPENDED,
    State.PROBING: Refusal.PROBING,
    State.DISABLED: Refusal.DISABLED,
}

SCOPED_REFUSALS: dict[FaultKind, Refusal] = {
    FaultKind.RATE: Refusal.RATE_LIMITED,
    FaultKind.QUOTA: Refusal.MODEL_EXHAUSTED,
    FaultKind.PAYMENT: Refusal.MODEL_EXHAUSTED,
    FaultKind.NOT_FOUND: Refusal.MODEL_NOT_SERVED,
    FaultKind.MODEL_UNSUPPORTED: Refusal.PLAN_UNFIT,
}  # any other kind of fault: MODEL_COOLING
