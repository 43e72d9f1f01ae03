"""What a conversation would have to read again if it went on with another account: the price of a move.

A vendor keeps the prefix of a conversation in a cache of the account that served it last, for some minutes after its
last use. Counts are in tokens at the price of fresh input, so that what is read again and what lies ahead compare.
"""

from __future__ import annotations

import struct
from math import log2
from typing import Any

import msgspec

from pool_server.accounts.selection.affinity import TABLE, warm_key
from pool_server.core.models import Usage
from pool_server.providers import SPECS
from pool_server.storage.write_behind import SmallValues

REMEMBERED = 4096  # conversations a worker knows without asking the store
AHEAD = 5.0  # requests a conversation has ahead of it: one that went on so far goes on
OUTPUT_PRICE = 5.0  # of a token of output, in fresh input: what the vendors' lists have in common
FRESH_S = 60.0  # so long a worker asks nobody else about a conversation it served
LEAST_GAIN = 1.0  # doublings of headroom by which another account must be better, whatever a move costs
GROWN = 1.25  # a prompt that much larger, or half a lifetime of the cache later, is worth a write
_CACHES = {str(provider): spec.cache for provider, spec in SPECS.items()}
_row = struct.Struct(">ddQQ")  # until when the row is kept, last use, tokens of the prompt, tokens the request cost


class Warmth(msgspec.Struct, frozen=True):
    """The cache of one conversation: where, since when (unix seconds), how many tokens its last prompt had, what a
    request of it costs, and what its vendor's cache saves (the share of the price; None: not known) and for how long
    (seconds; None: not known). `sealed`: the account alone can read all of it, however old it is."""

    account: str
    at: float
    prompt: float
    spent: float
    saves: float | None = None
    life_s: float | None = None
    sealed: bool = False

    def forgotten(self, now: float) -> bool:
        """Has the account nothing left of the conversation, so that it may as well go on elsewhere?"""
        return self.again(now) == 0.0 and not self.sealed

    def again(self, now: float) -> float | None:
        """Tokens' worth that a move would cost now: 0 once the cache is cold, None when it cannot be told."""
        if self.life_s is None or self.saves is None:
            return None
        return self.prompt * self.saves if now - self.at <= self.life_s else 0.0

    def lost_by(self, usage: Usage, at: float) -> int:
        """Tokens of this cache that a request of the conversation, begun at `at` elsewhere, read anew. What was
        shortened loses nothing by the move, nor does what was cold by then."""
        if self.life_s is not None and at - self.at > self.life_s:
            return 0
        return max(0, min(int(self.prompt), usage.prompt) - usage.cache_read)

    def price(self, now: float) -> float | None:
        """The same as a term of the score: the doublings of headroom by which another account must be better for what
        lies ahead of the conversation to make up for what it must read again."""
        again = self.again(now)
        return None if again is None else log2(1.0 + again / max(1.0, AHEAD * self.spent))


class WeighedMove(msgspec.Struct, frozen=True):
    """A conversation's change of account, made or not. `price`: what it must read again, as a term of the score;
    `tokens`: the same in tokens at the price of fresh input; None: not known. `gain`: by how much the other's score is
    better, None where the account before cannot serve."""

    before: str
    after: str
    price: float | None = None
    tokens: float | None = None
    gain: float | None = None

    @property
    def pays(self) -> bool:
        """Does it free more than it costs? Not where the price is unknown."""
        return self.price is not None and self.gain is not None and self.gain >= LEAST_GAIN + self.price

    def row(self) -> dict[str, Any]:
        """Plain data for records."""
        found = {"price": self.price, "tokens": self.tokens, "gain": self.gain}
        rounded = {name: None if value is None else round(value, 3) for name, value in found.items()}
        return {"from": self.before, "to": self.after, **rounded}


def after(account: str, usage: Usage, now: float) -> Warmth:
    """The cache that an answered request leaves behind. What a provider does not say of its cache stays unknown."""
    cache = _CACHES[account.partition(":")[0]]
    share = 1.0 if cache is None else cache.share
    return of_vendor(account, now, usage.prompt, spent(usage, share))


def of_vendor(account: str, at: float, prompt: float, cost: float) -> Warmth:
    """A cache as its vendor keeps it. Raises KeyError for a vendor that is not known."""
    cache = _CACHES[account.partition(":")[0]]
    if cache is None:
        return Warmth(account, at, prompt, cost)
    return Warmth(account, at, prompt, cost, 1.0 - cache.share, cache.life_s, cache.sealed)


def spent(usage: Usage, share: float) -> float:
    """Tokens of a request at the price of fresh input; one from a cache costs `share`."""
    return usage.input + usage.cache_write + share * usage.cache_read + OUTPUT_PRICE * usage.output


class WarmthMemory:
    """The caches of conversations, remembered by the worker that served them last and, coarser, in the state store for
    the others."""

    def __init__(self, store: SmallValues) -> None:
        self._store = store
        self._known: dict[bytes, Warmth] = {}
        self._written: dict[bytes, Warmth] = {}

    def note(self, user: str, session: str, account: str, usage: Usage, now: float) -> None:
        """A request of the conversation was answered."""
        if not usage.known or not usage.prompt:
            return
        key, warmth = warm_key(user, session), after(account, usage, now)
        _keep(self._known, key, warmth)
        before = self._written.get(key)
        if warmth.life_s is not None and (before is None or _matters(before, warmth, warmth.life_s)):
            _keep(self._written, key, warmth)
            kept = now + 2 * warmth.life_s
            row = _row.pack(kept, now, min(1 << 62, int(warmth.prompt)), min(1 << 62, int(warmth.spent)))
            self._store.put(TABLE, key, row + account.encode())

    def find(self, user: str, session: str, now: float) -> Warmth | None:
        """What is known of the conversation's cache, by whichever worker saw it last; None when nothing is."""
        key = warm_key(user, session)
        known = self._known.get(key)
        if known is not None and 0 <= now - known.at < FRESH_S:
            return known
        raw = self._store.get(TABLE, key)
        if raw is None or len(raw) <= _row.size:
            return known
        _, at, prompt, cost = _row.unpack_from(raw)
        if known is not None and known.at >= at:
            return known
        account = raw[_row.size :].decode("utf-8", "replace")
        try:
            return of_vendor(account, min(at, now), prompt, cost)
        except KeyError:  # of a vendor that a newer version knows
            return known


def _matters(before: Warmth, now: Warmth, life_s: float) -> bool:
    alike = before.prompt / GROWN <= now.prompt <= before.prompt * GROWN
    return now.account != before.account or not alike or not 0 <= now.at - before.at <= life_s / 2


def _keep(table: dict[bytes, Warmth], key: bytes, warmth: Warmth) -> None:
    table.pop(key, None)
    table[key] = warmth
    if len(table) > REMEMBERED:
        del table[next(iter(table))]
