"""Users as the rest of the server sees them: authentication, admission, people, keys and codes.

One object a worker. Start-up reads nothing but the end of the change feed, whatever the number of people.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pool_server.core.enums import Denial
from pool_server.core.settings import Settings
from pool_server.core.tasks import PeriodicTasks
from pool_server.storage import Store, StoreError, Txn
from pool_server.storage.change_feed import ChangeFeed
from pool_server.storage.lmdb.sweeper import Sweeper
from pool_server.users import bookings
from pool_server.users.admin_tokens import AdminTokens
from pool_server.users.changes import append_change, commit, stored
from pool_server.users.consents import Consents, Notices
from pool_server.users.embedded_door import EmbeddedDoor
from pool_server.users.embedded_people import EmbeddedPeople
from pool_server.users.identity import sessions, throttle, tickets
from pool_server.users.identity.codes import Codes
from pool_server.users.identity.directory import Directory, Groups, UserFacts, forbidden
from pool_server.users.identity.imported.aliases import ImportedSecret, imported_secrets, keep_secrets
from pool_server.users.identity.importer import ImportedUser, TakenUser, import_once, planned, take
from pool_server.users.identity.keys import EXPIRED_KEY, REVOKED_KEY, KeyRing
from pool_server.users.identity.passwords import ROUNDS, Hasher
from pool_server.users.identity.people import People
from pool_server.users.identity.sessions import Sessions
from pool_server.users.identity.sign_in import SignIn
from pool_server.users.identity.tokens import Signer, load_signer, rotate_secret
from pool_server.users.last_used import LastUsed
from pool_server.users.limits import SHARE, USE, rebuild
from pool_server.users.limits.admission_port import AdmissionPort, MakeAdmission
from pool_server.users.limits.admitting import Admission, Headroom
from pool_server.users.limits.periods import Calendar, zone
from pool_server.users.limits.rebuild import Used
from pool_server.users.limits.recent_use import Shares
from pool_server.users.limits.reservations import Reservations
from pool_server.users.limits.standing import UserLimits
from pool_server.users.models import (
    ADMIN_USER,
    BOOKINGS,
    CHANGES,
    LOCAL_USER,
    SESSIONS,
    THROTTLE,
    TICKETS,
    AuditActor,
    AuditRow,
    Denied,
    KeyFacts,
    Principal,
    RefusedError,
    UserChange,
    decode_change,
)
from pool_server.users.ports import Trail, UserPorts
from pool_server.users.replica import Follower

log = logging.getLogger(__name__)

FOLLOW_S = 0.25  # how often other workers' changes are looked for
LOOK_S = 0.5  # likewise those of other machines
FLUSH_S = 5.0  # how often "last used" is written
RECOVER_MOST = 10  # users settled at once for dead workers, likewise
SWEEP_S = 30.0  # how often what dead workers left, and what is stale, is cleared

EndListener = Callable[[str | None, str | None], None]

_LOCAL = Principal(LOCAL_USER, "you", admin=True, local=True)
_GONE = Denied(Denial.REVOKED_KEY, "this user is no longer part of the pool", 401)
_STORE = Denied(Denial.STORE, "keys cannot be checked just now; try again in a moment", 503)


class Users:
    """People of the pool, as the rooms above use them: `people` with their keys, `codes` and `tickets` that let in,
    `sign_in` and `sessions` of browsers, `limits` as they stand; admission of requests is this object's own."""

    def __init__(
        self,
        settings: Settings,
        ledger_store: Store,
        state: Store,
        *,
        clock: Callable[[], float] = time.time,
        used: Used | None = None,
        bcrypt_rounds: int = ROUNDS,
        many: bool = True,
        ports: UserPorts | None = None,
        admission: MakeAdmission | None = None,
    ) -> None:
        """`used(user, since)` answers at once with the ledger's sums for that user since unix seconds `since`, a
        mapping with `input`, `cache_read`, `cache_write`, `output` and `cost_usd`; without it counters that are
        missing start at nothing. `many`: other workers share the stores. `ports`: where people and the door are kept;
        None = in the two stores themselves, like counters where there is no `admission`. Raises ValueError (one line)
        for a secret or time zone that cannot be used."""
        self._settings = settings
        self._store = ledger_store
        self._state = state
        self._clock = clock
        self._folder = Path(settings.data_dir)
        people, door, self._secret = ports or UserPorts(EmbeddedPeople(ledger_store), EmbeddedDoor(ledger_store, state))
        self._port, self._door = people, door
        self._signer = self._load_signer(settings)
        self._directory = Directory(ledger_store, settings.limits)
        self.groups = Groups(ledger_store, self._directory)
        self._ring = KeyRing(
            ledger_store, self._directory, self._signer, clock, imported_secrets(settings, self._folder)
        )
        self._shares = Shares(state, settings.fair_share, self._weight)
        calendar = Calendar(zone(settings.ledger.timezone))
        self._counters: AdmissionPort = (
            Reservations(state, calendar, self._shares, clock, used, many=many)
            if admission is None
            else admission(calendar, self._shares, clock)
        )
        self.stand_beside = self._counters.stand_beside
        self.limits = UserLimits(self._directory.view, self._directory.key, self._counters)
        self._feed = ChangeFeed(ledger_store, CHANGES)
        self._hasher = Hasher(rounds=bcrypt_rounds)
        self._tasks = PeriodicTasks()
        self.on_end: list[EndListener] = []  # (user, None): a person's access ended; (None, key): one key's
        self.follower = Follower(self._port, self._follow, elsewhere=ports is not None)
        self._make_parts()

    def _make_parts(self) -> None:
        self.admission = Admission(
            self._counters,
            self._facts,
            clock=self._clock,
            wait_s=lambda: self._settings.fair_share.wait_s,
            unread=_unread,
            look=self.follower.look,
        )
        store, state, clock = self._store, self._state, self._clock
        self.people = People(self._port, store, state, self._directory, lambda: self._signer, clock, self._follow)
        self.codes = Codes(self._port, store, self._hasher, clock)
        self.admin_tokens = AdminTokens(self._port, store, state, clock)
        self.consents, self.notices = (
            Consents(self._port, store, clock, self._follow),
            Notices(self._port, store, clock),
        )
        self.bookings = bookings.Bookings(store, clock, lambda: self._settings.bookings, self._alive, self._follow)
        self.sessions = Sessions(self._door, self._directory, lambda: self._signer, clock, self._guard, self.follower)
        self.tickets = tickets.Tickets(self._door, self.people, self._directory, clock)
        self.sign_in = SignIn(
            self._settings,
            self._port,
            people=self.people,
            directory=self._directory,
            ring=self._ring,
            codes=self.codes,
            sessions=self.sessions,
            throttle=throttle.Throttle(self._door, clock),
            hasher=self._hasher,
            clock=clock,
            follower=self.follower,
            once=self.tickets.once,
        )
        seen = self._ring.last_used, self.sessions.last_seen, self.admin_tokens.last_used
        self._last_used = LastUsed(state, *seen, self.people.owner)
        self._sweepers = (
            Sweeper(state, SHARE, self._shares.stale),
            Sweeper(state, THROTTLE, throttle.stale),
            Sweeper(state, TICKETS, tickets.stale),
            Sweeper(state, USE, rebuild.stale),
            Sweeper(store, SESSIONS, sessions.stale),
            Sweeper(store, BOOKINGS, bookings.stale),
        )

    def load(self) -> None:
        """Settles what dead workers left behind and takes over codex-pool's users once. Call before serving."""
        try:
            self._counters.recover()
        except StoreError as exc:  # it is tried again and again; until then what they held is held
            log.warning("what workers that died held of limits is settled later: %s", exc)
        path = self._settings.pool_users.storage_path
        if path:
            import_once(self._store, Path(path), self._clock())

    async def start(self) -> None:
        """Begins following changes and writing what can wait. Raises StoreError when nobody can be known."""
        await self.follower.catch_up()
        await asyncio.to_thread(self.consents.load)
        await self._counters.start()
        self._tasks.every(FOLLOW_S, self._follow, "following changes of users")
        self._tasks.every(LOOK_S, self.follower.look, "looking for changes of people elsewhere")
        self._tasks.every(FLUSH_S, self._write_what_waits, "writing what users left to be written")
        self._tasks.every(SWEEP_S, self._sweep, "clearing what is stale of users")
        self._tasks.start()

    async def close(self) -> None:
        """Ends the tasks and writes what was waiting."""
        await self._tasks.close()
        self._hasher.close()
        self.consents.close()
        with suppress(StoreError):
            await self._counters.finish()
        with suppress(StoreError):
            while self._last_used.write():
                pass

    def mark(self, text: str) -> str:
        """A short mark of a text, the same wherever keys are signed alike; the text cannot be told from it."""
        return self._signer.fingerprint(text)

    def _load_signer(self, settings: Settings) -> Signer:
        return load_signer(settings, self._folder, None if self._secret is None else self._secret.accepted)

    def reload(self, settings: Settings) -> None:
        """New settings: limits, friend code, admin password, secrets, fair share, time zone.

        Raises ValueError (one line) before anything has changed.
        """
        signer = self._load_signer(settings)
        imported = imported_secrets(settings, self._folder)
        self._counters.calendar = Calendar(zone(settings.ledger.timezone))
        self._shares.settings = settings.fair_share
        self._settings = self.sign_in.settings = settings
        self._signer = signer
        self._directory.forget_all(settings.limits)
        self._ring.forget_all(signer, imported)

    def authenticate(self, token: str | None) -> Principal | Denied:
        """The caller behind a pool key, or why not (401, 403; 503 when the store fails)."""
        try:
            return self._ring.authenticate(token)
        except StoreError as exc:
            return _unread("a key", exc)

    async def recognise(self, token: str | None) -> Principal | Denied:
        """`authenticate`; a key that is not known may have been made on another machine a moment ago."""
        found = self.authenticate(token)
        if isinstance(found, Denied) and found.denial is Denial.REVOKED_KEY:
            await self.follower.look()
            found = self.authenticate(token)
        return found

    def resume(self, user: str, key: str) -> Principal | Denied:
        """The caller who began something with a key that is not shown again (401, 403; 503 when the store fails)."""
        try:
            return self._ring.resume(user, key)
        except StoreError as exc:
            return _unread("a key", exc)

    def waits(self, principal: Principal) -> str:
        """How long the requests of the caller's key let themselves be held for headroom, as `X-Pool-Wait` says it."""
        try:
            key = self._directory.key(principal.key) if principal.key else None
        except StoreError:
            return ""
        return key.wait if key is not None else ""

    def local_principal(self) -> Principal:
        """The caller in local mode: whoever sits at this machine, with every right and no limits."""
        return _LOCAL

    def _facts(
        self, principal: Principal, provider: str, models: tuple[str, ...], headroom: Headroom
    ) -> tuple[UserFacts, KeyFacts | None] | Denied:
        """The user and the key behind a caller, or what is in the way other than their counters."""
        try:
            view, key = self._directory.view(principal.user), None
            if view is None or not view.active:
                return _GONE
            if principal.key:
                key = self._directory.key(principal.key)
                if key is None or (key.expires is not None and key.expires <= self._clock()):
                    return EXPIRED_KEY if key is not None else REVOKED_KEY
            left = headroom() if callable(headroom) else headroom
            refused = forbidden(view.limits, key, provider, models) or self.bookings.refusal(view.id, provider, left)
            return refused or self._unfair(view, provider, left) or (view, key)
        except StoreError as exc:
            return _unread("limits", exc)

    def may_force(self, principal: Principal, account_owner: str) -> bool:
        """Whether the caller may choose this account: admins, and its owner, who is a user id (see `owner_id`)."""
        return principal.admin or principal.local or (bool(account_owner) and account_owner == principal.user)

    # What people see of themselves, and admins of everybody

    def me(self, principal: Principal) -> dict[str, Any]:
        """{"user": {"id", "name"}, "limits", "used", "frees", "keys"}; no secrets. A key with limits of its own has a
        "standing" of the same three.

        `limits` are those in effect, `used` is now, `frees` is when each does (unix seconds or None), all by the
        limits' names.
        """
        keys = [] if principal.local or principal.user == ADMIN_USER else self.keys(principal.user)
        me = {"id": principal.user, "name": principal.name}
        return {"user": me, **self.limits.of(principal.user), "keys": keys}

    def keys(self, user_id: str) -> list[dict[str, Any]]:
        """A user's keys, with how the limits of each stand (None: it has none of its own); no secrets."""
        return [{**row, "standing": self.limits.of_key(row["id"])} for row in self.people.list_keys(user_id)]

    def page_token(self, cookie: str) -> str:
        """What a form of the browser session with this cookie must carry."""
        return self._signer.page_token(cookie)

    async def audit(
        self, actor: AuditActor, action: str, target: str = "", detail: dict[str, Any] | None = None
    ) -> None:
        """Adds a line to the audit log and returns when it is on disk. `detail` must hold no secret."""
        await stored(self._port.tell(Trail([AuditRow.of(self._clock(), actor, action, target, detail)])))

    async def audit_log(
        self, *, cursor: int | None = None, limit: int = 100, actor: str = "", action: str = "", target: str = ""
    ) -> tuple[list[AuditRow], int | None]:
        """Newest first, at most `limit` rows before `cursor`, and the next cursor (None = no more).

        `actor` is a user id or name, `action` a prefix ("user.", "key.revoke"), `target` an id; "" = any.
        """
        return await self._port.audit_page(cursor, limit, actor=actor, action=action, target=target)

    async def rotate_secret(self, *, actor: AuditActor) -> None:
        """Signs new keys with a new secret; the old one is accepted for 30 days.

        Raises RefusedError 409 when the settings hold the secret: it is changed there.
        """
        if self._settings.pool_users.jwt_secret:
            why = "the secret is in the settings: put a new one there and the old one in jwt_secret_previous"
            raise RefusedError(Denial.BAD_VALUE, why, 409)
        now = self._clock()
        trail = Trail([AuditRow.of(now, actor, "secret.rotate")], [UserChange("secret", now)])
        if self._secret is not None:
            await stored(self._secret.rotate(now, trail))
            await self.follower.look()
            return
        await asyncio.to_thread(rotate_secret, self._folder, now)
        await stored(self._port.tell(trail))
        self._follow()

    async def import_people(
        self, found: list[ImportedUser], other_pools: list[ImportedSecret], *, actor: AuditActor
    ) -> list[TakenUser]:
        """People of another pool, whose old keys work here from now on; what came of each. `other_pools` are the
        secrets without which some of these keys cannot be told. Raises RefusedError 503, OSError and ValueError."""
        self._refuse_import_elsewhere()
        now = self._clock()
        if other_pools:
            await asyncio.to_thread(keep_secrets, self._folder, other_pools)

        def change(txn: Txn) -> list[TakenUser]:
            rows = take(txn, found, now, actor)
            append_change(txn, UserChange("secret", now))
            return rows

        rows = await commit(self._store, change)
        self._follow()
        return rows

    def plan_people(self, found: list[ImportedUser]) -> list[TakenUser]:
        """What `import_people` would make of these now; nothing is kept. Raises what that raises."""
        self._refuse_import_elsewhere()
        return planned(self._store, found, self._clock())

    def _refuse_import_elsewhere(self) -> None:
        if self.follower.elsewhere:
            why = "people are taken over into a data folder, and from there with `pool-server store import`"
            raise RefusedError(Denial.BAD_VALUE, why, 409)

    # What runs in the background

    def _follow(self) -> None:
        self._port.follow(self._take_in)

    def _take_in(self) -> None:
        """Take in what any worker changed, this one included."""
        for entry in self._feed.news():
            if entry is None:
                self._lost()
            else:
                self._apply(decode_change(entry))

    def _apply(self, change: UserChange) -> None:
        if change.kind == "secret":
            self._signer = self._load_signer(self._settings)
            self._ring.forget_all(self._signer, imported_secrets(self._settings, self._folder))
            return
        self._directory.forget(change.user, change.key)
        self._ring.forget(change.user, change.key)
        self.consents.forget(change.user)
        self.bookings.forget()
        if change.kind == "end":
            self._ended(change.user, change.key)

    def _ended(self, user: str, key: str) -> None:
        """Tells the listeners what ended: (None, key) when it is one key, (user, None) when it is the person."""
        for listener in list(self.on_end):
            try:
                listener(*((None, key) if key else (user, None)))
            except Exception:
                log.exception("a listener failed when access ended")

    def _lost(self) -> None:
        """Changes were dropped before this worker read them: check everybody it remembers again."""
        seen = self._ring.remembered()
        self._directory.forget_all()
        self._ring.forget_all()
        self.consents.forget()
        self.bookings.forget()
        for principal in seen:
            if self._ring.stands(principal.user, principal.key) is not None:
                self._ended(principal.user, principal.key)

    def _write_what_waits(self) -> None:
        self._counters.settle_waiting()
        self._last_used.write_in_turn()

    async def _sweep(self) -> None:
        settled = RECOVER_MOST
        while settled == RECOVER_MOST:
            settled = self._counters.recover(RECOVER_MOST)
            await asyncio.sleep(0)
        self._counters.forget_idle()
        for sweeper in self._sweepers:
            gone = sweeper.step(self._clock())
            if not isinstance(gone, int):
                await gone

    def booked_out(self, principal: Principal, provider: str, headroom: float | None) -> bool:
        """Whether what is left of this provider is others' for a time."""
        try:
            return not principal.local and self.bookings.refusal(principal.user, provider, headroom) is not None
        except StoreError:
            return False

    def _unfair(self, view: UserFacts, provider: str, headroom: float | None) -> Denied | None:
        headroom = self.bookings.left_for(view.id, provider, headroom)
        if not self._shares.short(headroom):
            return None
        self._counters.write_turn()  # what has just ended is recent use
        until = self._shares.waits_until(provider, view.id, headroom, self._clock())
        if until is None:
            return None
        message = f"the pool is short of {provider} and you have had more than your share lately; others go first"
        return Denied(Denial.FAIR_SHARE, message, 429, until)

    def _alive(self, user: str) -> bool:
        view = self._directory.view(user)
        return view is not None and view.active

    def _weight(self, user: str) -> float:
        view = self._directory.view(user)
        return view.weight if view is not None else 1.0

    def _guard(self) -> str:
        return self.sign_in.guard(self._signer.fingerprint)


def _unread(what: str, exc: StoreError) -> Denied:
    log.warning("%s could not be read: %s", what, exc)
    return _STORE
