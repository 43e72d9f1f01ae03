"""What the operator, and an account's owner, do with accounts: add, change, test, remove, bring back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pool_server.accounts.administration.adding import Adding, NewAccount
from pool_server.accounts.administration.trial import Trial
from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.refresh import Refresher, RefreshError
from pool_server.accounts.credentials.source import CredentialSource
from pool_server.accounts.health import learning
from pool_server.accounts.ports import StateChange
from pool_server.accounts.registry import Registry
from pool_server.core.enums import AccountState
from pool_server.core.models import Send
from pool_server.language import lazy
from pool_server.providers import Credential, UsageAnswer, provider_module, usage_report
from pool_server.providers.json_fields import merged

REVOKE_S = 10.0
_PAGES = 20  # of a vendor's report


class Administration:
    """Changes of accounts by people. Unknown account ids raise KeyError.

    `learn_usage` takes in what a trial showed of an account's windows.
    """

    def __init__(
        self,
        registry: Registry,
        refresher: Refresher,
        *,
        send: Send,
        learn_usage: Callable[[str, UsageAnswer], None],
    ) -> None:
        self._registry = registry
        self._refresher = refresher
        self._send = send
        self._learn_usage = learn_usage
        self._adding = Adding(registry, send=send)

    @property
    def _source(self) -> CredentialSource:
        return self._registry.credentials.source

    # -- come and go

    async def add(self, new: NewAccount, *, test: bool = True) -> dict[str, Any]:
        """Try a new account and put its file into the pool folder → {"id", "hosts", "test"}; "test" None: not tried.

        Raises NameTakenError, SameAccountError, and CredentialRejectedError for what cannot be used; with it the
        trial's row where there was one (AccountRefusedError). Nothing is in the pool then.
        """
        account_id, result = await self._adding.add(new, test=test)
        if result is not None and result.usage.windows:
            self._learn_usage(account_id, result.usage)
        hosts = self._registry.credentials.hosts(account_id, self._registry.settings)
        return {"id": account_id, "hosts": hosts, "test": None if result is None else result.row()}

    async def replace(self, account_id: str, data: Mapping[str, Any], *, confirmed: bool = False) -> dict[str, Any]:
        """Another sign-in for an account, whose id, options, pins and history stay → as `add`. The sign-in before it is
        ended at its vendor once the new one is on disk. Raises KeyError, OtherPersonError unless `confirmed`, and what
        `add` raises."""
        result, old = await self._adding.replace(account_id, data, confirmed=confirmed)
        if result.usage.windows:
            self._learn_usage(account_id, result.usage)
        if old.refresh_token != self._registry.credentials.items[account_id].credential.refresh_token:
            await self.revoke(old)
        hosts = self._registry.credentials.hosts(account_id, self._registry.settings)
        return {"id": account_id, "hosts": hosts, "test": result.row()}

    async def revoke(self, cred: Credential, proxy_url: str | None = None) -> None:
        """End a sign-in at its vendor, as far as it answers; nobody waits for more than a few seconds."""
        module, settings = provider_module(cred.provider), self._registry.settings
        request = module.revoke_request(cred, settings)
        if request is not None:
            egress = module.egress(cred, settings)
            await self._send(msgspec.structs.replace(request, egress=egress, proxy_url=proxy_url, timeout_s=REVOKE_S))

    def same_person(self, cred: Credential) -> str:
        """The account whose sign-in is of the same person and workspace, "" when there is none or nobody can tell."""
        return self._adding.same(cred)

    async def remove(self, account_id: str) -> None:
        """Take an account out of the pool; its file can be brought back. Requests in flight finish. Raises KeyError,
        also where somebody has taken the file out of the folder meanwhile, and OSError."""
        credentials = self._registry.credentials
        file = credentials.items[account_id].found
        if account_id in credentials.owed:
            await asyncio.to_thread(credentials.write, account_id, {})
        try:
            await asyncio.to_thread(self._source.remove, file, self._registry.clock())
        except FileNotFoundError:
            if os.path.lexists(file.path):
                raise
            await self._left(account_id)
            raise KeyError(account_id) from None
        await self._left(account_id)

    async def withdraw(self, account_id: str) -> None:
        """Take an account out of the pool and delete its credential. Requests in flight finish. Raises KeyError and
        OSError."""
        try:
            await asyncio.to_thread(self._registry.credentials.withdraw, account_id, self._registry.clock())
        finally:
            await self._left(account_id)

    async def _left(self, account_id: str) -> None:
        """No worker chooses the account any more, whenever it looks at the folder."""
        self._registry.drop(account_id)
        self._registry.shared.announce(StateChange.GONE, account_id)
        await self._registry.reload()

    async def restore(self, account_id: str) -> None:
        """Bring back an account that was removed. Raises KeyError, FileExistsError when its name is taken by another
        file, OSError."""
        await asyncio.to_thread(self._source.restore, account_id)
        await self._registry.reload()

    def removed(self) -> list[dict[str, Any]]:
        """The accounts that can be brought back, newest first: "account", "file", "at" (unix seconds)."""
        found: dict[str, dict[str, Any]] = {}
        for file in self._source.removed():
            if not file.withdrawn and file.account not in self._registry.credentials.items:
                found.setdefault(file.account, {"account": file.account, "file": file.name, "at": file.at})
        return list(found.values())

    def sign_ins_end(self) -> dict[str, float]:
        """Account → when its owner has to sign in again (unix seconds), of those whose end is known."""
        ends = {one: item.credential.sign_in_ends for one, item in self._registry.credentials.items.items()}
        return {account: end for account, end in ends.items() if end is not None}

    # -- change

    async def change(self, account_id: str, changes: Mapping[str, Any]) -> None:
        """Write options into an account's file; None takes one away. Raises KeyError, OSError, and
        CredentialRejectedError for what the account cannot be with."""
        item = self._registry.credentials.items[account_id]
        module = provider_module(item.found.provider)
        data = merged(self._source.read(item.found)[0], dict(changes))
        files.options(data)
        module.parse(data, account_id, now=self._registry.clock())
        await self._registry.write(account_id, dict(changes))

    async def set_disabled(self, account_id: str, disabled: bool) -> None:
        """Enable or disable an account, in its file. Raises KeyError, OSError or CredentialRejectedError."""
        await self._registry.write(account_id, {"disabled": disabled})

    async def set_priority(self, account_id: str, priority: int) -> None:
        """Lower goes first; written into the account's file. Raises KeyError, OSError or CredentialRejectedError."""
        await self._registry.write(account_id, {"priority": priority})

    def reset(self, account_id: str) -> None:
        """Forget cooldowns, faults and full windows of an account."""
        self._registry.account(account_id)
        now = self._registry.clock()
        self._registry.update(account_id, lambda known: learning.reset(known, now))

    def lock(self, account_id: str | None) -> None:
        """Send everything of its provider to this account alone; None ends that."""
        if account_id is not None:
            self._registry.account(account_id)
        self._registry.shared.lock(account_id or "")
        self._registry.relock()

    # -- try

    async def refresh_now(self, account_id: str) -> Credential:
        """Refresh at once. Raises KeyError and RefreshError."""
        token = self._registry.credentials.items[account_id].credential.secret
        return await self._refresher.refresh(account_id, token, force=True)

    async def test(self, account_id: str) -> dict[str, Any]:
        """One minimal real request with the account's credential, and what came back; its windows are taken in. A
        sign-in whose token has ended is renewed first. Raises KeyError."""
        cred = await self._current(account_id)
        item = self._registry.credentials.items[account_id]
        proxy = item.options.proxy_url
        result = await Trial(
            cred, self._registry.settings, send=self._send, clock=self._registry.clock, proxy_url=proxy
        ).run()
        if result.usage.windows:
            self._learn_usage(account_id, result.usage)
        account = self._registry.under_way(account_id)
        if result.accepted and account is not None and account.health.state is AccountState.NEEDS_LOGIN:
            self._registry.update(account_id, lambda health: learning.new_login(health, self._registry.clock()))
        return result.row()

    async def vendor_spend(self, account_id: str, frm: int, to: int) -> usage_report.VendorSpend:
        """What the account's organisation spent on these UTC days (unix seconds at midnights) by its vendor's books,
        asked with the account's admin key. Raises KeyError, and ValueError with why it is not known."""
        item, settings = self._registry.credentials.items[account_id], self._registry.settings
        cred, pages, page = item.credential, list[usage_report.SpendReport](), ""
        if not cred.admin_key:
            raise ValueError(lazy("{account} has no admin key", account=account_id))
        while len(pages) < _PAGES:
            request = usage_report.spend_request(cred.provider, cred.admin_key, frm, to, settings, page)
            answer = await self._send(msgspec.structs.replace(request, proxy_url=item.options.proxy_url))
            if answer.status != 200:
                why = answer.error or lazy("answered {status}", status=answer.status)
                raise ValueError(lazy("the vendor's report: {why}", why=why))
            pages.append(usage_report.read_spend(cred.provider, answer.body))
            page, before = pages[-1].next_page, {one.next_page for one in pages[:-1]}
            if not page or page in before:
                break
        return usage_report.add_up(pages, frm, to)

    async def _current(self, account_id: str) -> Credential:
        cred = self._registry.credentials.items[account_id].credential
        if cred.can_refresh and cred.expires_at is not None and cred.expires_at <= self._registry.clock():
            try:
                return await self._refresher.refresh(account_id, cred.secret)
            except RefreshError:
                pass  # the request is refused then, and says so
        return self._registry.credentials.items[account_id].credential
