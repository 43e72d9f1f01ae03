"""Who is in the pool: files, live state and the order of choice kept together, here and in the other workers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from pool_server.accounts.credentials.look import DOUBT_S, Item, Look, doubles
from pool_server.accounts.credentials.scan import RejectedFile
from pool_server.accounts.credentials.store import CredentialStore, ReloadReport
from pool_server.accounts.health import learning, probing, share_changes, state
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.ports import LiveBookPort, StateChange
from pool_server.accounts.selection.account import Account
from pool_server.accounts.selection.candidates import Need, just_back, kept_back
from pool_server.accounts.selection.index import SelectionIndex, Suitability
from pool_server.accounts.translated import doubts_model, serves_natively, upstream_kind
from pool_server.core import processes
from pool_server.core.enums import AccountState, Operation, Provider, Refusal
from pool_server.core.origins import origin
from pool_server.core.settings import Settings
from pool_server.dialects.translation import UpstreamKind
from pool_server.language import lazy
from pool_server.providers import Credential, CredentialRejectedError, Knowledge, has_model, provider_module

SLICE_S = 0.005  # a long work on the event loop lets others go on after so long


def _day_clock(timezone: str) -> Callable[[float], int]:
    """The minute of the day in the pool's time zone, by unix seconds; UTC where this machine does not know it."""
    try:
        place: tzinfo = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        place = UTC

    def minute(now: float) -> int:
        at = datetime.fromtimestamp(now, place)
        return 60 * at.hour + at.minute

    return minute


async def gently(steps: Iterator[None]) -> None:
    """Do the steps, letting the event loop do other things every few milliseconds."""
    until = time.perf_counter() + SLICE_S
    for _ in steps:
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_S


