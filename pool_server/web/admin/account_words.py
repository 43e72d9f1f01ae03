"""An account in sentences: why it is or is not selected, the terms of its score with their numbers, and the one thing
to do about it, for its owner and the operator. Pure."""

from __future__ import annotations

from typing import NamedTuple

from pool_server.accounts.describe import AccountRow, QuotaWindowRow
from pool_server.core.enums import AccountState, CredentialKind, FaultKind, Refusal
from pool_server.language import Words, ngettext
from pool_server.language import gettext as _
from pool_server.texts import format, labels


class Term(NamedTuple):
    """One term: what it is about in this account's own figures, and what it adds."""

    words: str
    value: str


def terms(row: AccountRow, now: float) -> tuple[Term, ...]:
    """ "Its week ends in 4 d with 83 % unused: +0.22", the largest effect first."""
    ranked = sorted(row.terms.items(), key=lambda item: -abs(item[1]))
    return tuple(Term(_words(name, row, now), format.signed(value)) for name, value in ranked)


def standing(row: AccountRow, back: str = "") -> str:
    """Why an account is or is not selected now: "Not selected: 5-hour window used up, back at 16:20"."""
    refusal = row.refusal
    words = _("Taking new conversations") if refusal is None else _("Not selected: {why}", why=labels.REFUSALS[refusal])
    return _("{words}, back at {back}", words=words, back=back) if back and refusal else words


def _words(name: str, row: AccountRow, now: float) -> str:
    match name:
        case "pace":
            return _pace(row, now)
        case "room":
            fullest = max(_known(row), key=lambda window: window.used_percent or 0, default=None)
            if fullest is not None:
                name = labels.window(fullest.window, fullest.scope)
                return _(
                    "Its {name} window is {used_percent} used",
                    name=name,
                    used_percent=format.percent(fullest.used_percent),
                )
        case "in_flight":
            return ngettext("{n} request in flight", "{n} requests in flight", row.in_flight)
        case "latency" if row.latency_ms is not None:
            return _("Answers begin after {latency_ms}", latency_ms=format.took(row.latency_ms))
    plain = labels.TERMS.get(name, name)
    return plain[:1].upper() + plain[1:]


def _pace(row: AccountRow, now: float) -> str:
    """The longest window that says when it ends: it weighs most."""
    ends = [window for window in _known(row) if (window.resets_at or 0) > now]
    longest = max(ends, key=lambda window: window.seconds, default=None)
    if longest is None:
        return _("The pace of its windows")
    unused = format.percent(max(0.0, 100 - (longest.used_percent or 0)))
    left = format.duration((longest.resets_at or now) - now)
    return _(
        "Its {window} ends in {left} with {unused} unused",
        window=labels.window(longest.window, longest.scope),
        left=left,
        unused=unused,
    )


def _known(row: AccountRow) -> list[QuotaWindowRow]:
    return [w for w in row.windows if w.used_percent is not None and w.window != "credits"]


SIGN_IN_WARNED_S = 3 * 86400.0

_SIGNED_OUT = Words(
    {
        CredentialKind.OAUTH: "Sign in again.",
        CredentialKind.SETUP_TOKEN: "Make another setup token and put it in its place.",
        CredentialKind.SERVICE_ACCOUNT: "Put a working key file of the service account in its place.",
        CredentialKind.API_KEY: "Put a working key in its place.",
    }
)
# What somebody can do about a cooldown; of any other kind it is waited for.
_COOLDOWNS = Words(
    {
        FaultKind.AUTH: "If it is refused again then, sign in again.",
        FaultKind.PAYMENT: "Add credit at the vendor’s.",
        FaultKind.PERMISSION: "See at the vendor’s what its plan and organisation allow.",
        FaultKind.NETWORK: "If it lasts, look at this server’s network or the account’s proxy.",
        FaultKind.CHALLENGE: "If it lasts, give the account a proxy: the vendor’s gate turns this address away.",
        FaultKind.CLIENT: "The vendor does not serve this program with it; an API key is served.",
        FaultKind.PLAN: "See at the vendor’s what its plan covers.",
        FaultKind.SUSPENDED: "Ask the vendor why it stopped the account.",
        FaultKind.NEEDS_USER: "Its owner must act at the vendor’s, as the message says.",
    }
)
_READY = Words(
    {
        Refusal.RESERVED: "Wait: what is left is its owner’s, until a window resets.",
        Refusal.NOT_SHARED: "Nothing: its owner says with whom and when it is shared.",
        Refusal.RETURNING: "Nothing: just back, it takes a few requests at first.",
        Refusal.LOCKED: "Unlock the other account of its vendor when it is to serve again.",
    }
)
# To the owner, who goes on while others wait.
_OWN = Words(
    {
        Refusal.RESERVED: "Nothing: what is left is yours, and others wait until a window resets.",
        Refusal.NOT_SHARED: "Nothing: it serves you alone, as your terms say.",
    }
)


def next_step(row: AccountRow, now: float, back: str = "", *, owner: bool = False) -> str:
    """What somebody does about the account, or what it waits for, in the reader's language; "" when there is nothing.
    `back` is the moment of its return as the page writes moments, `owner` says that its owner reads it."""
    kind = row.kind
    match row.state:
        case AccountState.DISABLED:
            return _("Turn it on when it is to serve again.")
        case AccountState.NEEDS_LOGIN:
            return _SIGNED_OUT[kind]
        case AccountState.SUSPENDED:
            return _("Ask the vendor why it stopped the account. Nothing is sent with it until “Reset” is pressed.")
        case AccountState.PROBING:
            return _("Wait: one request is finding out whether it is well again.")
        case AccountState.DRAINING:
            return _("Nothing: its conversations go on, new ones go elsewhere until a window resets.")
        case AccountState.EXHAUSTED if kind is CredentialKind.API_KEY:
            return " ".join((_("Raise its limit or add credit at the vendor’s."), _again(back)))
        case AccountState.EXHAUSTED if back:
            return _("Wait: its window resets at {back}.", back=back)
        case AccountState.EXHAUSTED:
            return _("Wait until its window resets.")
        case AccountState.COOLING:
            return _cooling(row, back)
        case AccountState.READY:
            return _ready(row, kind, now, back, owner=owner)


def _again(back: str) -> str:
    return _("It is tried again at {back}.", back=back) if back else _("It is tried again by itself.")


def _wait(back: str) -> str:
    return _("Wait: it is tried again at {back}.", back=back) if back else _("Wait: it is tried again by itself.")


def _cooling(row: AccountRow, back: str) -> str:
    whole = next((rest for rest in row.rests if not rest.scope), None)
    done = _COOLDOWNS.get(whole.kind) if whole is not None else ""
    return f"{done} {_again(back)}" if done else _wait(back)


def _ready(row: AccountRow, kind: CredentialKind, now: float, back: str, *, owner: bool) -> str:
    refusal = row.refusal
    if refusal is Refusal.EXPIRED:
        renewed = _("Wait: its sign-in is being refreshed.")
        return f"{renewed} {_again(back)}" if row.can_refresh else _SIGNED_OUT[kind]
    if refusal is not None:
        return (_OWN.get(refusal) if owner else "") or _READY.get(refusal) or _wait(back)
    if row.unreachable_until:
        return _(
            "Look at this server’s network or the account’s proxy if its host stays silent; it is asked by itself."
        )
    ends = row.sign_in_ends
    if ends and ends - now < SIGN_IN_WARNED_S and row.can_refresh:
        return _("Sign in again before this sign-in ends; no refresh puts that off.")
    return ""
