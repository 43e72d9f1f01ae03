"""Wrong tries are counted, in the store, by network, by name and in all; too many end in a ban that says how long.

A network is an IPv4 address or the /64 of an IPv6 address, which is one household's. Whoever holds many of them holds
a wider one: /24, /56, /48 have allowances of their own, which grow more slowly than the number of networks within, and
one budget covers all. A network from which somebody signed in lately is known: only its own wrong tries stop it.

Friends and admins are counted apart, and nothing right ever clears a network's wrong tries: whoever has one good code
could otherwise guess others for ever. A try that takes time is counted before it is judged, so that many at once, in
any number of processes, are no more than the allowance.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal, NamedTuple

import msgspec

from pool_server.core.enums import Denial
from pool_server.language import gettext as _
from pool_server.storage import StoreError
from pool_server.users.changes import asked
from pool_server.users.models import RefusedError, Tries
from pool_server.users.ports import DoorPort

Kind = Literal["friend", "admin"]
DAY_S = 86400.0
MAX_TURNS = 32  # tries of one peer waiting for their turn


class ThrottleRule(NamedTuple):
    """So many wrong tries within so many seconds end in a ban, doubled with each further one within a day."""

    tries: int
    window_s: float
    ban_s: float
    max_ban_s: float


PEER = ThrottleRule(5, 900.0, 900.0, DAY_S)
NAME = ThrottleRule(15, 900.0, 300.0, 300.0)  # looser: a stranger's guesses must not lock a friend out for long
WIDE = ThrottleRule(25, 900.0, 900.0, DAY_S)  # an IPv4 /24, an IPv6 /56
WIDER = ThrottleRule(40, 900.0, 900.0, DAY_S)  # an IPv6 /48
ALL = ThrottleRule(300, 900.0, 300.0, 300.0)
KNOWN_S = 90 * DAY_S  # how long a network is known after a sign-in
_NOTED_S = DAY_S / 4  # so often a sign-in from there is noted
_JUDGED_S = 60.0  # a try that was not judged within this was its process's last
_SOON_S = 5.0
_LONGEST_KEY = 500  # bytes


class Scope(NamedTuple):
    """One of the counters a try counts at."""

    key: bytes
    rule: ThrottleRule


def wrong(tries: Tries, rule: ThrottleRule, now: float) -> Tries:
    """The record after one more wrong try."""
    recent = [at for at in tries.wrong if now - rule.window_s < at <= now]
    recent.append(now)
    if len(recent) < rule.tries:
        return msgspec.structs.replace(tries, wrong=recent)
    calm = now - tries.until > DAY_S
    bans = 1 if calm else tries.bans + 1
    until = now + min(rule.max_ban_s, rule.ban_s * 2 ** min(bans - 1, 16))
    return msgspec.structs.replace(tries, wrong=[], until=until, bans=bans)


def banned_until(tries: Tries, now: float) -> float | None:
    """The end of a ban that is on, else None. One that is too far away was made by a clock that was ahead."""
    return tries.until if now < tries.until <= now + DAY_S else None


def stopped_until(tries: Tries, rule: ThrottleRule, now: float) -> float | None:
    """When one more try may be judged, None = now: the end of a ban, or soon where those that are being judged might
    use up what is left."""
    until = banned_until(tries, now)
    if until is not None:
        return until
    recent = sum(now - rule.window_s < at <= now for at in tries.wrong)
    return now + _SOON_S if recent + len(_pending(tries, now)) >= rule.tries else None


def is_known(tries: Tries, now: float) -> bool:
    """Whether somebody signed in from this network lately."""
    return now - KNOWN_S < tries.good <= now


def _pending(tries: Tries, now: float) -> list[float]:
    return [at for at in tries.pending if now - _JUDGED_S < at <= now]


def network(peer: str) -> str:
    """Whom a peer is counted as: its IPv4 address, or the /64 of its IPv6 address, which is one household's.

    >>> network("2001:db8:1:2:aaaa::1"), network("::ffff:192.0.2.7"), network("192.0.2.7")
    ('2001:db8:1:2::/64', '192.0.2.7', '192.0.2.7')
    """
    address = _address(peer)
    if isinstance(address, ipaddress.IPv6Address):
        return _around(address, 64)
    return str(address) if address is not None else peer


def wider(peer: str) -> list[tuple[str, ThrottleRule]]:
    """The networks around a peer's own, and what each allows.

    >>> [name for name, _ in wider("2001:db8:1:2ff:aaaa::1") + wider("192.0.2.7")]
    ['2001:db8:1:200::/56', '2001:db8:1::/48', '192.0.2.0/24']
    """
    match _address(peer):
        case ipaddress.IPv6Address() as address:
            return [(_around(address, 56), WIDE), (_around(address, 48), WIDER)]
        case ipaddress.IPv4Address() as address:
            return [(_around(address, 24), WIDE)]
    return []


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _around(address: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int) -> str:
    return str(ipaddress.ip_network((address, bits), strict=False))


def scopes(kind: Kind, peer: str, name: str) -> list[Scope]:
    """Where a try counts, the peer's own network first."""
    counted = [(f"peer\0{network(peer)}", PEER)]
    if name:
        counted.append((f"name\0{name}", NAME))
    counted += [(f"peer\0{net}", rule) for net, rule in wider(peer)]
    return [Scope(f"{kind}\0{whom}".encode()[:_LONGEST_KEY], rule) for whom, rule in (*counted, ("all", ALL))]


