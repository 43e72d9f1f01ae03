"""What requests of an account use that its windows do not show yet, and whether one more fits in a share of them.

Known of an account's use is what its vendor reported, and for each request in flight, of any worker, and each that
ended and was not reported yet, `SAFETY` times the most that one was seen to use. The rule:

- Nothing that is known passes a share: a request beside others is let in when one of that size fits.
- Nobody is kept out by nothing: with no request in flight, one is let in while what is known leaves anything. How much
  it will use nobody can know, so that the last one may pass the share, alone; where a vendor shows a request with the
  next one only, that one too.

The counts are a part of the account's record, which is changed in one transaction for all workers: `began` makes the
reservation, `ended` settles it, `observed` replaces it by what the vendor says. What a dead worker had in flight is
taken for ended. Pure: every function takes the time it speaks of, unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pool_server.accounts.health import windows as win
from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation

UNKNOWN_RISE = 1.0  # percent that a request is taken to use before any was seen
LEAST_RISE = 0.02
SAFETY = 2.0  # a request that nobody has seen the use of may be so much larger than those before it
FORGOTTEN = 0.95  # of the largest rise, with each one that is seen
MOST_ENDED = 64  # entries; the oldest are joined
UNREPORTED_S = 60.0  # what was not reported for so long never will be: the next answer tells all
RENEW_S = 15.0  # a worker says so often that its requests are still in flight …
SILENT_S = 60.0  # … and one that did not for so long is taken for dead
SAME_RESET_S = 300.0


class InFlight(msgspec.Struct, array_like=True):
    """One worker's requests, as of `at`."""

    requests: int
    at: float


class EndedUse(msgspec.Struct, array_like=True):
    """Requests that ended by `at`, whose own answers did not show what they used."""

    at: float
    requests: int


class ShareUse(msgspec.Struct):
    """Of one account. `flight` is by worker, `rises` the percent of a window that one request used. `alone_since`: when
    the one request in flight began, None where it is not alone. `told_at`: as of when an answer showed all windows."""

    flight: dict[str, InFlight] = {}
    ended: list[EndedUse] = []
    rises: dict[str, float] = {}
    alone_since: float | None = None
    told_at: float = 0.0

    @property
    def in_flight(self) -> int:
        return sum(one.requests for one in self.flight.values())

    def rise(self, w: WindowObservation) -> float:
        """Percent of a window that a request is taken to use."""
        return self.rises.get(win.key(w.window, w.scope), UNKNOWN_RISE)


def fits(use: ShareUse | None, w: WindowObservation, left: float, now: float) -> bool:
    """Whether one request more fits in what is `left` of a share of this window (percent)."""
    if use is None:
        return left > 0
    each = SAFETY * use.rise(w)
    left -= each * _unreported(use, w, now)
    flying = use.in_flight
    return left >= each * (flying + 1) if flying else left > 0


def _unreported(use: ShareUse, w: WindowObservation, now: float) -> int:
    """Requests that ended since this window was seen, or began anew, and that no answer has shown."""
    since = w.observed_at if w.resets_at is None or now < w.resets_at else max(w.observed_at, w.resets_at)
    return sum(one.requests for one in use.ended if one.at > since and abs(now - one.at) < UNREPORTED_S)


def began(use: ShareUse, worker: str, now: float) -> None:
    """A request goes up."""
    flying = use.flight.get(worker)
    use.flight[worker] = InFlight((flying.requests if flying is not None else 0) + 1, now)
    use.alone_since = now if use.in_flight == 1 else None


def ended(use: ShareUse, worker: str, now: float) -> None:
    """A request is over, to the last byte."""
    shown = use.alone_since is not None and use.told_at > use.alone_since
    flying = use.flight.pop(worker, None)
    if flying is not None and flying.requests > 1:
        use.flight[worker] = InFlight(flying.requests - 1, now)
    use.alone_since = None
    if not shown:
        _note_ended(use, EndedUse(now, 1))


def _note_ended(use: ShareUse, one: EndedUse) -> None:
    use.ended.append(one)
    if len(use.ended) > MOST_ENDED:
        first, second = use.ended[:2]
        use.ended[:2] = [EndedUse(max(first.at, second.at), first.requests + second.requests)]


def renewed(use: ShareUse, worker: str, requests: int, now: float) -> bool:
    """A worker says how many requests it has in flight; True where that is news, or is to be said again."""
    known = use.flight.get(worker)
    if known is None or not requests:
        if requests:
            use.flight[worker] = InFlight(requests, now)
            return True
        return use.flight.pop(worker, None) is not None
    if known.requests == requests and abs(now - known.at) < RENEW_S:
        return False
    use.flight[worker] = InFlight(requests, now)
    return True


def buried(use: ShareUse, dead: Iterable[str], now: float) -> bool:
    """Take what dead workers had in flight for ended, and what silent ones have; True where there was any."""
    gone = {*dead, *(name for name, one in use.flight.items() if abs(now - one.at) > SILENT_S)} & use.flight.keys()
    for worker in gone:
        requests = use.flight.pop(worker).requests
        _note_ended(use, EndedUse(now, requests))
        use.alone_since = None
    return bool(gone)


def observed(use: ShareUse, before: dict[str, WindowObservation], after: dict[str, WindowObservation]) -> bool:
    """The account's windows, as they were and as they are after a sighting: what a request uses is learnt, and what is
    reported now is forgotten. True where anything changed."""
    news = [(name, before.get(name), w) for name, w in after.items() if w is not before.get(name)]
    changed = False
    for name, old, w in news:
        if old is not None and w.observed_at > old.observed_at and not _began_anew(old, w):
            changed |= _learn_rise(use, name, old, w)
    if news and all(w.source is not Source.USAGE_ENDPOINT for _, _, w in news):
        use.told_at = max(use.told_at, min(w.observed_at for w in after.values()))
        changed |= use.alone_since is not None
    oldest = min((w.observed_at for w in after.values()), default=0.0)
    kept = [one for one in use.ended if one.at > oldest]
    changed |= len(kept) < len(use.ended)
    use.ended = kept
    return changed


def _learn_rise(use: ShareUse, name: str, old: WindowObservation, new: WindowObservation) -> bool:
    requests = sum(one.requests for one in use.ended if old.observed_at < one.at <= new.observed_at)
    rise = max(0.0, new.used_percent - old.used_percent) / max(1, requests)
    if not requests and not rise:
        return False
    use.rises[name] = max(rise, LEAST_RISE, FORGOTTEN * use.rises.get(name, 0.0))
    return True


def _began_anew(old: WindowObservation, new: WindowObservation) -> bool:
    """Vendors tell the same reset some seconds apart."""
    if old.resets_at is None or new.resets_at is None:
        return new.used_percent < old.used_percent
    return abs(new.resets_at - old.resets_at) > SAME_RESET_S
