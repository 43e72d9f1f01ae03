"""Accounts added, changed, removed and brought back by the operator. The page over it is `accounts_page`."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from pool_server.accounts import (
    AccountRefusedError,
    NameTakenError,
    NewAccount,
    RefreshError,
    SameAccountError,
)
from pool_server.core.enums import Provider
from pool_server.core.models import group_names
from pool_server.language import gettext as _
from pool_server.language import localized
from pool_server.providers import Credential, CredentialRejectedError, provider_module
from pool_server.providers.keys.pasted import recognise
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler

LARGEST = (1 << 20) + (64 << 10)  # bytes: the largest credential file, and what is around it
_TEXTS = ("base_url", "auth", "region", "resource", "label", "plan_type", "proxy_url", "admin_key")
_LISTS = ("models", "dialects")
_UNASKED = "not asked: added by a program"
SECRET = frozenset(("proxy_url", "admin_key"))  # options that are told of, never shown


class AddedAccount(msgspec.Struct, forbid_unknown_fields=True):
    """What adds an account. `credential` is a file's content, as an object or as it was pasted; `provider` or `preset`
    say whose it is where that does not; `consent`: the words about a subscription were read and agreed to."""

    name: str = ""
    provider: str = ""
    preset: str = ""
    credential: dict[str, Any] | str = ""
    api_key: str = ""
    base_url: str = ""
    auth: str = ""
    dialects: list[str] | str = ""
    region: str = ""
    resource: str = ""
    models: list[str] | str = ""
    label: str = ""
    priority: int | None = None
    weight: float | None = None
    proxy_url: str = ""
    admin_key: str = ""
    plan_type: str = ""
    owner: str = ""
    reserve: float | None = None
    people: list[str] | str | None = None
    groups: list[str] | str | None = None
    disabled: bool = False
    consent: bool = False


class ChangedOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Options to set; null or "" takes one away, what is not given stays."""

    label: str | UnsetType | None = UNSET
    priority: int | UnsetType | None = UNSET
    weight: float | UnsetType | None = UNSET
    models: list[str] | str | UnsetType | None = UNSET
    proxy_url: str | UnsetType | None = UNSET
    admin_key: str | UnsetType | None = UNSET
    plan_type: str | UnsetType | None = UNSET
    owner: str | UnsetType | None = UNSET
    reserve: float | UnsetType | None = UNSET
    people: list[str] | str | UnsetType | None = UNSET
    groups: list[str] | str | UnsetType | None = UNSET
    disabled: bool | UnsetType | None = UNSET
    terms: dict[str, Any] | UnsetType | None = UNSET


class AccountChanges(PageHandler, abstract=True):
    """What the routes that change accounts have in common."""

    def user(self, said: str) -> str:
        """The id of the person that an id or a name stands for. ProblemError 422 for nobody."""
        found = self.ctx.users.people.id_of(said)
        if not found:
            raise ProblemError(
                422, "unknown_person", _("there is no person {said}; add them first", said=repr(said[:60]))
            )
        return found

    def people(self, said: list[str] | str) -> list[str] | None:
        """The ids of those who may use an account; None = everybody."""
        names = said if isinstance(said, list) else [name for one in said.split(",") if (name := one.strip())]
        return [self.user(name) for name in names] if names or isinstance(said, list) else None

    def groups(self, said: list[str] | str) -> list[str] | None:
        """The names of the groups whose members may use an account; None = everybody. ProblemError 422 for one that
        nobody is in."""
        try:
            names = group_names(said)
        except ValueError as wrong:
            raise ProblemError(422, "rejected", str(wrong)) from None
        there = self.ctx.users.groups.all() if names else {}
        if unknown := next((name for name in names if name not in there), ""):
            raise ProblemError(
                422,
                "unknown_group",
                _("nobody is in a group {unknown}; add somebody to it first", unknown=repr(unknown)),
            )
        return list(names) if names or isinstance(said, list) else None

    def known(self, account: str) -> str:
        """The account's id. ProblemError 404 where there is none."""
        if not self.ctx.accounts.knows(account):
            raise ProblemError(404, "not_found", _("there is no account {account}", account=account))
        return account


def words(said: list[str] | str) -> list[str]:
    """A list as programs give it, or as it is written into a field: by commas, spaces or lines."""
    return said if isinstance(said, list) else said.replace(",", " ").split()


