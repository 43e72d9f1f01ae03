"""Wrong tries are counted, in the store, by peer and by name; too many end in a ban that says how long.

Friends and admins are counted apart, and nothing right ever clears a peer's wrong tries: whoever has one good code
could otherwise guess others for ever.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

import msgspec

from pool_server.core.enums import Denial
from pool_server.storage import Store, StoreError, Txn
from pool_server.users.models import THROTTLE, RefusedError

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


class Tries(msgspec.Struct, array_like=True):
    """Wrong tries of one peer or at one name: when, the end of the ban, how many bans there were in a row."""

    wrong: list[float] = []
    until: float = 0.0
    bans: int = 0


def wrong(tries: Tries, rule: ThrottleRule, now: float) -> Tries:
    """The record after one more wrong try."""
    recent = [at for at in tries.wrong if now - rule.window_s < at <= now]
    recent.append(now)
    if len(recent) < rule.tries:
        return Tries(recent, tries.until, tries.bans)
    calm = now - tries.until > DAY_S
    bans = 1 if calm else tries.bans + 1
    return Tries([], now + min(rule.max_ban_s, rule.ban_s * 2 ** min(bans - 1, 16)), bans)


def banned_until(tries: Tries, now: float) -> float | None:
    """The end of a ban that is on, else None."""
    return tries.until if tries.until > now else None


def network(peer: str) -> str:
    """Whom a peer is counted as: its IPv4 address, or the /64 of its IPv6 address, which is one household's.

    >>> network("2001:db8:1:2:aaaa::1"), network("::ffff:192.0.2.7"), network("192.0.2.7")
    ('2001:db8:1:2::/64', '192.0.2.7', '192.0.2.7')
    """
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Tries).decode


class SignInAttempt:
    """One try to get in; `failed` counts it."""

    def __init__(self, throttle: Throttle, keys: list[tuple[bytes, ThrottleRule]]) -> None:
        self._throttle = throttle
        self._keys = keys

    def failed(self) -> float | None:
        """Counts a wrong try; the end of the ban when it was one too many."""
        return self._throttle.count(self._keys)


class Throttle:
    """The counters of all peers and names, shared by the workers."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._turns: dict[bytes, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def attempt(self, kind: Kind, peer: str, name: str = "") -> AsyncIterator[SignInAttempt]:
        """One try by `peer`, at `name` when there is one. Raises RefusedError (429 with `retry_at`) during a ban.

        Tries of one peer take turns, so that many at once count one after another.
        """
        keys = [(f"{kind}\0peer\0{network(peer)}".encode(), PEER)]
        if name:
            keys.append((f"{kind}\0name\0{name}".encode()[:500], NAME))
        async with self._turn(keys[0][0]):
            self._refuse_banned(keys)
            yield SignInAttempt(self, keys)

    def count(self, keys: list[tuple[bytes, ThrottleRule]]) -> float | None:
        """Adds a wrong try to each of the keys; the latest end of a ban that is on now.

        Where it cannot be written the caller is told to wait: guessing must not be free because a disk is full.
        """
        now = self._clock()

        def add(txn: Txn) -> list[float]:
            bans = []
            for key, rule in keys:
                raw = txn.get(THROTTLE, key)
                tries = wrong(_decode(raw) if raw is not None else Tries(), rule, now)
                txn.put(THROTTLE, key, _encode(tries))
                bans.append(banned_until(tries, now) or 0.0)
            return bans

        try:
            return max(self._store.write(add)) or None
        except StoreError as exc:
            raise RefusedError(Denial.STORE, "nobody can sign in just now; try again in a moment", 503) from exc

    def _refuse_banned(self, keys: list[tuple[bytes, ThrottleRule]]) -> None:
        now = self._clock()
        for key, _ in keys:
            raw = self._store.get(THROTTLE, key)
            until = banned_until(_decode(raw), now) if raw is not None else None
            if until is not None:
                raise throttled(until)

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
    return RefusedError(Denial.THROTTLED, "too many wrong tries; wait and try again", 429, until)


def stale(raw: bytes, now: float) -> bool:
    """Whether a stored record says nothing any more."""
    tries = _decode(raw)
    fresh = any(now - at < max(PEER.window_s, NAME.window_s) for at in tries.wrong)
    return not fresh and now - tries.until > DAY_S
