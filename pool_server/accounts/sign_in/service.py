"""Sign-ins from their start to an account: the line, the device code, the pasted address.

States and steps are those of `SignInState` and `SignInStep`. A code is marked as used before it is sent, tokens are in
the sealed record before anything is done with them: whoever dies in between loses no sign-in that a vendor gave.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pool_server.accounts.administration.service import Administration
from pool_server.accounts.sign_in import browser, landing
from pool_server.accounts.sign_in.landing import Landing, LandingError
from pool_server.accounts.sign_in.pasted import PastedCodeError
from pool_server.accounts.sign_in.records import AccountSignIn, Secrets, SignInRecords, SignInStore, end, ticket_mark
from pool_server.core import processes
from pool_server.core.enums import Provider, SignInFlow, SignInState, SignInStep
from pool_server.core.models import Send
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy, lazy_of
from pool_server.providers import CredentialRejectedError, SignInRefusedError
from pool_server.providers.keys.pasted import recognise
from pool_server.storage import StoreError

log = logging.getLogger(__name__)

PAGE_S = 900.0  # a code or an address has so long …
LINE_S = 1800.0  # … and a line, whose program is first to be found or installed
MOST_OF_ONE, MOST = 3, 20  # open sign-ins of one person, and of the pool
MOST_TRIES = 10
CLAIM_S = 120.0  # how long one worker may be at it; what is known to have died is followed at once
TICK_S = 0.5


class SignInStart(msgspec.Struct, frozen=True):
    """What is to begin. `starter` is who does, `owner` whom the account will belong to ("" = the pool). `consent`: the
    words that were agreed to."""

    provider: Provider
    flow: SignInFlow
    starter: str
    owner: str = ""
    target: str = ""
    name: str = ""
    label: str = ""
    proxy_url: str | None = None
    workspace: str = ""
    consent: str = ""
    invitation: str = ""


class SignInLimitError(Exception):
    """Too many sign-ins are open."""

    def __init__(self, said: LazyText) -> None:
        super().__init__(said)


class SignInBusyError(Exception):
    """It is being worked at just now."""

    def __init__(self, said: LazyText) -> None:
        super().__init__(said)


class SignIns:
    """The sign-ins of one worker's pool. `on_end` hears of each that ended as done or failed, `settings` are those in
    force. Methods raise StoreError."""

    def __init__(
        self,
        store: SignInStore,
        hand: Administration,
        *,
        settings: Callable[[], Settings],
        send: Send,
        clock: Callable[[], float],
        owner_of: Callable[[str], str],
    ) -> None:
        self.records = SignInRecords(store, clock)
        self.settings = settings
        self.send = send
        self._clock = clock
        self._landing = Landing(hand, owner_of=owner_of)
        self.worker = processes.name()
        self.on_end: list[Callable[[AccountSignIn], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None

    # -- from outside

    async def begin(self, asked: SignInStart) -> dict[str, Any]:
        """A new sign-in, as `shown` tells it. One of the same person for the same account, or for a new one of the same
        name, takes the place of the one before it. Raises SignInLimitError."""
        records, now = self.records, self._clock()
        await records.sweep()
        for other in [one for one in await records.all() if one.open]:
            same = (other.starter, other.provider, other.target, other.name, other.invitation)
            if same == (asked.starter, asked.provider, asked.target, asked.name, asked.invitation):
                await self.cancel(other.id)
        open_now = [one for one in await records.all() if one.open]
        if len(open_now) >= MOST or sum(one.starter == asked.starter for one in open_now) >= MOST_OF_ONE:
            raise SignInLimitError(lazy("too many sign-ins are open: finish or cancel one first"))
        record = AccountSignIn(
            secrets.token_urlsafe(24), asked.provider, asked.flow, asked.starter, asked.owner, now,
            now + (LINE_S if asked.flow is SignInFlow.LINE else PAGE_S), asked.target, asked.name, asked.label,
            asked.proxy_url, consent=asked.consent, invitation=asked.invitation,
        )  # fmt: skip
        try:
            what = await self._opening(record, asked.workspace)
        except SignInRefusedError as refused:
            end(record, SignInState.FAILED, refused.code, lazy_of(refused))
            await records.put(record)
            await self._ended(record)
            return self.shown(record)
        records.seal(record, what)
        await records.put(record)
        return self.shown(record)

    async def _opening(self, record: AccountSignIn, workspace: str) -> Secrets:
        if record.flow is SignInFlow.LINE:
            ticket = secrets.token_urlsafe(24)
            record.ticket = ticket_mark(ticket)
            return Secrets(ticket=ticket)
        return await browser.opening(self, record, workspace)

    @property
    def now(self) -> float:
        return self._clock()

    async def get(self, ident: str) -> AccountSignIn | None:
        """A sign-in by its id, None when there is none."""
        return await self.records.get(ident)

    async def by_ticket(self, ticket: str) -> AccountSignIn | None:
        """The open sign-in whose line has this ticket, None when there is none."""
        return await self.records.by_ticket(ticket)

    async def fetched(self, record: AccountSignIn) -> None:
        """The line's script was fetched: the person has begun."""
        await self.records.change(record.id, _at_vendor)

    def shown(self, record: AccountSignIn) -> dict[str, Any]:
        """What its starter sees. The secrets of it that a person needs are the ticket of the line, the address and the
        user code; never a verifier, a code or a token."""
        what = self.records.opened(record)
        row: dict[str, Any] = {
            "id": record.id, "provider": record.provider.value, "flow": record.flow.value, "state": record.state.value,
            "step": record.step.value if record.open else None, "target": record.target, "name": record.name,
            "account": record.account, "code": record.code, "message": record.told, "found": record.found,
            "test": record.test, "expires_in": max(0, round(record.deadline - self._clock())) if record.open else 0,
            "next": landing.next_step(record), "interval": record.interval,
        }  # fmt: skip
        shown = {"ticket": what.ticket, "url": what.url, "user_code": what.user_code}
        return row | {name: value for name, value in shown.items() if value}

    async def deliver(self, record: AccountSignIn, text: str) -> AccountSignIn:
        """The line's program posted a credential file. Raises SignInBusyError, and CredentialRejectedError for what may
        be tried again with the same line."""
        claimed = await self._claim(record.id, SignInStep.CHECK)
        try:
            provider, data = await asyncio.to_thread(recognise, text, now=self._clock())
            if provider not in (record.provider, None):
                other = provider.value if provider is not None else ""
                raise CredentialRejectedError(
                    lazy(
                        "this is a credential of {other}; the line was for {value}",
                        other=other,
                        value=record.provider.value,
                    )
                )
        except CredentialRejectedError as refused:
            await self._failed_try(claimed, lazy_of(refused))
            raise
        claimed.tries += 1
        return await self._land(claimed, Secrets(ticket=self.records.opened(claimed).ticket, data=data), keep=False)

    async def paste(self, record: AccountSignIn, text: str) -> AccountSignIn:
        """The address or code from the person's browser. Raises PastedCodeError and SignInBusyError."""
        if not record.open:
            return self._pasted_late(record, text)
        what = self.records.opened(record)
        under_way = await self.records.all()
        others = [self.records.opened(one).state for one in under_way if one.open and one.id != record.id]
        try:
            found = browser.read(self.settings(), text, what.state, others)
        except PastedCodeError as wrong:
            await self._failed_try(record, lazy_of(wrong), wrong.code)
            raise
        if found.error:
            refused = browser.refused(found)
            return await self._end(record, SignInState.FAILED, refused.code, lazy_of(refused))
        mark = _mark(found.code)
        if mark in record.used:
            return await self.records.get(record.id) or record
        claimed = await self._claim(record.id, SignInStep.EXCHANGE, mark)
        return await self.exchange(claimed, found.code, what)

    def _pasted_late(self, record: AccountSignIn, text: str) -> AccountSignIn:
        """The code that ended a sign-in, pasted once more as in a second tab, has its result. Raises SignInBusyError
        for anything else."""
        try:
            code = browser.read(self.settings(), text, None, ()).code
        except PastedCodeError:
            code = ""
        if _mark(code) not in record.used:
            raise SignInBusyError(lazy("this sign-in is over; start again"))
        return record

    async def exchange(self, record: AccountSignIn, code: str, what: Secrets) -> AccountSignIn:
        """Turn a code into tokens, once, and go on."""
        try:
            data, found = await browser.exchange(self, record, code, what)
        except SignInRefusedError as refused:
            return await self._end(record, SignInState.FAILED, refused.code, lazy_of(refused))
        record.found, record.step = found, SignInStep.CHECK
        return await self._land(record, msgspec.structs.replace(what, data=data), keep=True)

    async def confirm(self, record: AccountSignIn, choice: str) -> AccountSignIn:
        """What becomes of another person's sign-in: "replace" or "new". Raises SignInBusyError."""
        if record.step is not SignInStep.CONFIRM or choice not in ("replace", "new"):
            raise SignInBusyError(lazy("there is nothing to confirm"))
        claimed = await self._claim(record.id, SignInStep.TEST, only=SignInStep.CONFIRM)
        what = self.records.opened(claimed)
        return await self._land(claimed, what, keep=claimed.flow is not SignInFlow.LINE, choice=choice)

    async def cancel(self, ident: str) -> None:
        """Forget a sign-in; tokens it has already are ended at the vendor."""
        record = await self.records.get(ident)
        if record is None:
            return
        what = self.records.opened(record)
        await self.records.drop(ident)
        if what.data:
            await self._landing.give_back(record, what.data)

    # -- what happens to a record

    async def _claim(
        self, ident: str, step: SignInStep, mark: str = "", *, only: SignInStep | None = None
    ) -> AccountSignIn:
        """Be the one worker that is at it."""
        now = self._clock()

        def take(record: AccountSignIn) -> bool:
            ready = record.open and record.claimed <= now and mark not in record.used
            waits = record.step is only if only else record.step in (SignInStep.OPEN, SignInStep.CODE)
            if not ready or not waits:
                return False
            record.claimed, record.claimer, record.step = now + CLAIM_S, self.worker, step
            if mark:
                record.used = [*record.used, mark]
            return True

        found = await self.records.change(ident, take)
        if found is None:
            raise SignInBusyError(lazy("this sign-in is over, or is being worked at just now"))
        return found

    async def _failed_try(self, record: AccountSignIn, said: LazyText, code: str = "") -> None:
        """A wrong text: it may be tried again, but not without end."""

        def note(found: AccountSignIn) -> bool:
            found.tries += 1
            found.claimed, found.code = 0.0, code
            found.say(said)
            if found.step in (SignInStep.OPEN, SignInStep.CHECK):
                found.step = SignInStep.CODE
            if found.tries >= MOST_TRIES:
                end(found, SignInState.FAILED, "tries", lazy("too many wrong tries; start again"))
            return True

        await self.records.change(record.id, note)

    async def _land(self, record: AccountSignIn, what: Secrets, *, keep: bool, choice: str = "") -> AccountSignIn:
        """Make an account of the tokens, which are in the record first. `keep`: even when the trial fails, since the
        tokens are nowhere else."""
        self.records.seal(record, what)
        await self.records.put(record)
        try:
            made = await self._landing.land(record, what.data, keep=keep, choice=choice)
        except LandingError as stopped:
            return await self._stopped(record, stopped, keep=keep)
        record.account, record.test = made["id"], made["test"]
        return await self._end(record, SignInState.DONE)

    async def _stopped(self, record: AccountSignIn, stopped: LandingError, *, keep: bool) -> AccountSignIn:
        if stopped.confirm:
            record.step, record.claimed = SignInStep.CONFIRM, 0.0
            record.say(lazy_of(stopped))
            record.target = stopped.account or record.target
            record.deadline = self._clock() + landing.CONFIRM_S
            await self.records.put(record)
            return record
        if keep or stopped.final:
            return await self._end(record, SignInState.FAILED, stopped.code, lazy_of(stopped))
        await self._failed_try(record, lazy_of(stopped), stopped.code)
        raise CredentialRejectedError(lazy_of(stopped))

    async def _end(
        self, record: AccountSignIn, state: SignInState, code: str = "", said: LazyText | None = None
    ) -> AccountSignIn:
        end(record, state, code, said)
        record.deadline = self._clock()
        await self.records.put(record)
        await self._ended(record)
        return record

    async def _ended(self, record: AccountSignIn) -> None:
        for hear in self.on_end:
            await hear(record)

    # -- in the background of one worker

    def start(self) -> None:
        """Begin to ask for device codes and to finish what a worker that died has left."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _watch(self) -> None:
        away = False  # the store, since this was logged last
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tend()
                away = False
            except StoreError as error:
                if not away:
                    log.warning("the sign-ins under way cannot be read: %s", error)
                away = True
            except Exception:
                log.exception("the sign-ins under way cannot be tended")

    async def tend(self) -> None:
        """Do what is due for each sign-in under way. One that fails, or whose vendor is slow, stops no other."""
        under_way = [record for record in await self.records.all() if record.open]
        for failure in await asyncio.gather(*map(self._tend, under_way), return_exceptions=True):
            if isinstance(failure, Exception):
                log.error("tending a sign-in failed", exc_info=failure)

    async def _tend(self, record: AccountSignIn) -> None:
        now = self._clock()
        if record.abandoned(now):
            await self._take_over(record)
        elif record.flow is SignInFlow.DEVICE and record.step is SignInStep.CODE and now >= record.poll_at:
            await browser.poll(self, record)

    async def _take_over(self, record: AccountSignIn) -> None:
        """Go on where the worker that is gone was."""
        now = self._clock()

        def take(found: AccountSignIn) -> bool:
            if not found.abandoned(now):
                return False
            found.claimed, found.claimer = now + CLAIM_S, self.worker
            return True

        taken = await self.records.change(record.id, take)
        if taken is None:
            return
        record, what = taken, self.records.opened(taken)
        if not what.data:
            await self._end(
                record, SignInState.FAILED, "lost", lazy("the server was stopped in the middle; start again")
            )
            return
        try:
            await self._land(record, what, keep=record.flow is not SignInFlow.LINE)
        except CredentialRejectedError:
            pass  # the record says so, and the line may be run again


def _mark(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:32]


def _at_vendor(record: AccountSignIn) -> bool:
    if not record.open or record.step is not SignInStep.OPEN:
        return False
    record.step = SignInStep.CODE
    return True