def rejected(error: Exception) -> ProblemError:
    """The answer for what cannot be an account."""
    match error:
        case NameTakenError():
            return ProblemError(409, "name_taken", localized(error))
        case SameAccountError():
            return ProblemError(409, "same_account", localized(error))
        case AccountRefusedError():
            return ProblemError(422, "test_failed", localized(error.told()))
        case OSError():
            return ProblemError(
                500, "not_written", _("the pool folder cannot be written: {strerror}", strerror=error.strerror)
            )
    return ProblemError(422, "rejected", localized(error))


UNDONE = (KeyError, RefreshError, OSError)


def undone(error: Exception, account: str) -> ProblemError:
    """The answer where something could not be done with an account."""
    match error:
        case KeyError():
            return ProblemError(404, "not_found", _("there is no account {account}", account=account))
        case FileExistsError():
            return ProblemError(409, "name_taken", _("another file has the name of {account} now", account=account))
        case RefreshError():
            said = localized(error)
            return ProblemError(
                502, "refresh_failed", _("the provider did not renew the sign-in: {failed}", failed=said)
            )
        case OSError():
            return ProblemError(
                500, "not_written", _("the account's file cannot be written: {strerror}", strerror=error.strerror)
            )
    raise error


REJECTED = (NameTakenError, SameAccountError, CredentialRejectedError, OSError)


class AccountAdding(AccountChanges, abstract=True):
    """`POST`: an account is tried with one real request and its file written."""

    body_cap = LARGEST
    untested = True  # whether `?test=0` is heard

    def read(self, asked: AddedAccount) -> NewAccount:
        """The account that was asked for, its credential judged as far as that goes without sending anything. Raises
        ProblemError and CredentialRejectedError."""
        said = _provider(asked.provider or asked.preset)
        provider, data = self._credential(asked, said)
        if provider is None:
            why = (
                _("it does not tell whose it is: choose the vendor") if data else _("paste a credential or an API key")
            )
            raise ProblemError(422, "rejected", why)
        data |= {name: value for name in _TEXTS if (value := getattr(asked, name).strip())}
        data |= {name: value for name in _LISTS if (value := words(getattr(asked, name)))}
        numbers = {"priority": asked.priority, "weight": asked.weight, "reserve": asked.reserve}
        data |= {name: value for name, value in numbers.items() if value is not None}
        if asked.people is not None and (people := self.people(asked.people)) is not None:
            data["people"] = people
        if asked.groups is not None and (groups := self.groups(asked.groups)) is not None:
            data["groups"] = groups
        if asked.disabled:
            data["disabled"] = True
        if asked.owner.strip():
            data["owner"] = self.user(asked.owner.strip())
        return NewAccount(provider, data, asked.name)

    def _credential(self, asked: AddedAccount, said: Provider | None) -> tuple[Provider | None, dict[str, Any]]:
        if isinstance(asked.credential, dict):
            found = recognise(msgspec.json.encode(asked.credential).decode(), now=self.ctx.clock())
        elif pasted := asked.credential.strip() or asked.api_key.strip():
            found = recognise(pasted, now=self.ctx.clock())
        else:
            return said, {}  # a vendor on one's own machine needs no key
        if said is None or said is found.provider:
            return found.provider, dict(found.data)
        return said, _renamed(found.data, said)

    async def add(self, new: NewAccount, *, consent: bool) -> dict[str, Any]:
        """Try and write it; the audit log says who agreed to what."""
        module = provider_module(new.provider)
        test = not self.untested or self.get_query_argument("test", "1") != "0"
        try:
            cred = module.parse(new.data, f"{new.provider.value}:{new.name or 'new'}", now=self.ctx.clock())
            agreed = self._agreed(cred, consent)
            made = await self.ctx.accounts.add(new, test=test)
        except REJECTED as error:
            raise rejected(error) from None
        detail = {"kind": cred.kind.value, "hosts": made["hosts"], "tested": test}
        await self.ctx.users.audit(self.actor, "account.add", made["id"], detail | agreed)
        return made

    def _agreed(self, cred: Credential, consent: bool) -> dict[str, str]:
        """What the audit log keeps of the tick. ProblemError 422 where a person has to tick it first."""
        said = provider_module(cred.provider).consent_for(cred)
        if not said:
            return {}
        headers = self.request.headers
        person = "Cookie" in headers or "Origin" in headers or "Sec-Fetch-Site" in headers
        if person and not consent:
            raise ProblemError(
                422, "consent", _("{said} Tick that you have read this and share it all the same.", said=_(said))
            )
        return {"consent": said, "language": self.locale.code} if consent else {"consent": _UNASKED}


