"""What each kind of fault is evidence of: what confirms it, how long it lasts, what ends it, what is done next.

The one table of it: the health of accounts, the data plane's next step, the errors clients get and docs/evidence.md
read it. Which answers mean which kind stands in the vendors' rules.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from pool_server.core.enums import FaultKind

MINUTE, HOUR = 60.0, 3600.0


class Confirm(StrEnum):
    """What must have been seen before anything is cooled."""

    ANSWER = "answer"  # the provider's answer says it by code or in its own fixed words
    OWN_CALL = "own_call"  # a cheap call of the account's own is refused as well
    OTHER_ACCOUNT = "other_account"  # another account serves the same request


class NextStep(StrEnum):
    """What becomes of the request."""

    PASS_ON = "pass_on"  # the client gets the answer as it is
    SECOND_OPINION = "second_opinion"  # one more account is asked; refused alike, the client gets the answer
    OTHERS = "others"  # further accounts are asked, as many as the settings allow


class CooldownEnd(StrEnum):
    """What ends a cooldown."""

    TIME = "time"  # it runs out
    ANSWER = "answer"  # the account answers a request
    PROBE = "probe"  # one half-open request is answered
    HEADROOM = "headroom"  # its quota windows show headroom
    SIGN_IN = "sign_in"  # its file brings another credential
    OPERATOR = "operator"  # the operator resets it; ends any other cooldown too


class ToldAs(StrEnum):
    """How a client hears of it when no account is left."""

    ITSELF = "itself"  # the provider's own answer
    QUOTA = "quota"  # a used-up quota, with the time of its return
    RATE = "rate"  # a rate limit, with the time of its return
    MODEL = "model"  # no account serves the model
    ACCOUNT = "account"  # what the operator must do
    UNREACHABLE = "unreachable"  # the provider could not be reached
    UNAVAILABLE = "unavailable"  # the provider cannot answer now


class Evidence(msgspec.Struct, frozen=True):
    """One row. `model` and `account` say what confirms a cooldown of the account for this operation and model, and of
    the whole account; None = never. `times` is how often another account must have served what this one refused.

    `first_s` and `longest_s` are the first and the longest cooldown in seconds where the provider names no time,
    doubled in between; `told_s` caps a time it names (None: its own quota windows do). `counts`: the fault makes the
    account look worse for ten minutes; one of the way to the provider only when another account served the request.
    """

    next: NextStep
    told: ToldAs
    model: Confirm | None = None
    account: Confirm | None = None
    times: int = 1
    first_s: float = 0.0
    longest_s: float = 0.0
    told_s: float | None = None
    ends: tuple[CooldownEnd, ...] = ()
    counts: bool = False


_REST = (CooldownEnd.TIME, CooldownEnd.PROBE, CooldownEnd.SIGN_IN)

EVIDENCE: dict[FaultKind, Evidence] = {
    FaultKind.REQUEST: Evidence(NextStep.PASS_ON, ToldAs.ITSELF),
    FaultKind.CONTINUATION: Evidence(NextStep.PASS_ON, ToldAs.ITSELF),
    FaultKind.ENCRYPTED_CONTENT: Evidence(NextStep.OTHERS, ToldAs.ITSELF),
    FaultKind.CLIENT_GONE: Evidence(NextStep.OTHERS, ToldAs.UNAVAILABLE),
    FaultKind.CLIENT: Evidence(NextStep.OTHERS, ToldAs.ITSELF),
    FaultKind.PLAN: Evidence(NextStep.OTHERS, ToldAs.ITSELF),
    FaultKind.AUTH: Evidence(
        NextStep.SECOND_OPINION,
        ToldAs.ACCOUNT,
        Confirm.OTHER_ACCOUNT,
        Confirm.OWN_CALL,
        times=3,
        first_s=30 * MINUTE,
        longest_s=30 * MINUTE,
        told_s=7 * 24 * HOUR,
        ends=_REST,
        counts=True,
    ),
    FaultKind.PERMISSION: Evidence(
        NextStep.SECOND_OPINION,
        ToldAs.ACCOUNT,
        Confirm.OTHER_ACCOUNT,
        Confirm.OWN_CALL,
        times=3,
        first_s=30 * MINUTE,
        longest_s=30 * MINUTE,
        told_s=7 * 24 * HOUR,
        ends=_REST,
        counts=True,
    ),
    FaultKind.NOT_FOUND: Evidence(
        NextStep.SECOND_OPINION,
        ToldAs.MODEL,
        Confirm.ANSWER,
        first_s=12 * HOUR,
        longest_s=12 * HOUR,
        told_s=7 * 24 * HOUR,
        ends=(CooldownEnd.TIME, CooldownEnd.ANSWER, CooldownEnd.PROBE),
    ),
    FaultKind.MODEL_UNSUPPORTED: Evidence(
        NextStep.OTHERS,
        ToldAs.MODEL,
        Confirm.ANSWER,
        Confirm.ANSWER,
        first_s=12 * HOUR,
        longest_s=12 * HOUR,
        told_s=7 * 24 * HOUR,
        ends=(CooldownEnd.TIME, CooldownEnd.ANSWER, CooldownEnd.PROBE, CooldownEnd.SIGN_IN),
    ),
    FaultKind.PAYMENT: Evidence(
        NextStep.OTHERS,
        ToldAs.QUOTA,
        Confirm.ANSWER,
        Confirm.ANSWER,
        first_s=30 * MINUTE,
        longest_s=30 * MINUTE,
        told_s=7 * 24 * HOUR,
        ends=_REST,
        counts=True,
    ),
    FaultKind.QUOTA: Evidence(
        NextStep.OTHERS,
        ToldAs.QUOTA,
        Confirm.ANSWER,
        Confirm.ANSWER,
        first_s=15 * MINUTE,
        longest_s=HOUR,
        ends=(CooldownEnd.TIME, CooldownEnd.PROBE, CooldownEnd.HEADROOM, CooldownEnd.SIGN_IN),
        counts=True,
    ),
    FaultKind.RATE: Evidence(
        NextStep.OTHERS,
        ToldAs.RATE,
        Confirm.ANSWER,
        Confirm.ANSWER,
        first_s=1.0,
        longest_s=30 * MINUTE,
        ends=(CooldownEnd.TIME, CooldownEnd.PROBE, CooldownEnd.HEADROOM, CooldownEnd.SIGN_IN),
        counts=True,
    ),
    FaultKind.CAPACITY: Evidence(
        NextStep.OTHERS,
        ToldAs.UNAVAILABLE,
        Confirm.ANSWER,
        first_s=5.0,
        longest_s=MINUTE,
        told_s=MINUTE,
        ends=(CooldownEnd.TIME, CooldownEnd.ANSWER),
        counts=True,
    ),
    FaultKind.OVERLOAD: Evidence(NextStep.OTHERS, ToldAs.UNAVAILABLE),
    FaultKind.TRANSIENT: Evidence(
        NextStep.OTHERS,
        ToldAs.UNAVAILABLE,
        Confirm.OTHER_ACCOUNT,
        Confirm.ANSWER,
        first_s=2.0,
        longest_s=MINUTE,
        told_s=5 * MINUTE,
        ends=(CooldownEnd.TIME, CooldownEnd.ANSWER),
        counts=True,
    ),
    FaultKind.NETWORK: Evidence(NextStep.OTHERS, ToldAs.UNREACHABLE, counts=True),
    FaultKind.CHALLENGE: Evidence(
        NextStep.OTHERS,
        ToldAs.UNAVAILABLE,
        None,
        Confirm.OWN_CALL,
        first_s=10.0,
        longest_s=30 * MINUTE,
        told_s=30 * MINUTE,
        ends=(CooldownEnd.TIME, CooldownEnd.ANSWER),
        counts=True,
    ),
    FaultKind.SUSPENDED: Evidence(
        NextStep.OTHERS,
        ToldAs.ACCOUNT,
        None,
        Confirm.ANSWER,
        ends=(CooldownEnd.SIGN_IN, CooldownEnd.OPERATOR),
    ),
    FaultKind.NEEDS_USER: Evidence(
        NextStep.OTHERS,
        ToldAs.ACCOUNT,
        None,
        Confirm.ANSWER,
        ends=(CooldownEnd.SIGN_IN, CooldownEnd.OPERATOR),
    ),
}

# Within an answer of success only these speak of the account that gave it; anything else is the request's.
WITHIN_AN_ANSWER = frozenset(
    {
        FaultKind.RATE,
        FaultKind.QUOTA,
        FaultKind.PAYMENT,
        FaultKind.OVERLOAD,
        FaultKind.CAPACITY,
        FaultKind.TRANSIENT,
        FaultKind.AUTH,
        FaultKind.SUSPENDED,
        FaultKind.CONTINUATION,
        FaultKind.ENCRYPTED_CONTENT,
    }
)
METERED = frozenset({FaultKind.QUOTA, FaultKind.RATE})  # ended by headroom or a half-open request, not by luck
PASSED_ON = frozenset(kind for kind, row in EVIDENCE.items() if row.next is NextStep.PASS_ON)
EARNED = frozenset(kind for kind, row in EVIDENCE.items() if row.ends and CooldownEnd.ANSWER not in row.ends)
