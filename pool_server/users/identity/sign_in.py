"""The door: signing in as a friend or as the admin. Whatever is wrong costs the caller the same and is counted."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from pool_server.core.enums import Denial
from pool_server.core.settings import Settings
from pool_server.language import gettext as _
from pool_server.language import marked
from pool_server.users import user_names
from pool_server.users.changes import asked, stored
from pool_server.users.identity.codes import Codes, TooManyNewPeople, taken_in
from pool_server.users.identity.directory import Directory
from pool_server.users.identity.keys import USER_DISABLED, KeyRing
from pool_server.users.identity.passwords import TOTP_STEP_S, Hasher, checked_passphrase, is_bcrypt, same, totp_step
from pool_server.users.identity.people import BY_ADMIN, People, clean_name
from pool_server.users.identity.sessions import Sessions
from pool_server.users.identity.throttle import Kind, SignInAttempt, Throttle
from pool_server.users.models import (
    ADMIN_USER,
    SERVER,
    AuditActor,
    AuditRow,
    Code,
    Denied,
    NewPerson,
    Principal,
    RefusedError,
    User,
    bad_value,
)
from pool_server.users.ports import Arrival, PeoplePort, Trail
from pool_server.users.replica import Follower

_PROVEN_S = 300.0  # how long a bcrypt-checked admin password is remembered, by digest

BY_SSO = "single_sign_on"  # how somebody came whom another party vouches for
SUBJECT = "sub:"  # what the name of somebody without a verified address begins with
PROXY = "proxy"  # the issuer of identities that a trusted proxy names
ADMIN = Principal(ADMIN_USER, "admin", admin=True)
_NOT_ASKED = marked("you are signed in, but this pool does not know you; ask whoever runs it")
_WRONG = marked("the code, the name or the passphrase is wrong")
_KEPT = marked("this name is kept for the owner of an account; ask the operator to let you in")
_TAKEN = marked("this name is taken; if it is yours, the passphrase is wrong")


class Identity(NamedTuple):
    """Somebody as another party vouches for them: always the same `subject` of that `issuer`, called `name`, which
    nobody else there can be called."""

    issuer: str
    subject: str
    name: str


class SignedIn(msgspec.Struct, frozen=True):
    """Somebody is in. `cookie` is the session cookie's value, good until `expires` (unix seconds).

    `key` is a first key, shown this once, for somebody new; None otherwise.
    """

    user: str
    name: str
    cookie: str
    expires: float
    is_new: bool = False
    admin: bool = False
    key: str | None = None
    key_id: str = ""

    def __repr__(self) -> str:
        """Without the cookie and the key."""
        return f"Entry(user={self.user!r}, name={self.name!r}, is_new={self.is_new}, admin={self.admin})"


class SignIn:
    """Checks codes, passphrases, keys and the admin password, each try throttled."""

    def __init__(
        self,
        settings: Settings,
        port: PeoplePort,
        *,
        people: People,
        directory: Directory,
        ring: KeyRing,
        codes: Codes,
        sessions: Sessions,
        throttle: Throttle,
        hasher: Hasher,
        clock: Callable[[], float],
        follower: Follower,
        once: Callable[[str, float], Awaitable[bool]],
    ) -> None:
        self.settings = settings
        self._port = port
        self._people = people
        self._directory = directory
        self._ring = ring
        self._codes = codes
        self._sessions = sessions
        self._throttle = throttle
        self._hasher = hasher
        self._clock = clock
        self._follower = follower
        self._once = once
        self._kept_names: Callable[[], Iterable[str]] = tuple
        self._proven: tuple[bytes, float] = (b"", 0.0)

    def keep_names(self, owners: Callable[[], Iterable[str]]) -> None:
        """Names among `owners` cannot be taken at the door."""
        self._kept_names = owners

    async def friend_login(
        self, *, peer: str, code: str = "", name: str = "", passphrase: str = "", key: str = ""
    ) -> SignedIn:
        """In by code, name and passphrase (the first time), by name and passphrase, or by one of one's keys.

        Raises RefusedError: 400 something missing or unfit, 401 wrong, 403 disabled, 409 name taken just now, 429
        throttled.
        """
        if key:
            return await self._by_key(key, peer)
        shown = clean_name(name)
        async with self._throttle.attempt("friend", peer, user_names.skeleton(shown)) as attempt:
            await asked(self._follower.catch_up())
            grant = await self._grant(code, attempt, peer) if code else None
            user = self._people.find(shown)
            if user is None and grant is not None:
                entry = await self._welcome(shown, passphrase, grant, peer)
                await attempt.passed()
                return entry
            await self._prove(user, passphrase, attempt, peer, _(_TAKEN if grant is not None else _WRONG))
            assert user is not None
            if user.disabled:
                raise RefusedError(Denial.USER_DISABLED, _(USER_DISABLED.message), 403)
            await attempt.passed()
            return await self._let_in(user.id, user.name, peer)

    async def claim(self, principal: Principal, code: str, *, peer: str) -> None:
        """Somebody who is in takes up an invitation to contribute an account. Raises RefusedError: 401 for a code that
        is wrong, used up, expired or no such invitation, 429 throttled."""
        await asked(self._follower.catch_up())
        user = self._directory.user(principal.user)
        if user is None:
            raise bad_value(_("only pool users can be invited"))
        async with self._throttle.attempt("friend", peer, user_names.skeleton(user.name)) as attempt:
            grant = await self._grant(code, attempt, peer, _("no invitation has this code: look at its link again"))
            if not grant.contributes:
                raise RefusedError(Denial.BAD_LOGIN, _("this code invites nobody to contribute an account"), 401)
            await attempt.passed()
        if principal.user not in grant.used_by and (why := self._codes.usable(grant)) is not None:
            raise RefusedError(Denial.BAD_LOGIN, why, 401)
        await self._codes.take(grant, user)

    async def change_passphrase(
        self, principal: Principal, current: str, new: str, *, peer: str, cookie: str = ""
    ) -> SignedIn:
        """A new passphrase for the caller, who proves the current one if there is one: by typing it, or for whoever
        has lost it by the session `cookie`, opened with a key a moment ago.

        All sessions end but the new one that is returned. Raises RefusedError: 400, 401, 404, 429.
        """
        user = self._directory.user(principal.user)
        if user is None:
            raise bad_value(_("only pool users have a passphrase"))
        checked_passphrase(new)
        proven = await self._sessions.entered_by_key(cookie) and await self._sessions.find(cookie) == principal
        if user.passphrase and not proven:
            async with self._throttle.attempt("friend", peer, user_names.skeleton(user.name)) as attempt:
                await self._prove(user, current, attempt, peer, _("the current passphrase is wrong"))
        actor = AuditActor.of(principal, peer)
        await self._people.set_passphrase(user.id, await self._hasher.hash(new), actor=actor)
        return await self._let_in(user.id, user.name, peer)

    async def reset_passphrase(self, user_id: str, *, actor: AuditActor) -> None:
        """Forgets the passphrase: the friend returns by a key and chooses a new one. All sessions end."""
        await self._people.set_passphrase(user_id, "", actor=actor)

    async def vouched(self, who: Identity, *, peer: str) -> Principal:
        """The operator or the person whom another party vouches for; somebody new becomes a person where the settings
        let them. Raises RefusedError: 403 for whom they do not, or who is switched off."""
        asked = self.settings.single_sign_on
        name = who.name.casefold()
        if any(name == one.casefold() for one in asked.operators):
            return ADMIN
        user = await self._linked(who)
        if user is None:
            if not any(_matches(name, pattern.casefold()) for pattern in asked.people):
                raise RefusedError(Denial.USER_DISABLED, _(_NOT_ASKED), 403)
            user = await self._link(who, peer)
        if user.disabled:
            raise RefusedError(Denial.USER_DISABLED, _(USER_DISABLED.message), 403)
        return Principal(user.id, user.name)

    async def by_identity(self, who: Identity, *, peer: str) -> SignedIn:
        """A browser session for whom another party vouches. Raises what `vouched` raises."""
        found = await self.vouched(who, peer=peer)
        if not found.admin:
            return await self._let_in(found.user, found.name, peer)
        return await self._admit_admin(peer)

    async def _admit_admin(self, peer: str) -> SignedIn:
        actor = AuditActor("admin", ADMIN_USER, "admin", peer)
        cookie, expires = await self._sessions.open(ADMIN_USER, actor=actor)
        return SignedIn(ADMIN_USER, "admin", cookie, expires, admin=True)

    async def _linked(self, who: Identity) -> User | None:
        """The living person behind an identity."""
        user_id = await self._port.linked(_mark(who))
        user = self._directory.user(user_id) if user_id is not None else None
        return user if user is not None and user.deleted is None else None

    async def _link(self, who: Identity, peer: str) -> User:
        """The person whom the operator made by this very name, else somebody new. People who came by the door are not
        taken for this one: they chose their names themselves."""
        mark = _mark(who)
        made = self._people.find(who.name)
        if made is not None and made.via in BY_ADMIN and made.name.casefold() == who.name.casefold():
            await stored(self._port.link(mark, made.id))
            return made
        actor, arrival = AuditActor("user", "", who.name, peer), Arrival(identity=mark)
        for name in self._free_names(who.name):
            try:
                row = await self._people.create_user(name, actor=actor, via=BY_SSO, arrival=arrival, key_label=None)
            except RefusedError as refused:
                if refused.denied.denial is not Denial.NAME_TAKEN:
                    raise
                found = await self._linked(who)  # two requests of one browser come together
                if found is None:
                    continue
                return found
            found = self._directory.user(row["id"])
            assert found is not None
            return found
        raise RefusedError(Denial.NAME_TAKEN, _("every name like this one is taken; ask the operator"), 409)

    def _free_names(self, said: str) -> Iterable[str]:
        """Names for somebody new: what stands before the @, the same with a number. Those kept for owners of accounts
        are left out."""
        kept = {user_names.skeleton(name) for name in self._kept_names()}
        try:
            stem = user_names.fit(said.partition("@")[0])
        except ValueError:
            stem = "friend"
        tries = (stem if not number else f"{stem[:60]} {number + 1}" for number in range(50))
        return (name for name in tries if user_names.skeleton(name) not in kept)

    async def admin_login(self, password: str, *, peer: str, totp: str = "") -> SignedIn:
        """The admin's browser session; `totp` is the code of their app where the settings have its secret. Raises
        RefusedError: 401 wrong or no password set, 429 throttled."""
        found = await self.check_admin(password, peer=peer, totp=totp)
        if isinstance(found, Denied):
            raise RefusedError(found.denial, found.message, found.status, found.retry_at)
        return await self._admit_admin(peer)

    async def check_admin(self, password: str, *, peer: str, totp: str | None = None) -> Principal | Denied:
        """The admin behind a password, or why not (401, 429); a pool key is refused with 403, uncounted. `totp` None
        asks for no code."""
        if isinstance(self._ring.authenticate(password), Principal):
            return Denied(Denial.BAD_LOGIN, _("a pool key does not open what is the admin's"), 403)
        if not self.settings.operator_password:
            return Denied(Denial.BAD_LOGIN, _("no admin password is set"), 401)
        try:
            async with self._throttle.attempt("admin", peer, slow=self._takes_time(password)) as attempt:
                if await self._is_admin(password) and (totp is None or await self._is_code(totp)):
                    await attempt.passed()
                    return ADMIN
                await self._count(attempt, "admin", peer)
        except RefusedError as refused:
            return refused.denied
        coded = totp is not None and self.settings.pool_users.admin_totp
        what = _("the admin password or the code is wrong") if coded else _("the admin password is wrong")
        return Denied(Denial.BAD_LOGIN, what, 401)

    def guard(self, fingerprint: Callable[[str], str]) -> str:
        """Names what opens the admin's session now, for sessions to compare: one from before there was a code, or a new
        one, has ended, and so has one from before there were other `operators`. "" when nobody can be the operator."""
        password, totp = self.settings.operator_password, self.settings.pool_users.admin_totp
        asked = self.settings.single_sign_on
        if asked.issuer and asked.operators:
            return fingerprint("\n".join((password, totp, asked.issuer, *asked.operators)))
        return fingerprint(f"{password}\n{totp}" if totp else password) if password else ""

    async def _by_key(self, key: str, peer: str) -> SignedIn:
        async with self._throttle.attempt("friend", peer, slow=False) as attempt:
            await asked(self._follower.catch_up())
            found = self._ring.authenticate(key)
            if isinstance(found, Principal):
                await attempt.passed()
                return await self._let_in(found.user, found.name, peer, by_key=True)
            if found.status == 401:
                await self._count(attempt, "friend", peer)
            raise RefusedError(found.denial, _(found.message), found.status, found.retry_at)

    async def _grant(self, code: str, attempt: SignInAttempt, peer: str, wrong: str = "") -> Code:
        """The code that was typed; the shared one has no prefix. Raises RefusedError 401, counted."""
        shared = self.settings.friend_code.strip()
        plain = bool(shared) and not is_bcrypt(shared)
        if plain and same(code.strip(), shared):
            return Code("", "", 0.0)
        if shared and not plain and await self._hasher.check_raw(code.strip(), shared):
            return Code("", "", 0.0)
        found = await self._codes.check(code)
        if found is None:
            await self._count(attempt, "friend", peer)
            raise RefusedError(Denial.BAD_LOGIN, wrong or _(_WRONG), 401)
        return found

    async def _welcome(self, name: str, passphrase: str, grant: Code, peer: str) -> SignedIn:
        """A new friend. The code was right, so what is wrong here is no guess and not counted."""
        why = self._codes.usable(grant) if grant.prefix else None
        if why is not None:
            raise RefusedError(Denial.BAD_LOGIN, why, 401)
        mine = user_names.skeleton(name)
        if any(user_names.skeleton(kept) == mine for kept in self._kept_names()):
            raise RefusedError(Denial.NAME_TAKEN, _(_KEPT), 409)
        hashed = await self._hasher.hash(checked_passphrase(passphrase))

        def counted(came: list[NewPerson]) -> list[NewPerson]:
            return self._with_new(came, peer)

        made = await self._people.create_user(
            name,
            actor=AuditActor("user", "", name, peer),
            limits=grant.limits,
            passphrase_hash=hashed,
            via=f"code:{grant.prefix}" if grant.prefix else "friend_code",
            arrival=Arrival(grant.prefix, counted if not grant.prefix or grant.uses_left is None else None),
        )
        entry = await self._let_in(made["id"], made["name"], peer)
        return msgspec.structs.replace(entry, is_new=True, key=made["key"], key_id=made["key_id"])

    def _with_new(self, came: list[NewPerson], peer: str) -> list[NewPerson]:
        """Somebody new comes without a code for a number of people. Raises RefusedError 429 for one too many."""
        kept = taken_in(came, peer, self.settings.pool_users, self._clock())
        if isinstance(kept, TooManyNewPeople):
            raise RefusedError(Denial.THROTTLED, kept.why, 429, kept.retry_at)
        return kept

    async def _prove(self, user: User | None, passphrase: str, attempt: SignInAttempt, peer: str, wrong: str) -> None:
        """Raises RefusedError 401, counted, unless the passphrase is the user's; having no user costs the same."""
        if not await self._hasher.check(passphrase, user.passphrase if user is not None else ""):
            await self._count(attempt, "friend", peer)
            raise RefusedError(Denial.BAD_LOGIN, wrong, 401)

    async def _let_in(self, user_id: str, name: str, peer: str, *, by_key: bool = False) -> SignedIn:
        actor = AuditActor("user", user_id, name, peer)
        cookie, expires = await self._sessions.open(user_id, actor=actor, by_key=by_key)
        return SignedIn(user_id, name, cookie, expires)

    def _takes_time(self, password: str) -> bool:
        """Whether this password has to be hashed before it can be judged."""
        kept = self.settings.operator_password
        return is_bcrypt(kept) and not self._is_proven(_digest(kept, password))

    def _is_proven(self, digest: bytes) -> bool:
        known, until = self._proven
        return self._clock() < until and same(digest.hex(), known.hex())

    async def _is_admin(self, password: str) -> bool:
        """Plain passwords are compared at once; a bcrypt check is remembered for five minutes, by digest."""
        kept = self.settings.operator_password
        if not is_bcrypt(kept):
            return same(password, kept)
        digest = _digest(kept, password)
        if self._is_proven(digest):
            return True
        if not await self._hasher.check_raw(password, kept):
            return False
        self._proven = (digest, self._clock() + _PROVEN_S)
        return True

    async def _is_code(self, totp: str) -> bool:
        """Whether this is the code of now, for the first time; always where the settings have no secret."""
        secret = self.settings.pool_users.admin_totp
        if not secret:
            return True
        step = totp_step(secret, totp, self._clock())
        return step is not None and await self._once(f"totp {step}", 4 * TOTP_STEP_S)

    async def _count(self, attempt: SignInAttempt, kind: Kind, peer: str) -> None:
        """Counts a wrong try; the ban it may begin is audited."""
        until = await attempt.failed()
        if until is None:
            return
        now = self._clock()
        detail = {"kind": kind, "until": until}
        actor = msgspec.structs.replace(SERVER, peer=peer)
        await stored(self._port.tell(Trail([AuditRow.of(now, actor, "door.ban", peer, detail)])))


def _matches(name: str, pattern: str) -> bool:
    """A bare subject, which no address proves, is met by patterns of subjects alone."""
    return name.startswith(SUBJECT) == pattern.startswith(SUBJECT) and fnmatchcase(name, pattern)


def _mark(who: Identity) -> bytes:
    """What an identity is known by."""
    return hashlib.sha256(f"{who.issuer}\0{who.subject}".encode("utf-8", "surrogatepass")).digest()


def _digest(kept: str, password: str) -> bytes:
    return hashlib.sha256((kept + "\0" + password).encode("utf-8", "surrogatepass")).digest()