def _provider(said: str) -> Provider | None:
    said = said.strip().lower()
    if not said:
        return None
    try:
        return Provider(said)
    except ValueError:
        raise ProblemError(422, "rejected", _("there is no vendor {said}", said=repr(said[:40]))) from None


def _renamed(data: dict[str, Any], provider: Provider) -> dict[str, Any]:
    """A key under the name that the chosen vendor's files have for it."""
    keys = {field for one in Provider for field in provider_module(one).spec.keys.fields}
    held = [name for name in data if name in keys]
    own = provider_module(provider).spec.keys.fields
    if len(held) != 1 or not own:
        return dict(data)
    name = held[0] if held[0] in own else own[0]
    return {(name if field == held[0] else field): value for field, value in data.items()}


class NewAccounts(AccountAdding, abstract=True):
    """`POST /admin/accounts` → 201 `{"id","hosts","test"}`; 409 the name or sign-in is there, 422 rejected and why."""

    async def post(self) -> None:
        asked = self.body_as(AddedAccount)
        try:
            new = await asyncio.to_thread(self.read, asked)
        except CredentialRejectedError as error:
            raise rejected(error) from None
        self.answer(await self.add(new, consent=asked.consent), 201)

    def form_done(self, value: Any) -> None:
        self.redirect(f"/accounts?added={value['id']}", status=303)


class OneAccount(AccountChanges, access=Access.ADMIN):
    """`PATCH /admin/accounts/ID` options; `DELETE` moves its file to `.removed/`."""

    async def patch(self, account: str) -> None:
        accounts, asked = self.ctx.accounts, self.body_as(ChangedOptions)
        self.known(account)
        changes = self._changes(asked)
        try:
            await accounts.change(account, changes)
        except REJECTED as error:
            raise rejected(error) from None
        shown = {name: value for name, value in changes.items() if name not in SECRET}
        for name in SECRET & changes.keys():
            shown[name] = "set" if changes[name] else "taken away"
        await self.ctx.users.audit(self.actor, "account.change", account, shown)
        self.answer({"account": accounts.describe(account)})

    def _changes(self, asked: ChangedOptions) -> dict[str, Any]:
        given = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}
        changes: dict[str, Any] = {}
        for name, value in given.items():
            if name in ("people", "groups"):
                read = self.people if name == "people" else self.groups
                changes[name] = None if value is None else read(value)
            elif name == "models":
                changes[name] = words(value or "") or None
            elif name == "owner":
                changes[name] = self.user(value.strip()) if value and value.strip() else None
            else:
                changes[name] = value.strip() or None if isinstance(value, str) else value
        return changes

    async def delete(self, account: str) -> None:
        self.known(account)
        try:
            await self.ctx.accounts.remove(account)
        except KeyError:  # its file went meanwhile
            raise ProblemError(404, "not_found", _("there is no account {account}", account=account)) from None
        except OSError as error:
            raise rejected(error) from None
        await self.ctx.users.audit(self.actor, "account.remove", account)
        self.answer({"removed": account})

    def form_done(self, value: Any) -> None:
        if "removed" in value:
            self.redirect(f"/accounts?removed={value['removed']}", status=303)
        else:
            super().form_done(value)


class RestoredAccount(AccountChanges, access=Access.ADMIN):
    """`POST /admin/accounts/ID/restore`: the file that was removed last comes back."""

    async def post(self, account: str) -> None:
        accounts = self.ctx.accounts
        try:
            await accounts.restore(account)
        except KeyError:
            raise ProblemError(404, "not_found", _("no removed account is called {account}", account=account)) from None
        except FileExistsError as wrong:
            raise undone(wrong, account) from None
        except OSError as error:
            raise rejected(error) from None
        await self.ctx.users.audit(self.actor, "account.restore", account)
        row = accounts.describe(account) if accounts.knows(account) else None
        self.answer({"account": row})