_decode = msgspec.msgpack.Decoder(Tries).decode


class SignInAttempt:
    """One try to get in; `failed` counts it, `passed` makes its network known."""

    def __init__(self, throttle: Throttle, where: list[Scope], began: float | None) -> None:
        self._throttle = throttle
        self._where = where
        self._began = began  # noted as being judged
        self._over = False

    async def failed(self) -> float | None:
        """Counts a wrong try; the end of the ban when it was one too many."""
        self._over = True
        return await self._throttle.count(self._where, self._began)

    async def passed(self) -> None:
        """Somebody is in."""
        self._over = True
        await self._throttle.forgive(self._where, self._began, signed_in=True)

    async def end(self, *, judged: bool) -> None:
        """Nothing was wrong with the code or the passphrase, or nobody was there any more to hear."""
        if not self._over and self._began is not None:
            self._over = True
            if judged:
                await self._throttle.forgive(self._where, self._began)
            else:
                await self._throttle.count(self._where, self._began)


class Throttle:
    """The counters of all networks and names, shared by the workers."""

    def __init__(self, port: DoorPort, clock: Callable[[], float]) -> None:
        self._port = port
        self._clock = clock
        self._turns: dict[bytes, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def attempt(
        self, kind: Kind, peer: str, name: str = "", *, slow: bool = True
    ) -> AsyncIterator[SignInAttempt]:
        """One try by `peer`, at `name` when there is one. Raises RefusedError (429 with `retry_at`) during a ban.

        Tries of one network take turns, so that many at once count one after another. `slow` False: the block judges
        the try without giving way to others in this process, so that it is counted only when it was wrong.
        """
        where = scopes(kind, peer, name)
        async with self._turn(where[0].key):
            attempt = SignInAttempt(self, where, await self._begin(where, note=slow or not self._port.instant))
            try:
                yield attempt
            except Exception:
                await attempt.end(judged=True)
                raise
            except BaseException:  # hanging up in time must not make a guess free
                await attempt.end(judged=False)
                raise
            await attempt.end(judged=True)

    async def count(self, where: list[Scope], began: float | None) -> float | None:
        """Adds a wrong try everywhere; the latest end of a ban that is on now.

        Where it cannot be written the caller is told to wait: guessing must not be free because a disk is full.
        """
        now = self._clock()

        def add(kept: list[Tries]) -> float:
            for at, (_key, rule) in enumerate(where):
                kept[at] = wrong(_without(kept[at], began), rule, now)
            return max(banned_until(tries, now) or 0.0 for tries in kept)

        return await asked(self._port.tries([scope.key for scope in where], add)) or None

    async def forgive(self, where: list[Scope], began: float | None, *, signed_in: bool = False) -> None:
        """The try that began then was no wrong one."""
        now, keys = self._clock(), [scope.key for scope in where]
        (known,) = await asked(self._port.read_tries(keys[:1])) if signed_in else [Tries()]
        fresh = not signed_in or 0 <= now - known.good < _NOTED_S
        if began is None and fresh:
            return

        def end(kept: list[Tries]) -> None:
            for tries in kept:
                _without(tries, began)
            if not fresh:
                kept[0].good = now

        with suppress(StoreError):  # what is left as pending is dropped after a minute
            await self._port.tries(keys, end)

    async def _begin(self, where: list[Scope], *, note: bool) -> float | None:
        """Refuses a try that may not be judged now; notes one that takes time, and says under which time."""
        now, keys = self._clock(), [scope.key for scope in where]

        def begin(kept: list[Tries]) -> None:
            _refuse_stopped(where, kept, now)
            for tries in kept:
                tries.pending = [*_pending(tries, now), now]

        if note:
            with suppress(StoreError):  # a correct password is accepted while nothing can be written
                await self._port.tries(keys, begin)
                return now
        _refuse_stopped(where, await asked(self._port.read_tries(keys)), now)
        return None

    @asynccontextmanager
    async def _turn(self, key: bytes) -> AsyncIterator[None]:
        lock, waiting = self._turns.get(key, (asyncio.Lock(), 0))
        if waiting >= MAX_TURNS:
            raise throttled(self._clock() + 5.0)
        self._turns[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns[key]
            if waiting == 1:
                del self._turns[key]
            else:
                self._turns[key] = (lock, waiting - 1)


def throttled(until: float) -> RefusedError:
    """429: too many wrong tries; `until` says when to come back."""
    return RefusedError(Denial.THROTTLED, _("too many wrong tries; wait and try again"), 429, until)


def stale(raw: bytes, now: float) -> bool:
    """Whether a stored record says nothing any more."""
    tries = _decode(raw)
    fresh = any(now - at < max(PEER.window_s, NAME.window_s) for at in (*tries.wrong, *tries.pending))
    return not fresh and now - tries.until > DAY_S and not is_known(tries, now)


def _refuse_stopped(where: list[Scope], kept: list[Tries], now: float) -> None:
    """`kept` are the records of these scopes."""
    judging = 1 if is_known(kept[0], now) else len(where)
    for scope, tries in zip(where[:judging], kept, strict=False):
        until = stopped_until(tries, scope.rule, now)
        if until is not None:
            raise throttled(until)


def _without(tries: Tries, began: float | None) -> Tries:
    """The record without a try that was being judged."""
    if began in tries.pending:
        tries.pending.remove(began)
    return tries
