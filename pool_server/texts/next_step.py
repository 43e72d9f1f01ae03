"""The one thing to do about an account, for its owner and the operator: from a row of `Accounts.describe()`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool_server.core.enums import AccountState, CredentialKind, FaultKind, Refusal
from pool_server.language import Words
from pool_server.language import gettext as _

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


def next_step(row: Mapping[str, Any], now: float, back: str = "", *, owner: bool = False) -> str:
    """What somebody does about the account, or what it waits for, in the reader's language; "" when there is nothing.
    `back` is the moment of its return as the page writes moments, `owner` says that its owner reads it."""
    kind = CredentialKind(row["kind"])
    match AccountState(row["state"]):
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


def _cooling(row: Mapping[str, Any], back: str) -> str:
    whole = next((rest for rest in row["rests"] if not rest["scope"]), None)
    done = _COOLDOWNS.get(FaultKind(whole["kind"])) if whole is not None else ""
    return f"{done} {_again(back)}" if done else _wait(back)


def _ready(row: Mapping[str, Any], kind: CredentialKind, now: float, back: str, *, owner: bool) -> str:
    refusal = Refusal(row["refusal"]) if row.get("refusal") else None
    if refusal is Refusal.EXPIRED:
        renewed = _("Wait: its sign-in is being refreshed.")
        return f"{renewed} {_again(back)}" if row["can_refresh"] else _SIGNED_OUT[kind]
    if refusal is not None:
        return (_OWN.get(refusal) if owner else "") or _READY.get(refusal) or _wait(back)
    if row.get("unreachable_until"):
        return _(
            "Look at this server’s network or the account’s proxy if its host stays silent; it is asked by itself."
        )
    ends = row.get("sign_in_ends")
    if ends and ends - now < SIGN_IN_WARNED_S and row["can_refresh"]:
        return _("Sign in again before this sign-in ends; no refresh puts that off.")
    return ""
