"""Adding an account: what was brought is judged, tried with one real request, and written as if it had been dropped."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.accounts.administration.trial import NO_MODEL, Trial, TrialResult, renewed
from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.look import doubles
from pool_server.accounts.credentials.scan import CredentialFile, RejectedFile, identify
from pool_server.accounts.credentials.source import CredentialSource
from pool_server.accounts.registry import Registry
from pool_server.core.enums import FaultKind, Provider
from pool_server.core.models import Send
from pool_server.language import LazyText, lazy, lazy_of
from pool_server.providers import Credential, CredentialRejectedError, RefreshRejectedError, provider_module
from pool_server.providers.json_fields import merged

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
MOST_NAMES = 10_000
# What a file says beside its credential: a new sign-in does not bring it.
OPTION_FIELDS = frozenset(
    (*files.Options.__struct_fields__, "models", "terms", "base_url", "dialects", "auth", "region", "resource")
)


class NewAccount(msgspec.Struct, frozen=True):
    """An account to be: the content of its file, options included. `name` "" = one is made up."""

    provider: Provider
    data: dict[str, Any]
    name: str = ""

    def __repr__(self) -> str:
        return f"NewAccount(provider={self.provider!r}, name={self.name!r}, fields={sorted(self.data)})"


class NameTakenError(Exception):
    """There is an account, or a file, of that name."""

    def __init__(self, said: LazyText) -> None:
        super().__init__(said)


class SameAccountError(Exception):
    """The pool has this person's sign-in already. `account` is its id."""

    def __init__(self, account: str) -> None:
        super().__init__(lazy("this sign-in is the account {account}", account=account))
        self.account = account


class OtherPersonError(Exception):
    """A new sign-in for an account is of another person or workspace, or nobody can tell. `known`: it is told."""

    def __init__(self, account: str, *, known: bool) -> None:
        super().__init__(
            lazy("this sign-in belongs to another person or workspace than {account}", account=account)
            if known
            else lazy("this sign-in may be of another person than {account}", account=account)
        )
        self.account = account
        self.known = known


_UNJUDGED = frozenset(
    {FaultKind.TRANSIENT, FaultKind.NETWORK, FaultKind.OVERLOAD, FaultKind.CAPACITY, FaultKind.CHALLENGE}
)


class AccountRefusedError(CredentialRejectedError):
    """The trial failed. `result` says how."""

    def __init__(self, result: TrialResult) -> None:
        super().__init__(lazy_of(result.message) if result.message else lazy("no reason given"))
        self.result = result

    def told(self) -> LazyText:
        """What it means: a vendor that fails has judged nothing."""
        if self.result.fault in _UNJUDGED:
            return lazy("the vendor could not be asked about it now ({reason}): try again in a while", reason=self)
        if self.result.message == NO_MODEL:
            return lazy("it cannot be tested: {reason}", reason=self)
        return lazy("the vendor did not accept it: {refused}", refused=self)


