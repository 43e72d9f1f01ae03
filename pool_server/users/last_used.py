"""When keys, people and admin tokens were last seen: noted in memory, written a little later."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pool_server.storage import Store, StoreError
from pool_server.users.models import SEEN

log = logging.getLogger(__name__)

MOST = 500  # written at once, so that the loop does not pause


class LastUsed:
    """`keys` (jti → when), `people` (user id → when) and `tokens` (id → when) are filled by those who see them; `owner`
    is a key's user."""

    def __init__(
        self,
        store: Store,
        keys: dict[str, float],
        people: dict[str, float],
        tokens: dict[str, float],
        owner: Callable[[str], str | None],
    ) -> None:
        self._store = store
        self._keys, self._people, self._tokens = keys, people, tokens
        self._owner = owner
        self._failing = False

    def write(self) -> bool:
        """Write some of it; whether anything is left. What cannot be written stays. Raises StoreError."""
        pairs: list[tuple[bytes, bytes]] = []
        written: list[tuple[dict[str, float], str]] = []
        for mark, seen in ((b"k", self._keys), (b"u", self._people), (b"t", self._tokens)):
            for what in list(seen)[:MOST]:
                at = b"%.0f" % seen[what]
                written.append((seen, what))
                pairs.append((mark + what.encode(), at))
                if mark == b"k" and (user := self._owner(what)) is not None:
                    pairs.append((b"u" + user.encode(), at))
        if pairs:
            self._store.write(lambda txn: txn.put_many(SEEN, pairs))
        for seen, what in written:
            del seen[what]
        return bool(self._keys or self._people or self._tokens)

    def write_in_turn(self) -> None:
        """The same, now and then; a store that cannot be written is told once."""
        try:
            self.write()
            self._failing = False
        except StoreError as exc:
            if not self._failing:
                log.warning("when keys were last used is written later: %s", exc)
            self._failing = True
