"""The accounts of the pool: the one object the rest of the server speaks to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

from pool_server.accounts import describe
from pool_server.accounts.administration.service import Administration
from pool_server.accounts.background import Background
from pool_server.accounts.credentials.escrow import Escrow
from pool_server.accounts.credentials.refresh import RefreshError
from pool_server.accounts.credentials.source import PoolFolder
from pool_server.accounts.credentials.store import CredentialStore, ReloadReport
from pool_server.accounts.health.outcomes import Outcomes
from pool_server.accounts.held_requests import HeldRequests
from pool_server.accounts.ports import AccountPorts
from pool_server.accounts.registry import Registry, gently
from pool_server.accounts.replication import Replication
from pool_server.accounts.selection import returns
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.affinity import Pins, PinsPort, keys_of
from pool_server.accounts.selection.affinity_lookup import affinity_of
from pool_server.accounts.selection.candidates import just_back
from pool_server.accounts.selection.hosts import Hosts
from pool_server.accounts.selection.select import Decision, SelectionRequest, select
from pool_server.accounts.selection.wait_queue import WaitQueue
from pool_server.accounts.selection.warmth import WarmthMemory
from pool_server.accounts.sign_in.records import EmbeddedSignIns, SignInStore
from pool_server.accounts.sign_in.service import SignIns
from pool_server.core.enums import AccountState, Operation, Provider
from pool_server.core.models import HttpRequest, Send
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy
from pool_server.providers import SPECS, Credential
from pool_server.storage import Store
from pool_server.storage.leases import EmbeddedLeases, FixedDuties
from pool_server.storage.write_behind import WriteBehind

REFRESH_PATIENCE_S = 2.5  # so long an exchange waits for a refresh before another account is chosen
LATE_S = 5.0  # and so long its account is then left alone, less than a request waits where nobody else serves
REFUSED_S = 15.0  # at most, where the refresh was refused: that may have been a whim
OWNED_S = 7 * 86400.0  # how long a response or file is remembered to be one account's


class Accounts:
    """All accounts of one worker process.

    `state` is the shared state store (opened with `STATE_TABLES`), `send` does the pool's own HTTP calls,
    `clock` gives unix seconds, `leader` is the one worker that refreshes on timers and polls. `load()` comes
    before anything else; `start()` needs a running event loop. Unknown account ids raise KeyError where an
    operator asks, and are ignored where an exchange reports (its account may have been removed meanwhile).
    """

    def __init__(
        self,
        settings: Settings,
        state: Store,
        *,
        send: Send,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        leader: bool = True,
        ports: AccountPorts | None = None,
        pins: PinsPort | None = None,
        sign_ins: SignInStore | None = None,
    ) -> None:
        """`ports`: where accounts are kept; None = in the state store and the pool folder; `pins` and `sign_ins`, of
        those under way, likewise."""
        rng = rng or random.Random()
        self._clock = clock
        self._send = send
        self._state, self._leader, self._sign_in_store = state, leader, sign_ins
        write_behind = WriteBehind(state, clock)
        ports = ports or AccountPorts(
            Replication(write_behind, many=settings.workers != 1), EmbeddedLeases(write_behind, clock),
            FixedDuties(leader), PoolFolder(Path(settings.pool_dir)),
        )  # fmt: skip
        self._ports, shared = ports, ports.live
        credentials = CredentialStore(ports.source, Escrow(Path(settings.data_dir)))
        self._registry = Registry(credentials, shared, settings, clock=clock, rng=rng)
        self._index = self._registry.index
        self._pins_port, self.pins_elsewhere = pins, pins is not None
        alone = (lambda: not shared.many) if pins is None else bool
        self._pins = Pins(write_behind, ttl_s=settings.choosing.pin_ttl_h * 3600, alone=alone, elsewhere=pins)
        self.warmth = WarmthMemory(pins or write_behind)
        self._background = Background(self._registry, self._pins, ports, send=send, rng=rng, leader=leader)
        self._outcomes = Outcomes(self._registry, send=send, poll_soon=self._background.poll_soon)
        self._background.on_usage.append(lambda one, answer: self._outcomes.tell(one, answer.windows))
        self.hosts = Hosts(self._index, clock)
        self._waiting = WaitQueue(self.select, clock)
        self.held = HeldRequests(Path(settings.data_dir), lambda: self._registry.settings.night_shift, clock)
        self._registry.on_change.append(lambda _: self._waiting.wake())
        self.on_change = self._registry.on_change
        self.duties = ports.duties
        self._publish()

    def _publish(self) -> None:
        """What others do: the operator's changes (`Administration`), pages' rows, and what requests teach."""
        background = self._background
        hand = Administration(self._registry, background.refresher, send=self._send, learn_usage=background.learn_usage)
        kept = self._sign_in_store or EmbeddedSignIns(self._state, Path(self._registry.settings.data_dir))
        self.sign_ins = SignIns(
            kept, hand, settings=lambda: self._registry.settings,
            send=self._send, clock=self._clock, owner_of=self._registry.credentials.owner_of,
        )  # fmt: skip
        self.add, self.remove, self.restore, self.removed = hand.add, hand.remove, hand.restore, hand.removed
        self.withdraw_account, self.vendor_spend, self.replace = hand.withdraw, hand.vendor_spend, hand.replace
        self.change, self.sign_ins_end, self.reset = hand.change, hand.sign_ins_end, hand.reset
        self.set_disabled, self.set_priority, self.lock = hand.set_disabled, hand.set_priority, hand.lock
        self.refresh_now, self.test, self.stand_beside = hand.refresh_now, hand.test, self._registry.stand_beside
        rows = describe.AccountRows(self._registry, background, self._now)
        self.describe, self.describe_some, self.describe_all = rows.describe, rows.some, rows.all
        self.brief_all, self.explain = rows.brief_all, rows.explain
        outcomes = self._outcomes
        self.own_calls, self.on_observation = outcomes.own_calls, outcomes.on_observation
        self.observe, self.succeed, self.fail = outcomes.observe, outcomes.succeed, outcomes.fail
        self.contrast, self.acquit, self.withdraw = outcomes.contrast, outcomes.acquit, outcomes.withdraw

    # -- life -------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Hear what other machines know, before `load`. Raises StoreError."""
        for part in (self._ports.live, self._ports.source, self._ports.duties):
            await part.start()

    def load(self) -> ReloadReport:
        """Read the pool folder for the first time."""
        self._registry.credentials.recover(self._clock())
        return self._registry.load()

    async def reload(self, settings: Settings | None = None) -> ReloadReport:
        """Read the pool folder (and take new settings) as a diff that keeps everything learnt and under way. The
        event loop is held for a few milliseconds at a time."""
        if settings is not None:
            self._registry.set_settings(settings)
            await gently(self._background.set_settings(settings))
        return await self._registry.reload()

    async def follow_credentials(self) -> None:
        """Another machine has changed something of the accounts' credentials."""
        await self._registry.follow_source()

    def learn_demand(self, hours: Iterable[tuple[float, float]]) -> None:
        """Learn from what the last weeks used, (begin of an hour, amount), when the accounts are wanted most: what is
        left before quiet hours is worth less."""
        self._registry.index.clock.learn(hours, self._now())

    async def start(self) -> None:
        """Begin to watch files, refresh, poll and follow other workers."""
        if self._pins_port is not None:
            await self._pins_port.start()
        await self._background.refresher.inherit()
        self._background.start()
        if self._leader:
            self.sign_ins.start()

    async def step_down(self) -> None:
        """Another process is the leader from now on; what this one has begun is finished."""
        await self._ports.duties.step_down()
        await asyncio.gather(self.sign_ins.close(), self._background.step_down())

    async def close(self) -> None:
        """Stop all that; refreshes under way finish first."""
        self._waiting.close()
        await asyncio.gather(self.sign_ins.close(), self.own_calls.close())
        await self._background.close()
        await self._ports.duties.close()
        if self._pins_port is not None:
            await self._pins_port.close()

    # -- choosing ---------------------------------------------------------------------------------------------

    def select(self, request: SelectionRequest) -> Decision:
        """Choose an account for `request`. Binds and counts nothing: `begin` follows at once, `bind` when it
        answered."""
        now = self._clock()
        self._registry.follow()
        self._index.advance(now)
        return select(request, self._index, now, affinity_of(self._pins, self.warmth, request, now))

    async def wait_turn(self, request: SelectionRequest, *, deadline: float) -> Decision:
        """Like `select`, but when the nearest account returns before `deadline` (unix seconds) the request
        waits for it, first in first out and fair between users. `begin` must follow without another await.

        Accounts this request was tried on are asked anew when their cooldown is over: a wait ends in a fresh look."""
        return await self._waiting.wait(returns.fresh(self._index, request, self._now()), deadline)

    def bind(self, request: SelectionRequest, account_id: str) -> None:
        """An account answered: pin the conversation to it, unless it only stood in for a moment."""
        now = self._clock()
        account = self._index.accounts.get(account_id)
        if account is not None and account.health.cooldowns and just_back(account, now):
            scopes = self._index.scopes(account.provider, request.model, request.operation)
            self._outcomes.return_answered(account_id, scopes)
            self._waiting.wake()
        if request.session is None:
            return
        provider = Provider(account_id.partition(":")[0])
        still = partial(returns.comes_back, self._index, request=request, now=now)
        self._pins.pin(provider, request.user, request.session, account_id, now, still)

    def begin(self, account_id: str, model: str, operation: Operation, user: str | None = None) -> bool:
        """An exchange with this account began; it counts as under way until `end`. False, and it does not, where it was
        to be served from what the owner gives to `user` and that is filled by now: choose again. Without a `user` it
        is counted whatever is left."""
        account, now = self._index.accounts.get(account_id), self._clock()
        if account is None:
            return True
        scopes = self._index.scopes(account.provider, model, operation)
        if account.keeps and not self._registry.take_room(account, scopes, user, now):
            return False
        return self._begun(account, scopes, now)

    async def begin_agreed(self, account_id: str, model: str, operation: Operation, user: str | None = None) -> bool:
        """`begin`, where machines that know of each other in a moment only must not fill what an owner gives twice."""
        account, now = self._index.accounts.get(account_id), self._clock()
        if account is None or not account.keeps or not self._ports.live.far:
            return self.begin(account_id, model, operation, user)
        scopes = self._index.scopes(account.provider, model, operation)
        return await self._registry.agree_room(account, scopes, user, now) and self._begun(account, scopes, now)

    def _begun(self, account: Account, scopes: tuple[str, ...], now: float) -> bool:
        self._registry.begun(account, scopes, now)
        self.hosts.begun(account)
        return True

    def end(self, account_id: str) -> None:
        """The exchange is over, to the last byte."""
        account = self._registry.ended(account_id)
        if account is not None and not account.local and account.health.cooldowns:
            self._outcomes.probe_lost(account_id)

    # -- credentials ------------------------------------------------------------------------------------------

    def credential(self, account_id: str) -> Credential:
        """Raises KeyError for an unknown account."""
        return self._registry.credentials.items[account_id].credential

    def proxy_url(self, account_id: str) -> str | None:
        """The account's own proxy, None for a direct line."""
        return self._registry.credentials.items[account_id].options.proxy_url

    def bounded(self, account_id: str, request: HttpRequest) -> HttpRequest:
        """A call of the pool's own on behalf of an account: over its proxy, and to its own hosts alone. Raises
        KeyError."""
        return self._registry.credentials.bounded(account_id, request, self._registry.settings)

    def has(self, provider: Provider) -> bool:
        """Is there any account of this provider, whatever its state?"""
        return any(cohort.members for cohort in self._index.by_provider.get(provider, ()))

    def owner(self, account_id: str) -> str:
        """The id of the user the account belongs to, "" for the pool's own. Raises KeyError."""
        return self._registry.credentials.owner_of(account_id)

    def owners(self) -> set[str]:
        """Who the files name as owners, ids and names as they are written."""
        return {item.options.owner for item in self._registry.credentials.items.values() if item.options.owner}

    def follow_people(self, owner_id: Callable[[str], str], groups_of: Callable[[str], frozenset[str]]) -> None:
        """From now on `owner_id` tells which user id a file's owner stands for, "" for nobody, and `groups_of` which
        groups a user is in now."""
        self._registry.credentials.owner_id, self._index.groups_of = owner_id, groups_of
        self._registry.reown()

    def knows(self, account_id: str) -> bool:
        """Is this account in the pool?"""
        return account_id in self._index.accounts

    def ids(self) -> list[str]:
        """The accounts of the pool, in no order."""
        return list(self._index.accounts)

    def owned(self, providers: Iterable[Provider]) -> list[tuple[str, str]]:
        """(account, owner) of the accounts of these providers that have one."""
        return [(a.id, a.owner) for a in self._index.accounts.values() if a.owner and a.provider in providers]

    def owns(self, user: str, provider: str) -> bool:
        """Whether an account of this provider is theirs."""
        return any(one.provider.value == provider for one in self._index.owned.get(user, {}).values())

    async def refresh(self, account_id: str, failed_token: str, reason: str = "") -> Credential:
        """A credential other than the one whose token (or its fingerprint) was refused; see `Refresher.refresh`.

        Single-flight for each token value, also across workers; goes on when the caller is cancelled, or has waited for
        `REFRESH_PATIENCE_S`. Until there is another token, or a while has passed, the account serves nobody. `reason`
        is for the log. Raises KeyError and RefreshError.
        """
        try:
            async with asyncio.timeout(REFRESH_PATIENCE_S):
                return await self._background.refresher.refresh(account_id, failed_token)
        except TimeoutError:
            failure = RefreshError(lazy("the refresh takes long"), permanent=False, retry_at=self._clock() + LATE_S)
        except RefreshError as exc:
            failure = exc
        self._refused(account_id, failure)
        raise failure

    def _refused(self, account_id: str, failure: RefreshError) -> None:
        account, now = self._index.accounts.get(account_id), self._clock()
        if account is not None and not failure.permanent:
            account.refused_until = min(failure.retry_at or now, now + REFUSED_S)
            self._index.touch(account)

    async def complete(self, account_id: str) -> Credential:
        """The credential, after the account's one-time set-up when that is still wanted; see `Setter`.

        Single-flight, goes on when the caller is cancelled, waited for at most 20 s. Raises KeyError and
        SetupFailed, whose fault the account's state knows already.
        """
        return await self._background.setter.complete(account_id)

    # -- pins -------------------------------------------------------------------------------------------------

    def fetch_pins(
        self, providers: Iterable[Provider], user: str, session: str | None, things: Iterable[tuple[str, str]]
    ) -> Awaitable[None] | None:
        """What is awaited before anything is asked of a conversation or of these (kind, id), as `PinsPort.fetch`; None
        where this machine has them all."""
        return None if self._pins_port is None else self._pins_port.fetch(keys_of(providers, user, session, things))

    def own(self, user: str, kind: str, thing: str, account_id: str, ttl: float = OWNED_S) -> None:
        """Remember for `ttl` seconds that this response, file or turn belongs to the account alone."""
        self._pins.own(user, kind, thing, account_id, ttl, self._clock())

    def owner_of(self, user: str, kind: str, thing: str) -> str | None:
        """The account that owns it, None when unknown."""
        return self._pins.owner(user, kind, thing, self._clock())

    # -- telling ----------------------------------------------------------------------------------------------

    def rejected(self) -> list[dict[str, str]]:
        """The files and folders that could not be used or read, with the reason."""
        return [one.told() for one in self._registry.credentials.rejected]

    def folder_trouble(self) -> dict[str, LazyText]:
        """Credential files and folders that are known and cannot be read now, or were emptied, and a pool folder that
        cannot be written: what is wrong."""
        credentials, unwritable = self._registry.credentials, self._background.unwritable
        own = {f"{credentials.folder.name}/": unwritable} if unwritable else {}
        return {**own, **credentials.wrong}

    def unwritable(self) -> str:
        """Why new tokens cannot be written into the credential files, "" when they can. Names no account."""
        return str(self._background.unwritable or "")

    def _now(self) -> float:
        now = self._clock()
        self._registry.follow()
        self._index.advance(now)
        return now

    def offered(self) -> list[Provider]:
        """The providers with accounts here, and those that every pool is about: not each preset nobody uses."""
        return [one for one, spec in SPECS.items() if not spec.preset or self.has(one)]

    def summary(self) -> list[describe.ProviderStatus]:
        """Per provider: accounts by state, room, windows, nearest return."""
        now = self._now()
        rows = []
        for provider in Provider:
            cohorts = self._index.by_provider.get(provider, [])
            accounts = [a for cohort in cohorts for a in cohort.members.values()]
            if accounts:
                standings = [c.queues[()].placements[i].candidate for c in cohorts for i in c.members]
                rows.append(describe.provider_status(provider, accounts, standings, now))
        return rows

    def glance(self, provider: Provider) -> tuple[float | None, list[describe.PooledWindow]]:
        """(percent of room left, windows) of a provider, cheap however many accounts there are; see `room`."""
        now = self._now()
        cohorts = self._index.by_provider.get(provider, [])
        sampled = [a for cohort in cohorts for a in describe.sample(cohort.members.values())]
        return describe.glance(provider, sampled, now)

    def samples(self, provider: Provider) -> list[tuple[str, AccountState]]:
        """(account id, state) of some accounts of every kind; all of them in a usual pool, see `room`."""
        self._now()
        cohorts = self._index.by_provider.get(provider, [])
        return [(a.id, a.state) for cohort in cohorts for a in describe.sample(cohort.members.values())]

    def ready(self) -> tuple[int, int]:
        """How many accounts there are, and how many of them can serve now."""
        self._now()
        queues = [cohort.queues[()] for cohorts in self._index.by_provider.values() for cohort in cohorts]
        return len(self._index.accounts), sum(len(queue.ready) for queue in queues)

    def models(self) -> dict[Provider, list[str]]:
        """What the accounts that can serve declare (API keys limited to models)."""
        self._now()
        found: dict[Provider, set[str]] = {}
        for provider, cohorts in self._index.by_provider.items():
            for cohort in cohorts:
                first = next(iter(cohort.queues[()].ready), None)
                if first is not None:
                    found.setdefault(provider, set()).update(self.credential(first[-1]).models)
        return {provider: sorted(models) for provider, models in found.items()}
