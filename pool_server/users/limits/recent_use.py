"""Recent use by provider and person, shared by all workers, for fair share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from pool_server.core.settings import FairShare
from pool_server.storage import Reader, Store
from pool_server.storage.lmdb.gathered_writes import RowChanges
from pool_server.users.limits import SHARE, fair_share

FRESH_S = 1.0  # how long a look at everybody's use is good

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(fair_share.Buckets).decode


class Shares:
    """Keeps recent use and says who has had more than a fair share of a provider that is short."""

    def __init__(self, store: Store, settings: FairShare, weight: Callable[[str], float]) -> None:
        self._store = store
        self.settings = settings
        self._weight = weight
        # Everybody's use of a provider as of a moment, where that is not in `store`.
        self.everybody: Callable[[str, float], dict[str, fair_share.Buckets]] = self._everybody
        self._looks: dict[str, tuple[float, dict[str, fair_share.Buckets]]] = {}

    @property
    def window_s(self) -> float:
        return self.settings.window_h * 3600.0

    def add(self, txn: RowChanges, provider: str, user: str, amount: float, now: float) -> None:
        """Counts use, within the transaction that settles a request."""
        if not self.settings.enabled or amount <= 0:
            return
        key = f"{provider}\0{user}".encode()
        raw = txn.get(SHARE, key)
        buckets = fair_share.add(_decode(raw) if raw is not None else [], amount, now, self.window_s)
        txn.put(SHARE, key, _encode(buckets))

    def short(self, headroom: float | None) -> bool:
        """Whether the headroom is so low (percent, None = not known) that anybody may have to wait."""
        return self.settings.enabled and headroom is not None and headroom < self.settings.short_percent

    def waits_until(self, provider: str, user: str, headroom: float | None, now: float) -> float | None:
        """When the user's recent use has aged to a fair share; None = they may go on now.

        `headroom` is the provider's headroom in percent, None = not known.
        """
        if headroom is None or not self.short(headroom):
            return None
        everybody = self.everybody(provider, now)
        mine = everybody.get(user)
        if mine is None:
            return None
        use = {who: fair_share.recent(buckets, now, self.window_s) for who, buckets in everybody.items()}
        weights = {who: self._weight(who) for who in use}
        fair = fair_share.allowed(use, weights, headroom, self.settings.short_percent) * weights[user]
        if use[user] <= fair * (1 + 1e-9):  # equal users must not be told apart by rounding
            return None
        return fair_share.frees_at(mine, fair, now, self.window_s)

    def stale(self, raw: bytes, now: float) -> bool:
        """Whether a stored record holds no use within the window."""
        return fair_share.recent(_decode(raw), now, self.window_s) <= 0

    def _everybody(self, provider: str, now: float) -> dict[str, fair_share.Buckets]:
        taken, look = self._looks.get(provider, (float("-inf"), {}))
        if abs(now - taken) < FRESH_S:
            return look
        prefix = f"{provider}\0".encode()
        with self._store.read() as txn:
            pairs = [(key[len(prefix) :].decode(), _decode(raw)) for key, raw in _under(txn, prefix)]
        look = {who: buckets for who, buckets in pairs if fair_share.recent(buckets, now, self.window_s) > 0}
        self._looks[provider] = (now, look)
        return look


def _under(txn: Reader, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    return txn.scan(SHARE, prefix, prefix[:-1] + b"\1")