class Adding:
    """Adds accounts to one worker's pool; the other workers see the file."""

    def __init__(self, registry: Registry, *, send: Send) -> None:
        self._registry = registry
        self._send = send
        self._under_way: set[str] = set()

    @property
    def _source(self) -> CredentialSource:
        return self._registry.credentials.source

    async def add(self, new: NewAccount, *, test: bool) -> tuple[str, TrialResult | None]:
        """See `Administration.add`; returns the account's id and the trial's result."""
        file = self._file(new)
        data, cred = await self._judge(file, new.data)
        self._refuse_same(cred)
        mark = cred.grant or cred.fingerprint or file.account
        if mark in self._under_way:
            raise NameTakenError(lazy("this credential is being added just now"))
        self._under_way.add(mark)
        try:
            result = None
            if test:
                data, cred = await self._renew(file, data, cred)
                result = await self._try(cred, data)
                data = merged(data, result.updates)
                self._refuse_same(self._parsed(file, data))
            await self._write(file, data)
        finally:
            self._under_way.discard(mark)
        return file.account, result

    async def replace(
        self, account_id: str, said: Mapping[str, Any], *, confirmed: bool = False
    ) -> tuple[TrialResult, Credential]:
        """Put another sign-in into an account's file: its id, options and what was learnt of it stay. Returns the trial
        and the sign-in that was there. Raises KeyError, OtherPersonError (unless `confirmed`), SameAccountError for
        another account's sign-in, OSError and CredentialRejectedError."""
        item = self._registry.credentials.items[account_id]
        file, old = item.found, item.credential
        own = {name: value for name, value in said.items() if name not in OPTION_FIELDS}
        kept = {name: value for name, value in self._source.read(file)[0].items() if name not in _held(file.provider)}
        data, cred = await self._judge(file, {**kept, **own})
        self._refuse_other(old, cred, confirmed)
        data, cred = await self._renew(file, data, cred)
        result = await self._try(cred, data)
        data = merged(data, result.updates)
        self._refuse_other(old, self._parsed(file, data), confirmed)
        await asyncio.to_thread(self._source.replace, file, data)
        self._registry.credentials.forget_owed(account_id)
        await self._registry.reload()
        return result, old

    def same(self, cred: Credential) -> str:
        """The account that is this person's in this workspace, "" when there is none or nobody can tell."""
        module = provider_module(cred.provider)
        whose = module.identity(cred)
        if not whose:
            return ""
        items = self._registry.credentials.items.values()
        known = (item for item in items if item.found.provider is cred.provider)
        return next((one.found.account for one in known if module.identity(one.credential) == whose), "")

    def _refuse_same(self, cred: Credential) -> None:
        if account := self.same(cred):
            raise SameAccountError(account)

    def _refuse_other(self, old: Credential, new: Credential, confirmed: bool) -> None:
        other = self.same(new)
        if other and other != old.account:
            raise SameAccountError(other)
        module = provider_module(new.provider)
        before, after = module.identity(old), module.identity(new)
        if not confirmed and not (before and before == after):
            raise OtherPersonError(old.account, known=bool(before and after))

    def _file(self, new: NewAccount) -> CredentialFile:
        name = new.name.strip() or self._free_name(new)
        if not NAME.fullmatch(name):
            raise CredentialRejectedError(lazy("a name is 1 to 100 letters, digits, dots, dashes and underscores"))
        credentials, file = self._registry.credentials, self._named(new.provider.value, name)
        if isinstance(file, RejectedFile):
            raise CredentialRejectedError(file.said)
        if file.account in credentials.items or self._source.exists(file) or self._like(file.account):
            raise NameTakenError(
                lazy("there is an account {account} already; choose another name", account=file.account)
            )
        return file

    def _named(self, provider: str, name: str) -> CredentialFile | RejectedFile:
        path = self._source.folder / f"{provider}_{name}.json"
        return identify(path, path.name, None)

    def _like(self, account: str) -> bool:
        """Whether a name that a file system may take for the same is there."""
        return account.casefold() in {known.casefold() for known in self._registry.credentials.items}

    def _free_name(self, new: NewAccount) -> str:
        provider = new.provider.value
        word = (
            "key" if any(field in new.data for field in provider_module(new.provider).spec.keys.fields) else "account"
        )
        for name in (word, *(f"{word}-{number}" for number in range(2, MOST_NAMES))):
            file = self._named(provider, name)
            known = f"{provider}:{name}" in self._registry.credentials.items
            if not known and isinstance(file, CredentialFile) and not self._source.exists(file):
                return name
        raise NameTakenError(lazy("give it a name"))

    async def _judge(self, file: CredentialFile, said: Mapping[str, Any]) -> tuple[dict[str, Any], Credential]:
        """The file's content, and its credential as it is now. Raises CredentialRejectedError and SameAccountError."""
        credentials, now = self._registry.credentials, self._registry.clock()
        data = dict(said)
        files.options(data)
        if len(msgspec.json.encode(data)) > files.MAX_BYTES:
            raise CredentialRejectedError(lazy("larger than 1 MiB"))
        cred = self._parsed(file, data)
        await self._registry.shared.look_up_spent([cred])
        while (kept := credentials.escrow.find(cred)) is not None:
            if kept.account in credentials.items and kept.account != file.account:
                raise SameAccountError(kept.account)
            before = cred.grant_key
            data = merged(data, kept.updates)
            cred = self._parsed(file, data)
            if cred.grant_key == before:
                break
        others = (item for item in credentials.items.values() if item.found != file)
        known = [(item.found.account, item.found.account, item.credential) for item in others]
        found = doubles([*known, (file.account, file.name, cred)], now, self._registry.shared.spent_by)
        if file.account in found:
            raise SameAccountError(found[file.account])
        return data, cred

    def _parsed(self, file: CredentialFile, data: dict[str, Any]) -> Credential:
        return provider_module(file.provider).parse(data, file.account, now=self._registry.clock())

    async def _renew(
        self, file: CredentialFile, data: dict[str, Any], cred: Credential
    ) -> tuple[dict[str, Any], Credential]:
        """A sign-in whose token has ended, renewed; what it is given is durable before it is used."""
        proxy = files.options(data).proxy_url
        settings, now = self._registry.settings, self._registry.clock()
        try:
            updates = await renewed(cred, data, settings, self._send, now=now, proxy_url=proxy)
        except RefreshRejectedError as refused:
            raise CredentialRejectedError(lazy_of(refused)) from None
        if not updates:
            return data, cred
        self._registry.credentials.escrow.keep(cred, updates)
        data = merged(data, updates)
        return data, self._parsed(file, data)

    async def _try(self, cred: Credential, data: Mapping[str, Any]) -> TrialResult:
        proxy = files.options(dict(data)).proxy_url
        trial = Trial(
            cred, self._registry.settings, send=self._send, clock=self._registry.clock, proxy_url=proxy, whose=True
        )
        result = await trial.run()
        if not result.accepted:
            raise AccountRefusedError(result)
        return result

    async def _write(self, file: CredentialFile, data: dict[str, Any]) -> None:
        try:
            await asyncio.to_thread(self._source.create, file, data)
        except FileExistsError:
            raise NameTakenError(lazy("there is a file {name} already; choose another name", name=file.name)) from None
        await self._registry.reload()
        credentials = self._registry.credentials
        if file.account in credentials.items:
            return
        reason = next(
            (row.said for row in credentials.rejected if row.file == file.name), lazy("it is not in the pool folder")
        )
        await asyncio.to_thread(self._source.take_back, file)
        raise CredentialRejectedError(reason)


def _held(provider: Provider) -> frozenset[str]:
    """The top-level fields of a file of this vendor that hold its credential."""
    spec = provider_module(provider).spec
    heads = {name.partition(".")[0] for name in spec.owned}
    return frozenset(heads | set(spec.keys.fields) | _SHARED_FIELDS)


_SHARED_FIELDS = frozenset(
    ("scope", "token_type", "id_token", "refresh_token", "auth_mode", "oauth_provenance", "login_owner_id")
)