class Registry:
    """Accounts by id, loaded as a diff that keeps everything learnt. `on_change` hears of every change of a
    state."""

    def __init__(
        self,
        credentials: CredentialStore,
        shared: LiveBookPort,
        settings: Settings,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.credentials = credentials
        self.shared = shared
        self.settings = settings
        self.clock = clock
        self.on_change: list[Callable[[str], None]] = []
        self.index = SelectionIndex(
            strategy=settings.choosing.strategy, fit=self._fit, way=self._way, target=self._target, family=_family,
        )  # fmt: skip
        self.index.minute_of = _day_clock(settings.ledger.timezone)
        self.index.on_settled = lambda account: self.changed(account.id)
        self._rng = rng
        self._worker = processes.name()
        self._busy_elsewhere: set[str] = set()
        self._gone: dict[str, Account] = {}  # removed while exchanges were under way
        self._reloading = asyncio.Lock()
        self.relock()

    def account(self, account_id: str) -> Account:
        """Raises KeyError for an unknown account."""
        return self.index.accounts[account_id]

    def under_way(self, account_id: str) -> Account | None:
        """The account, also when its file is gone while exchanges are still under way."""
        return self.index.accounts.get(account_id) or self._gone.get(account_id)

    def load(self) -> ReloadReport:
        """Read the pool folder again, here and now."""
        return self.take(self.credentials.look(self.clock()))

    def take(self, look: Look) -> ReloadReport:
        """Bring the pool in line with what the folder held."""
        look = self._single(look)
        report = self.credentials.note(look)
        for _ in self._taking(look, report):
            pass
        return report

    async def reload(self) -> ReloadReport:
        """`load` beside the event loop: files are read in a thread, what they brought is taken in slices. What looks
        lost is looked at a second time, DOUBT_S later."""
        async with self._reloading:
            await self.credentials.source.gather()
            look = await asyncio.to_thread(self.credentials.look, self.clock())
            if look.doubts:
                await asyncio.sleep(DOUBT_S)
                look = await asyncio.to_thread(self.credentials.look, self.clock(), look.doubts)
            look = self._single(look)
            report = self.credentials.note(look)
            await gently(self._taking(look, report))
        return report

    def _single(self, look: Look) -> Look:
        """`look` without the files that hold another one's sign-in: those the pool knows, or wrote itself, keep it."""

        def place(item: Item) -> tuple[bool, bool, int, str]:
            account = item.found.account
            return (
                account not in self.credentials.items,
                not self.shared.own_file(account),
                len(item.found.name),
                account,
            )

        found = doubles(
            ((item.found.account, item.found.name, item.credential) for item in sorted(look.items.values(), key=place)),
            self.clock(),
            self.shared.spent_by,
        )
        if not found:
            return look
        rejected = [
            RejectedFile(look.items[account].found.name, lazy("the same sign-in as {name}", name=name))
            for account, name in found.items()
        ]
        items = {account: item for account, item in look.items.items() if account not in found}
        return msgspec.structs.replace(look, items=items, rejected=look.rejected + rejected)

    def _taking(self, look: Look, report: ReloadReport) -> Iterator[None]:
        """`take` account by account, each whole when the next begins. What the pool wrote itself is no news, what
        others wrote is a new sign-in."""
        credentials, index = self.credentials, self.index
        for account_id in list(dict.fromkeys((*credentials.items, *look.items))):
            before = credentials.items.get(account_id)
            news = credentials.settle(account_id, look, report)
            if news and account_id in credentials.items:
                self.renew(account_id, before.credential if before is not None else None)
                index.advance(self.clock())
            elif news:
                self._leave(account_id)
            yield
        for account_id in [*report.added, *report.changed, *report.removed]:
            self.changed(account_id)
            yield

    def renew(self, account_id: str, before: Credential | None) -> None:
        """Bring an account in line with its file. `before` is the credential it had, None when it is new here."""
        item = self.credentials.items[account_id]
        account = self.index.accounts.get(account_id)
        if account is None:
            account = self._gone.pop(account_id, None) or Account(
                item.credential, item.options, AccountHealth(jitter=self._rng.random())
            )
            self.shared.load(account)
        self._take_file(account)
        account.refresh_retry_at = account.refused_until = 0.0
        self.index.put(account)
        if self._signed_in(account, before, item.credential):
            self.update(account_id, lambda health: learning.new_login(health, self.clock()))

    def _take_file(self, account: Account) -> None:
        """Bring an account in line with what the store has of its file."""
        item = self.credentials.items[account.id]
        account.credential, account.options = item.credential, item.options
        account.owner = self.credentials.owner_of(account.id)
        account.people = self.credentials.people_of(account.id)
        credential, module = item.credential, provider_module(account.provider)
        addresses = module.addresses(credential, self.settings)
        account.way = f"{origin(addresses[0]) if addresses else account.provider.value} {item.options.proxy_url or ''}"
        account.refreshable = module.refreshable(credential, self.settings)

    def _signed_in(self, account: Account, before: Credential | None, now: Credential) -> bool:
        """Did somebody else than the pool bring another credential?"""
        if before is None:
            dead = account.health.state in (AccountState.NEEDS_LOGIN, AccountState.SUSPENDED)
            return dead and account.health.token not in ("", now.fingerprint)
        if before.secret == now.secret:
            return False
        return self.shared.own_file(now.account) != self.credentials.items[now.account].digest

    def reread(self, account_id: str) -> None:
        """Another worker rewrote the account's file."""
        item = self.credentials.items.get(account_id)
        if item is None:
            return
        try:
            self.credentials.reread(account_id, self.clock())
        except CredentialRejectedError:
            return  # the next load says why
        self.renew(account_id, item.credential)

    async def follow_source(self) -> None:
        """Take in what other machines changed of credentials."""
        changed, known = await self.credentials.source.news(), self.credentials.items
        if all(one in known and self.credentials.source.exists(known[one].found) for one in changed):
            for account_id in changed:
                self.reread(account_id)
                self.changed(account_id)
        else:
            await self.reload()

    def drop(self, account_id: str) -> None:
        """An account's file was taken out of the pool: it serves nobody from now on, unless the file is there."""
        item = self.credentials.items.get(account_id)
        if item is None or self.credentials.source.exists(item.found):
            return
        del self.credentials.items[account_id]
        self._leave(account_id)
        self.changed(account_id)

    def _leave(self, account_id: str) -> None:
        account = self.index.remove(account_id)
        if account is not None and account.local:
            self._gone[account_id] = account

    def follow(self) -> None:
        """Take in what other workers changed."""
        news = self.shared.news()
        if news is None:
            news = [(StateChange.LOCK, ""), *((StateChange.HEALTH, account_id) for account_id in self.index.accounts)]
        for change, account_id in news:
            if change is StateChange.LOCK:
                self.relock()
            elif change is StateChange.FILE:
                self.reread(account_id)
            elif change is StateChange.GONE:
                self.drop(account_id)
            elif (account := self.index.accounts.get(account_id)) is not None and self.shared.load(account):
                self.index.touch(account)
                self.changed(account_id)

    def reown(self) -> None:
        """Bring the owners of accounts in line with who is in the pool now."""
        for account_id, item in self.credentials.items.items():
            account = self.index.accounts.get(account_id) if item.options.owner else None
            if account is not None and account.owner != self.credentials.owner_of(account_id):
                self._take_file(account)
                self.index.put(account)

    def update(self, account_id: str, change: Callable[[AccountHealth], bool]) -> bool:
        """Change what is known of an account, for all workers; True when that changed anything."""
        account = self.under_way(account_id)
        if account is None:
            return False
        state = account.health.state
        changed = self.shared.update(account, share_changes.learning(change) if account.health.share_use else change)
        if account_id in self.index.accounts:
            self.index.touch(account)
            if account.health.state is not state:
                self.changed(account_id)
        return changed

    def changed(self, account_id: str) -> None:
        for hear in self.on_change:
            hear(account_id)

    def take_room(self, account: Account, scopes: tuple[str, ...], user: str | None, now: float) -> bool:
        """Reserve for a request of this worker what it is taken to use of an account that its owner keeps a part of;
        False where it does not fit in what all workers have reserved by now. The owner's, and one of no `user`, fits
        always."""
        taken = self._room_taken(account, scopes, user, now)
        taken.firm = self.shared.update(account, taken)
        self._touch(account)
        return taken.firm

    async def agree_room(self, account: Account, scopes: tuple[str, ...], user: str | None, now: float) -> bool:
        """The same, as it fits in what all machines have reserved by now."""
        agreed = await self.shared.agreed(account, self._room_taken(account, scopes, user, now))
        self._touch(account)
        return agreed

    def _room_taken(
        self, account: Account, scopes: tuple[str, ...], user: str | None, now: float
    ) -> share_changes.RoomTaken:
        anyway = user in (None, account.owner)
        return share_changes.RoomTaken(
            self._worker, now, lambda known: anyway or not kept_back(account, known, scopes, now)[0]
        )

    def _touch(self, account: Account) -> None:
        if account.id in self.index.accounts:
            self.index.touch(account)

    def begun(self, account: Account, scopes: tuple[str, ...], now: float) -> None:
        """An exchange with an account is under way; where it cools down, one that shows whether it serves again."""
        account.local += 1
        self.index.chosen(account)
        if not account.health.cooldowns:
            return
        if just_back(account, now):
            self.update(account.id, lambda known: state.return_begun(known, scopes, now))
        found = probing.cooling(account.health, scopes, now)
        if found is not None:
            self.update(account.id, lambda known: state.probe_begun(known, found[0], now))

    def keep_reservations(self) -> None:
        """Say which requests are under way here, and take those of dead workers for ended."""
        now = self.clock()
        for account in list(self.index.accounts.values()):
            use = account.health.share_use
            if use is not None and (use.flight or account.local):
                requests = account.local if account.keeps else 0
                dead = [worker for worker in use.flight if worker != self._worker and processes.ended(worker)]
                self.update(account.id, share_changes.kept(self._worker, requests, dead, now))

    def ended(self, account_id: str) -> Account | None:
        """One exchange less is under way; returns the account if it is (still) in the pool."""
        account = self.under_way(account_id)
        if account is None:
            return None
        account.local = max(0, account.local - 1)
        if account.keeps:
            self.update(account_id, share_changes.settled(self._worker, self.clock()))
        if account_id in self._gone:
            if not account.local:
                del self._gone[account_id]
            return None
        self.index.moved(account)
        return account

    def share_flight(self) -> None:
        """Tell the other workers what is under way here, and hear the same from them."""
        if not self.shared.many:
            return
        self.shared.publish({i: a.local for i, a in self.index.accounts.items() if a.local})
        elsewhere = self.shared.elsewhere()
        for account_id in self._busy_elsewhere | elsewhere.keys():
            account = self.index.accounts.get(account_id)
            if account is not None and account.elsewhere != elsewhere.get(account_id, 0):
                account.elsewhere = elsewhere.get(account_id, 0)
                self.index.touch(account)
        self._busy_elsewhere = set(elsewhere)

    def stand_beside(self, another: bool) -> None:
        """Another server shares the state from now on, as while an upgrade lasts, or one that did has ended."""
        if not another:
            self.share_flight()  # nothing of it is under way any more
        self.shared.share(another)

    def relock(self) -> None:
        """Read again which account the pool is locked to: the operator's word at run time over the settings."""
        said = self.shared.locked()
        self.index.locked = self.settings.choosing.lock_account if said is None else said

    def set_settings(self, settings: Settings) -> None:
        self.settings = settings
        self.index.set_strategy(settings.choosing.strategy)
        self.index.refit()
        self.relock()

    async def write(self, account_id: str, updates: dict[str, object]) -> None:
        """Write fields of the operator's into an account's file. Raises KeyError, OSError or Rejected."""
        before = self.credentials.items[account_id].credential
        digest = await asyncio.to_thread(self.credentials.write, account_id, updates)
        self.shared.note_own_file(account_id, digest)
        self.credentials.reread(account_id, self.clock())
        self.renew(account_id, before)
        self.changed(account_id)

    def took(self, account_id: str, before: Credential, digest: str) -> None:
        """The pool wrote a new credential into an account's file and holds it."""
        if digest:
            self.shared.note_own_file(account_id, digest)
        if account_id in self.credentials.items:
            self.renew(account_id, before)
            self.changed(account_id)

    def _fit(self, account: Account, need: Need) -> Refusal | None:
        """Why this kind of account cannot serve the need, None when it can."""
        cred = self.credentials.items[account.id].credential
        need = _as_called_there(cred, need)
        module = provider_module(cred.provider)
        if need.websocket and not need.model and not module.websocket(cred):
            return Refusal.TRANSPORT  # a socket nobody has said anything on is tied to a vendor's own
        if not self._natively(cred, need) and not self._otherwise(cred, need):
            general = module.serves(cred, need.operation, need.dialect, "")
            return Refusal.MODEL_NOT_SERVED if general else Refusal.TRANSPORT
        return None if module.plan_fits(cred, need.model) else Refusal.PLAN_UNFIT

    def _natively(self, cred: Credential, need: Need) -> bool:
        if self.settings.models.translate:
            return serves_natively(cred, need.operation, need.dialect, need.model, own_dialect=need.own_dialect)
        return provider_module(cred.provider).serves(cred, need.operation, need.dialect, need.model)

    def _way(self, account: Account, need: Need) -> Suitability:
        """How this kind of account serves the need."""
        cred = self.credentials.items[account.id].credential
        need = _as_called_there(cred, need)
        if self._otherwise(cred, need):
            known = has_model(cred, need.model) is Knowledge.HAS
            return Suitability.TRANSLATED if known else Suitability.DOUBTED
        return Suitability.DOUBTED if doubts_model(cred, need.operation, need.model) else Suitability.OWN

    def _otherwise(self, cred: Credential, need: Need) -> bool:
        if not self.settings.models.translate or self._natively(cred, need):
            return False
        return upstream_kind(cred, need.operation, need.dialect, need.model) is not None

    def _target(self, account: Account, need: Need) -> UpstreamKind | None:
        cred = self.credentials.items[account.id].credential
        need = _as_called_there(cred, need)
        return upstream_kind(cred, need.operation, need.dialect, need.model) if self._otherwise(cred, need) else None


def _as_called_there(cred: Credential, need: Need) -> Need:
    """The need with the account's own name of the model; a live conversation names it more than once, and has none."""
    if not cred.renames or need.operation is Operation.REALTIME:
        return need
    return msgspec.structs.replace(need, model=cred.own_name(need.model))


def _family(provider: Provider, model: str) -> str:
    return provider_module(provider).model_family(model)
