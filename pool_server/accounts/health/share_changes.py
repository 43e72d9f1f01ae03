"""Changes of an account's record for requests that may be served from what its owner gives: each is made in the
transaction that all workers share."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pool_server.accounts.health import share_use
from pool_server.accounts.health.share_use import ShareUse
from pool_server.accounts.health.state import AccountHealth

Change = Callable[[AccountHealth], bool]


class RoomTaken:
    """Reserves what a request is taken to use, where `fits` says that it fits. Made again on a record that another
    machine wrote meanwhile (`firm`) it is reserved in any case: the request is under way by then."""

    def __init__(self, worker: str, now: float, fits: Change) -> None:
        self._worker, self._now, self._fits = worker, now, fits
        self.firm = False

    def __call__(self, health: AccountHealth) -> bool:
        if not self.firm and not self._fits(health):
            return False
        use = health.share_use = health.share_use or ShareUse()
        share_use.began(use, self._worker, self._now)
        return True


def settled(worker: str, now: float) -> Change:
    """A request is over, to the last byte."""

    def change(health: AccountHealth) -> bool:
        if health.share_use is None:
            return False
        share_use.ended(health.share_use, worker, now)
        return True

    return change


def kept(worker: str, requests: int, dead: Collection[str], now: float) -> Change:
    """A worker has so many requests under way; those of dead ones are taken for ended."""

    def change(health: AccountHealth) -> bool:
        use = health.share_use
        if use is None:
            return False
        renewed = share_use.renewed(use, worker, requests, now)
        return share_use.buried(use, dead, now) or renewed

    return change


def learning(change: Change) -> Change:
    """The change, and what follows from the windows it leaves for what requests use that these do not show."""

    def both(health: AccountHealth) -> bool:
        windows = dict(health.windows)
        changed = change(health)
        use = health.share_use
        return (use is not None and share_use.observed(use, windows, health.windows)) or changed

    return both
