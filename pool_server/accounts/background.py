"""What goes on in the background: watching files, refreshing before expiry, polling usage, set-ups, upkeep."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from pool_server.accounts.credentials import escrow
from pool_server.accounts.credentials.back_off import BackOff
from pool_server.accounts.credentials.refresh import BACK_OFF_LONGEST_S, Refresher, RefreshError, RefreshOutcome
from pool_server.accounts.credentials.scan import because
from pool_server.accounts.credentials.write_back import CredentialWriter
from pool_server.accounts.health import learning
from pool_server.accounts.health.polling import LONGEST_S, Poller
from pool_server.accounts.health.state import move
from pool_server.accounts.health.transitions import AccountEvent, StateActor
from pool_server.accounts.onboarding import Onboarding
from pool_server.accounts.ports import AccountPorts
from pool_server.accounts.registry import Registry
from pool_server.accounts.selection.affinity import Pins
from pool_server.core.enums import AccountState
from pool_server.core.models import Send
from pool_server.core.settings import Settings
from pool_server.core.tasks import PeriodicTasks, Timers
from pool_server.language import LazyText
from pool_server.providers import Credential, UsageAnswer, provider_module
from pool_server.storage.leases import POLL, REFRESH, SWEEP

log = logging.getLogger(__name__)

REFRESHES_AT_ONCE = 4
POLLS_AT_ONCE = 4
UPKEEP_S = 0.25  # how stale other workers' exchanges under way may be
RERATED_AT_ONCE = 100
SWEEP_EVERY = 240  # upkeeps
REOWN_EVERY = 8
WRITABLE_EVERY = 40  # upkeeps
WATCH_MS = 1000
UNWATCHED_S = 5  # between looks at a folder that cannot be watched
LOOK_EVERY = 60  # watches without news
REFRESH_JITTER_S = 120.0


class Background:
    """The background of one worker. Whoever has the duty refreshes on timers, polls and sweeps; all watch and follow.
    `leader`: looks after this machine's own folders."""

    def __init__(
        self, registry: Registry, pins: Pins, ports: AccountPorts, *, send: Send, rng: random.Random, leader: bool
    ) -> None:  # fmt: skip
        self.registry = registry
        self._pins = pins
        self._rng = rng
        self._leader = leader
        self._duties = ports.duties
        self._tasks = PeriodicTasks()
        self._tasks.every(self._watch_pause, self._watch, "watching the pool folder", at_once=True)
        self._tasks.every(UPKEEP_S, self._upkeep, "the upkeep of accounts")
        self._rounds = 0  # of the upkeep
        self._unwatched = 0  # watches in a row that failed
        self._stop = asyncio.Event()
        self._unread = 0  # looks in a row that could not read everything
        self._pause = 0  # watches without news until the next look
        self.unwritable: LazyText | None = None  # see `CredentialStore.unwritable`
        self.on_usage: list[Callable[[str, UsageAnswer], None]] = []
        credentials, clock, settings = registry.credentials, registry.clock, registry.settings
        self.saver = CredentialWriter(
            credentials, reread=registry.reread, note_own_file=registry.shared.note_own_file, clock=clock,
            written=lambda account_id: self.refresher.written(account_id),
        )  # fmt: skip
        self.refresher = Refresher(
            credentials,
            ports.leases,
            BackOff(ports.live.notes, "refresh", BACK_OFF_LONGEST_S),
            settings,
            send=send,
            save=self.saver.rotate,
            spent=lambda account_id, credential: registry.shared.note_spent(account_id, credential, clock()),
            clock=clock,
            done=self._refreshed,
        )
        self.poller = Poller(
            credentials,
            BackOff(ports.live.notes, "poll", LONGEST_S),
            settings,
            send=send,
            clock=clock,
            rng=rng,
            refresh=self.refresher.refresh,
            learn=self.learn_usage,
        )
        self.setter = Onboarding(registry, self.refresher, send=send, save=self.saver.write)
        self.refreshes = Timers(self._refresh_due, clock=clock, at_once=REFRESHES_AT_ONCE)
        self.polls = Timers(self.poller.poll, clock=clock, at_once=POLLS_AT_ONCE)
        self.setups = Timers(self.setter.timed, clock=clock, at_once=1)
        registry.on_change.append(self.plan)
        self._duties.on_change.append(self._duty_moved)

    def set_settings(self, settings: Settings) -> Iterator[None]:
        """Take new settings; the steps plan the timers anew, account by account."""
        self.refresher.settings = self.poller.settings = settings
        self._pins.ttl_s = settings.choosing.pin_ttl_h * 3600
        for account_id in list(self.registry.index.accounts):
            self.plan(account_id)
            yield

    def plan(self, account_id: str) -> None:
        """Put an account's timers where they belong; cooling accounts are refreshed too, dead ones are not."""
        self.saver.plan(account_id)
        account = self.registry.index.accounts.get(account_id)
        stopped = account is None or account.state in (
            AccountState.DISABLED, AccountState.NEEDS_LOGIN, AccountState.SUSPENDED,
        )  # fmt: skip
        refreshes, polls = self._duties.mine(REFRESH) and not stopped, self._duties.mine(POLL) and not stopped
        self.refreshes.set(account_id, self._refresh_at(account_id) if refreshes else None)
        if not polls:
            self.polls.set(account_id, None)
            self.setups.set(account_id, None)
            return
        if self.polls.due(account_id) is None and not self.polls.running(account_id):
            self.polls.set(account_id, self.poller.first(account_id))
        wanted = self.setter.wanted(account_id)
        if wanted and self.setups.due(account_id) is None and not self.setups.running(account_id):
            self.setups.set(account_id, self.registry.clock())

    def poll_soon(self, account_id: str) -> None:
        """A refusal for want of quota is worth checking before the next round."""
        if not self._duties.mine(POLL) or account_id not in self.registry.index.accounts:
            return
        soon, due = self.poller.soon(account_id), self.polls.due(account_id)
        if soon is not None and (due is None or soon < due) and not self.polls.running(account_id):
            self.polls.set(account_id, soon)

    def _refresh_at(self, account_id: str) -> float | None:
        account = self.registry.account(account_id)
        if not account.refreshable:
            return None
        cred = self.registry.credentials.items[account_id].credential
        due = provider_module(cred.provider).refresh_due_at(cred, now=self.registry.clock())
        if due is None:
            return None
        left = max(0.0, (cred.expires_at or due) - due)
        share = (sum(account_id.encode()) % 97) / 97  # the same after a restart
        return max(due + share * min(REFRESH_JITTER_S, left / 2), account.refresh_retry_at)

    async def _refresh_due(self, account_id: str) -> float | None:
        item = self.registry.credentials.items.get(account_id)
        if item is None:
            return None
        due = self._refresh_at(account_id)
        if due is not None and due <= self.registry.clock():
            try:
                await self.refresher.refresh(account_id, item.credential.secret)
            except (RefreshError, KeyError):
                pass  # `_refreshed` has noted it
        account = self.registry.index.accounts.get(account_id)
        if account is None or account.state in (AccountState.NEEDS_LOGIN, AccountState.SUSPENDED):
            return None
        again = self._refresh_at(account_id)
        return None if again is None else max(again, self.registry.clock() + 5.0)

    def _refreshed(self, outcome: RefreshOutcome) -> None:
        """A refresh ended: keep the state in line before anybody goes on."""
        registry, now = self.registry, self.registry.clock()
        if outcome.credential is not None:
            registry.took(outcome.account, outcome.tried, outcome.digest)
            self._disprove(outcome.account, outcome.credential)
            return
        failure = outcome.failure
        account = registry.index.accounts.get(outcome.account)
        if account is None or failure is None:
            return
        if failure.suspended:
            registry.update(
                outcome.account,
                lambda health: move(health, AccountEvent.STOPPED, StateActor.REFRESH, now, failure.said),
            )
        elif failure.permanent:
            token = outcome.tried.fingerprint
            registry.update(
                outcome.account,
                lambda health: learning.login_lost(health, now, failure.said, token, StateActor.REFRESH),
            )
        else:
            account.refresh_retry_at = outcome.retry_at or 0.0
            registry.index.touch(account)
            self.plan(outcome.account)

    def _disprove(self, account_id: str, credential: Credential) -> None:
        """A sign-in that was thought lost is there again with another token."""
        account = self.registry.index.accounts.get(account_id)
        if account is None or account.health.state is not AccountState.NEEDS_LOGIN:
            return
        if account.health.token != credential.fingerprint:
            self.registry.update(account_id, lambda health: learning.new_login(health, self.registry.clock()))

    def learn_usage(self, account_id: str, answer: UsageAnswer) -> None:
        """Take in what a usage endpoint said. It may loosen a state; it stops no working account."""
        now = self.registry.clock()
        self.registry.update(account_id, lambda health: learning.absorb(health, answer.windows, now))
        for hear in self.on_usage:
            hear(account_id, answer)

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._plan_all()
        if self._leader:
            self.registry.credentials.source.sweep(time.time())
            self.registry.credentials.escrow.sweep(time.time() - escrow.KEPT_S)
        for timers in (self.refreshes, self.polls, self.setups):
            timers.start()
        self.look_whether_writable()
        self.saver.start()
        self._tasks.start()

    def _plan_all(self) -> None:
        for account_id, account in self.registry.index.accounts.items():
            account.refresh_retry_at = self.refresher.paused_until(account_id)
            self.plan(account_id)

    def _duty_moved(self, duty: str) -> None:
        """What has begun goes on: a lease of each account's own keeps a refresh to one."""
        if duty in (REFRESH, POLL):
            self._plan_all()

    def look_whether_writable(self) -> None:
        """Tell, once each time it changes, that new tokens cannot be written into their files."""
        before, self.unwritable = self.unwritable, self.registry.credentials.unwritable()
        if self.unwritable and self.unwritable != before and self._leader:
            log.warning("%s/ %s", self.registry.credentials.folder, self.unwritable)

    async def step_down(self) -> None:
        """Another process of this machine looks after all: nothing is done on timers; a refresh that is under way goes
        on."""
        self._leader = False
        for timers in (self.polls, self.setups, self.refreshes):
            await timers.close()

    async def close(self) -> None:
        """End; refreshes under way are finished first, since a rotated token must reach the disk."""
        self._stop.set()
        for timers in (self.polls, self.setups, self.refreshes):
            await timers.close()
        await self.setter.close()
        await self.refresher.close()
        await self.saver.close()
        await self._tasks.close()
        await self.registry.shared.close()

    async def _watch(self) -> None:
        """Look at the pool folder whenever it changes, and now and then. A watch that ends (another folder in its
        place, no descriptor left) begins anew; until it can, the folder is looked at every few seconds."""
        try:
            await self._watch_folder()
            self._unwatched = 0
        except Exception as exc:  # the watcher's own kinds, which it does not name
            self._unwatched += 1
            if self._unwatched == 1:
                log.warning("the pool folder cannot be watched, it is looked at instead: %s", _cause(exc))
        if not self._stop.is_set():
            await self._look()

    def _watch_pause(self) -> float:
        return min(self._unwatched, UNWATCHED_S) or WATCH_MS / 1000

    async def _watch_folder(self) -> None:
        folder = self.registry.credentials.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        watched = _directory(folder)
        watch = (await asyncio.to_thread(_load_awatch))(
            folder, stop_event=self._stop, debounce=400, step=50, rust_timeout=WATCH_MS, yield_on_timeout=True,
            ignore_permission_denied=True,
        )  # fmt: skip
        async with aclosing(watch):
            async for changes in watch:
                # The first look finds what changed before the watch began, the later ones what a file system that
                # reports nothing (a network share) kept to itself.
                self._pause -= 1
                if changes or self._pause <= 0:
                    await self._look()
                if _directory(folder) != watched:
                    return  # what happens in another directory is not reported

    async def _look(self) -> None:
        """Look at the folder; what could not be read is looked at again after one watch, then ever more seldom."""
        before = self.registry.credentials.rejected
        self._pause = LOOK_EVERY
        try:
            report = await self.registry.reload()
        except Exception:
            log.exception("looking at the pool folder failed")
            return
        self._unread = min(self._unread + 1, 6) if report.unread else 0
        self._pause = 2 ** (self._unread - 1) if report.unread else LOOK_EVERY
        if report.added or report.changed or report.removed or report.rejected != before:
            log.info(
                "pool folder changed: %d added, %d changed, %d removed, %d rejected",
                len(report.added), len(report.changed), len(report.removed), len(report.rejected),
            )  # fmt: skip
        for row in report.unread:
            if row not in before:
                log.warning("%s: %s", row.file, row.reason)

    def _upkeep(self) -> None:
        registry, now = self.registry, self.registry.clock()
        self._rounds += 1
        registry.shared.settle()
        registry.follow()
        registry.share_flight()
        registry.index.rerate(now, RERATED_AT_ONCE)
        registry.index.advance(now)
        if self._rounds % REOWN_EVERY == 0:
            registry.reown()
            registry.keep_reservations()
        if self._rounds % WRITABLE_EVERY == 0:
            self.look_whether_writable()
        if self._duties.mine(SWEEP) and self._rounds % SWEEP_EVERY == 0:
            self._pins.sweep(now)
            registry.shared.sweep(now)


def _load_awatch() -> Callable[..., AsyncGenerator[set[Any], None]]:
    """In a thread: the library takes a while to load, and nobody else loads a part of it."""
    from watchfiles import awatch

    return awatch


def _directory(folder: Path) -> tuple[int, int]:
    """Which directory is at this place; zeros for none."""
    try:
        seen = os.stat(folder)
    except OSError:
        return 0, 0
    return seen.st_dev, seen.st_ino


def _cause(error: Exception) -> str:
    """What is behind it: the watcher wraps what goes wrong in groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(because(error)) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"[:200]
