"""How long an endpoint is left alone after it refused, in the state store: a restart does not ask again at once what
asked for hours of quiet, and no worker asks what another was told."""

from __future__ import annotations

import msgspec

from pool_server.core import deadlines
from pool_server.storage.write_behind import SmallValues

TABLE = "back_off"


class Pause(msgspec.Struct, frozen=True):
    """Until when (unix seconds), after how many refusals in a row (0: it is only not time yet), of which credential
    (its fingerprint, "" where that does not matter), and why."""

    until: float
    tries: int = 0
    token: str = ""
    reason: str = ""


class BackOff:
    """The pauses of one kind of endpoint by account; none is longer than `longest_s`."""

    def __init__(self, store: SmallValues, kind: str, longest_s: float) -> None:
        self._store = store
        self._kind = kind
        self._longest_s = longest_s

    def get(self, account_id: str, now: float, token: str = "") -> Pause | None:
        """The pause that was set for this credential and is not over."""
        found = self.last(account_id, token)
        return found if found is not None and deadlines.left(found.until, now, self._longest_s) else None

    def last(self, account_id: str, token: str = "") -> Pause | None:
        """The same, over or not."""
        raw = self._store.get(TABLE, self._key(account_id))
        if raw is None:
            return None
        try:
            found = msgspec.msgpack.decode(raw, type=Pause)
        except msgspec.DecodeError:
            return None
        return found if found.token == token else None

    def set(self, account_id: str, pause: Pause) -> None:
        self._store.put(TABLE, self._key(account_id), msgspec.msgpack.encode(pause))

    def clear(self, account_id: str) -> None:
        key = self._key(account_id)
        if self._store.get(TABLE, key) is not None:
            self._store.delete(TABLE, key)

    def _key(self, account_id: str) -> bytes:
        return f"{self._kind}:{account_id}".encode()
