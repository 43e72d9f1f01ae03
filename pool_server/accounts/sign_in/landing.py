"""Where a finished sign-in goes: into the account of the same person, into a new one, or to somebody who decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pool_server.accounts.administration.adding import (
    AccountRefusedError,
    NameTakenError,
    NewAccount,
    OtherPersonError,
    SameAccountError,
)
from pool_server.accounts.administration.service import Administration
from pool_server.accounts.sign_in.records import AccountSignIn
from pool_server.core.enums import SignInFlow, SignInState, SignInStep
from pool_server.language import LazyText, lazy, lazy_of
from pool_server.language import gettext as _
from pool_server.providers import CredentialRejectedError, provider_module

CONFIRM_S = 300.0  # how long somebody may think about another person's sign-in


class LandingError(Exception):
    """No account came of it. `confirm`: somebody may decide about `account`; `final`: no other try will help."""

    def __init__(
        self, code: str, message: LazyText, *, confirm: bool = False, account: str = "", final: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.confirm = confirm
        self.account = account
        self.final = final


class Landing:
    """Makes accounts of sign-ins. `owner_of` tells whose an account is."""

    def __init__(self, hand: Administration, *, owner_of: Callable[[str], str]) -> None:
        self._hand = hand
        self._owner_of = owner_of

    async def land(
        self, record: AccountSignIn, data: Mapping[str, Any], *, keep: bool, choice: str = ""
    ) -> dict[str, Any]:
        """→ {"id", "hosts", "test"}. Raises LandingError. `choice` is what somebody decided: "replace" or "new"."""
        target = "" if choice == "new" else record.target
        try:
            cred = provider_module(record.provider).parse(
                dict(data), f"{record.provider.value}:new", now=record.created
            )
            same = "" if choice == "new" else self._hand.same_person(cred)
            if target:
                return await self._replace(record, target, data, confirmed=choice == "replace")
            if same:
                return await self._replace(record, same, data, confirmed=False)
            return await self._add(record, data, keep=keep)
        except SameAccountError as known:
            return await self._known(record, known.account, data)
        except OtherPersonError as other:
            if record.owner and self._owner_of(other.account) != record.owner:
                raise LandingError("not_yours", lazy("this account is somebody else's"), final=True) from None
            raise LandingError("other_person", lazy("{other}. Replace it, or add it as a new account?", other=other),
                               confirm=True, account=other.account) from None  # fmt: skip
        except AccountRefusedError as refused:
            raise LandingError("test_failed", refused.told()) from None
        except CredentialRejectedError as refused:
            raise LandingError("rejected", lazy_of(refused)) from None
        except KeyError:
            raise LandingError("gone", lazy("the account it was for is no longer in the pool"), final=True) from None
        except OSError as failed:
            raise LandingError(
                "not_written", lazy("the pool folder cannot be written: {strerror}", strerror=failed.strerror)
            ) from None

    async def _known(self, record: AccountSignIn, account: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """The pool has this very sign-in, or one of the same person, in another account than expected."""
        if record.target and record.target != account:
            raise LandingError(
                "same_account", lazy("this sign-in is the account {account}", account=account), final=True
            )
        try:
            return await self._replace(record, account, data, confirmed=True)
        except (CredentialRejectedError, SameAccountError, OtherPersonError) as refused:
            raise LandingError("rejected", lazy_of(refused)) from None

    async def _replace(
        self, record: AccountSignIn, account: str, data: Mapping[str, Any], *, confirmed: bool
    ) -> dict[str, Any]:
        if record.owner and self._owner_of(account) != record.owner:
            raise LandingError("not_yours", lazy("this sign-in is an account that is somebody else's"), final=True)
        return await self._hand.replace(account, data, confirmed=confirmed)

    async def _add(self, record: AccountSignIn, data: Mapping[str, Any], *, keep: bool) -> dict[str, Any]:
        options = {"owner": record.owner, "label": record.label, "proxy_url": record.proxy_url}
        file = {**data, **{name: value for name, value in options.items() if value}}
        for name in (record.name, "") if record.name else ("",):
            new = NewAccount(record.provider, file, name)
            try:
                return await self._hand.add(new)
            except NameTakenError:
                continue
            except AccountRefusedError as refused:
                if not keep:
                    raise
                made = await self._hand.add(new, test=False)
                return {**made, "test": refused.result.row()}
        raise LandingError("name_taken", lazy("no name is free for it"), final=True)

    async def give_back(self, record: AccountSignIn, data: Mapping[str, Any]) -> None:
        """End tokens that nobody wants at their vendor."""
        try:
            cred = provider_module(record.provider).parse(
                dict(data), f"{record.provider.value}:new", now=record.created
            )
        except CredentialRejectedError:
            return
        await self._hand.revoke(cred, record.proxy_url)


def next_step(record: AccountSignIn) -> str:
    """The one thing to do now, in a sentence of the reader's language; "" when nothing is."""
    if record.state is SignInState.DONE:
        tested = record.test or {}
        return "" if tested.get("ok", True) else _("Look at what the test said; the account is in the pool.")
    if record.state is not SignInState.WAITING:
        return _("Start again.")
    match record.step:
        case SignInStep.OPEN:
            return _("Run the line on the machine where you can sign in.")
        case SignInStep.CODE if record.flow is SignInFlow.LINE:
            return _("Finish the sign-in that the line has begun.")
        case SignInStep.CODE if record.flow is SignInFlow.DEVICE:
            return _("Open the page and type the code.")
        case SignInStep.CODE:
            return _("Open the page, sign in, and paste the address the browser ends at.")
        case SignInStep.CONFIRM:
            return _("Say whether it replaces the account or becomes a new one.")
    return _("Wait a moment.")
