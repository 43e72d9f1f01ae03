"""Token refresh: one flight a token value, in the server's own task, durable before use.

A caller that goes away cancels nothing. Across processes a lease in the state store keeps it to one, as long as its
holder lives, and so does a lock on the credential file, for a store that cannot be written. The file is read again
first, because whoever came earlier may have rotated the token already.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from pool_server.accounts.credentials.back_off import BackOff, Pause
from pool_server.accounts.credentials.store import CredentialStore, ReplacedError
from pool_server.core import deadlines
from pool_server.core.models import Send
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy, lazy_of
from pool_server.providers import Credential, CredentialRejectedError, RefreshRejectedError, provider_module
from pool_server.storage import StoreError
from pool_server.storage.leases import LeasesPort, LeaseTerm

log = logging.getLogger(__name__)

Save = Callable[[str, dict[str, Any], Credential], Awaitable[str]]  # see CredentialWriter.rotate

LEASE_S = 90.0  # longer than a refresh call can take; where liveness cannot be told, so long a dead worker holds it
LEASE_POLL_S = 0.1
_BEGUN = lazy("another machine has begun to refresh it and is not heard of: nobody else may until it answers")
BACK_OFF_S = 30.0
BACK_OFF_LONGEST_S = 3600.0


class RefreshError(Exception):
    """A refresh brought no usable token. `permanent`: somebody must sign in again."""

    def __init__(self, said: LazyText, *, permanent: bool, retry_at: float | None = None) -> None:
        super().__init__(said)
        self.said, self.reason = said, str(said)
        self.permanent = permanent
        self.retry_at = retry_at


class _Hold:
    """What keeps other processes from refreshing an account: its lease, its file's lock, or both; and for as long as
    this one may be cut off, the hash of the token that it has `begun` to trade."""

    __slots__ = ("begun", "descriptor", "term")

    def __init__(self) -> None:
        self.begun = ""
        self.term: LeaseTerm | None = None
        self.descriptor: int | None = None


class RefreshOutcome(NamedTuple):
    """A refresh that ended, for those who keep the state. `credential` None = it failed with `failure`."""

    account: str
    tried: Credential
    credential: Credential | None
    failure: RefreshRejectedError | None
    retry_at: float | None = None
    digest: str = ""


class Refresher:
    """Refreshes credentials. `done` is told of every outcome before any waiting caller is, `spent` of each refresh
    token that was traded, before the new one is written anywhere."""

    def __init__(
        self,
        credentials: CredentialStore,
        leases: LeasesPort,
        back_off: BackOff,
        settings: Settings,
        *,
        send: Send,
        save: Save,
        spent: Callable[[str, Credential], None],
        clock: Callable[[], float],
        done: Callable[[RefreshOutcome], None],
    ) -> None:
        self.settings = settings
        self._credentials = credentials
        self._leases = leases
        self._back_off = back_off
        self._send = send
        self._save = save
        self._spent = spent
        self._clock = clock
        self._done = done
        self._flights: dict[tuple[str, str], asyncio.Task[Credential]] = {}
        self._begun: dict[str, str] = {}  # what accounts were refreshed with whose new token the others cannot see yet
        self._lost: dict[tuple[str, str], RefreshError] = {}  # sign-ins that were refused for good

    async def refresh(self, account_id: str, failed_token: str, *, force: bool = False) -> Credential:
        """A credential other than the one that failed.

        `failed_token` is the token that was refused, or its fingerprint. Raises KeyError for an unknown account
        and RefreshFailed. `force` asks the token endpoint although the last try failed lately (the operator's
        button).
        """
        known = self._credentials.items[account_id].credential
        if failed_token and failed_token not in (known.secret, known.fingerprint):
            return known
        key = (account_id, known.fingerprint)
        task = self._flights.get(key)
        if task is None:
            if not force:
                self._check_back_off(key)
            task = asyncio.create_task(self._fly(account_id, known))
            self._flights[key] = task
            task.add_done_callback(lambda t: self._landed(key, t))
        return await asyncio.shield(task)

    def paused_until(self, account_id: str) -> float:
        """Until when the account's token is not refreshed because the endpoint refused; 0.0: it may be."""
        known = self._credentials.items[account_id].credential
        pause = self._back_off.get(account_id, self._clock(), known.fingerprint)
        return 0.0 if pause is None else pause.until

    def _check_back_off(self, key: tuple[str, str]) -> None:
        if (lost := self._lost.get(key)) is not None:
            raise RefreshError(lazy_of(lost), permanent=True, retry_at=lost.retry_at)
        account_id, token = key
        if (pause := self._back_off.get(account_id, self._clock(), token)) is not None:
            raise RefreshError(lazy_of(pause.reason), permanent=False, retry_at=pause.until)

    def _landed(self, key: tuple[str, str], task: asyncio.Task[Credential]) -> None:
        del self._flights[key]
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, RefreshError) and failure.permanent:
            self._lost[key] = failure
        else:
            self._lost.pop(key, None)

    async def _fly(self, account_id: str, tried: Credential) -> Credential:
        hold, patience, try_at = _Hold(), self._clock() + LEASE_S, 0.0
        try:
            while True:
                fresh = self._reread(account_id, tried)
                if fresh is not None:
                    return fresh
                if time.monotonic() < try_at:
                    await asyncio.sleep(LEASE_POLL_S)
                    continue
                if not await self._held_back(account_id, hold, patience):
                    await self._renewed(account_id)
                    if (fresh := self._reread(account_id, tried)) is not None:
                        return fresh
                    if await self._begin(hold, tried):
                        return await self._ask(account_id, tried)
                if self._clock() >= patience:
                    raise RefreshError(_BEGUN, permanent=False)
                try_at = time.monotonic() + self._leases.again_s
        finally:
            await self._let_go(account_id, hold)

    async def _held_back(self, account_id: str, hold: _Hold, patience: float) -> bool:
        """Whether another process may be refreshing the account; takes what keeps the others from it. A process that
        was stopped is waited for until `patience` (unix seconds). Raises RefreshError when nothing would keep the
        others from trading the same token."""
        leased = True
        try:
            if hold.term is None or not self._leases.held(hold.term):
                hold.term = await self._leases.take(f"refresh:{account_id}", LEASE_S)
                if hold.term is None:
                    return True
        except StoreError:
            leased, hold.term = False, None
        if hold.descriptor is None:
            try:
                hold.descriptor = self._credentials.source.hold(self._credentials.items[account_id].found)
            except OSError as exc:
                if not leased:
                    why = lazy("its file cannot be locked: {error}", error=exc.strerror)
                    raise RefreshError(why, permanent=False) from None
                return False
        return hold.descriptor is None and self._clock() < patience

    async def _begin(self, hold: _Hold, tried: Credential) -> bool:
        """Whether this process alone shows the token to its provider. Raises RefreshError."""
        if hold.term is None or not tried.grant_key:
            return True  # nobody else is there, or nothing is spent
        try:
            if not await self._leases.begin(tried.grant_key):
                return False
        except StoreError as exc:
            raise RefreshError(lazy_of(exc), permanent=False) from None
        if not self._leases.held(hold.term):  # this process was stopped: another may have been here
            await self._leases.end(tried.grant_key)
            return False
        hold.begun = tried.grant_key
        return True

    async def inherit(self) -> None:
        """The others may refresh what an earlier life of this process had begun and brought no token of."""
        owed = self._credentials.owed.values()
        await self._leases.inherit({token for one in owed for token in one.spent})

    async def _renewed(self, account_id: str) -> None:
        try:
            await self._credentials.source.renew(account_id)
        except StoreError as exc:
            raise RefreshError(lazy_of(exc), permanent=False) from None

    async def _let_go(self, account_id: str, hold: _Hold) -> None:
        if hold.descriptor is not None:
            os.close(hold.descriptor)
        if hold.begun and account_id in self._credentials.owed and not self._credentials.source.shares_escrow:
            self._begun[account_id] = hold.begun  # whoever showed it now would show a spent token
        elif hold.begun:
            await self._leases.end(hold.begun)
        if hold.term is not None:
            await self._leases.give(hold.term)

    async def written(self, account_id: str) -> None:
        """An account's credential is owed nothing any more. Never raises."""
        if token := self._begun.pop(account_id, ""):
            await self._leases.end(token)

    def _reread(self, account_id: str, tried: Credential) -> Credential | None:
        """The file's credential when it is no longer the one that failed."""
        try:
            now_there = self._credentials.reread(account_id, self._clock())
        except (CredentialRejectedError, KeyError) as exc:
            raise RefreshError(lazy("the credential file went away: {error}", error=exc), permanent=False) from None
        if now_there.secret == tried.secret:
            return None
        self._done(RefreshOutcome(account_id, tried, now_there, None))
        return now_there

    async def _ask(self, account_id: str, tried: Credential) -> Credential:
        module = provider_module(tried.provider)
        request = module.refresh_request(tried, self.settings, now=self._clock())
        if request is None:
            failure = RefreshRejectedError(lazy("this credential cannot be refreshed"), permanent=not tried.can_refresh)
            raise self._failed(account_id, tried, failure)
        answer = await self._send(self._credentials.bounded(account_id, request, self.settings))
        try:
            refreshed = module.refresh_answer(tried, answer, now=self._clock())
        except RefreshRejectedError as exc:
            if exc.permanent and not exc.suspended:
                await asyncio.to_thread(self._credentials.rescue, account_id, self._clock())
            if (fresh := self._reread(account_id, tried)) is not None:
                return fresh
            raise self._failed(account_id, tried, exc) from None
        if refreshed.credential.refresh_token != tried.refresh_token:
            self._spent(account_id, tried)  # before anybody can find a copy of it beside the new file
        if refreshed.warning:
            log.warning("%s: %s", account_id, refreshed.warning)
        try:
            digest = await self._save(account_id, refreshed.updates, tried)
        except (ReplacedError, KeyError):  # somebody signed in anew meanwhile, or removed the file
            if (fresh := self._reread(account_id, tried)) is not None:
                return fresh
            raise RefreshError(lazy("the credential file was replaced"), permanent=False) from None
        digest = self._credentials.adopt(account_id, refreshed.credential, digest, self._clock())
        self._back_off.clear(account_id)
        item = self._credentials.items.get(account_id)
        fresh = item.credential if item is not None else refreshed.credential
        self._done(RefreshOutcome(account_id, tried, fresh, None, digest=digest))
        return fresh

    def _failed(self, account_id: str, tried: Credential, failure: RefreshRejectedError) -> RefreshError:
        retry_at: float | None = None
        if not failure.permanent:
            now, before = self._clock(), self._back_off.last(account_id, tried.fingerprint)
            tries = 0 if before is None else before.tries
            wait = min(BACK_OFF_LONGEST_S, BACK_OFF_S * 2.0 ** min(tries, 10))
            retry_at = now + wait if failure.retry_at is None else max(failure.retry_at, now)
            retry_at = deadlines.within(retry_at, now, BACK_OFF_LONGEST_S)
            self._back_off.set(account_id, Pause(retry_at, tries + 1, tried.fingerprint, failure.reason))
        self._done(RefreshOutcome(account_id, tried, None, failure, retry_at))
        return RefreshError(lazy_of(failure), permanent=failure.permanent, retry_at=retry_at)

    async def close(self) -> None:
        """Let refreshes under way finish: a rotated token must reach the disk."""
        if self._flights:
            await asyncio.wait(list(self._flights.values()), timeout=60)
