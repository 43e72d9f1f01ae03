"""What requests of an account use that its windows do not show yet: those in flight, and those that ended since.

A share of a window that its owner gives is kept by counting them in: whoever asks is served while what is left of the
share is more than what they may still use. So it is passed by one request's use at most, one a worker. A request that
was alone counts as shown by what its own answer said: where a vendor shows a request with the next one only, it is one
more, and a share is never held up for want of the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from pool_server.core.models import WindowObservation

UNKNOWN_RISE = 1.0  # percent that a request is taken to use before any was seen
LEAST_RISE = 0.02
SAFETY = 2.0  # a request that nobody has seen the use of may be so much larger than those before it
FORGOTTEN = 0.95  # of the largest rise, with each one that is seen
KEPT = 4096  # requests
SAME_RESET_S = 300.0


class UnseenUse:
    """Of one account, as this worker knows it. Times are unix seconds."""

    __slots__ = ("_alone_since", "_ended", "_hidden", "_rises", "_told_at")

    def __init__(self) -> None:
        self._ended: deque[float] = deque(maxlen=KEPT)
        self._hidden: deque[float] = deque(maxlen=KEPT)  # of those, whose own answer did not show them
        self._rises: dict[tuple[str, str], float] = {}
        self._alone_since: float | None = None  # when the one request in flight began; None = it was not alone
        self._told_at = 0.0

    def began(self, now: float, in_flight: int) -> None:
        """A request goes up, with which so many are in flight here."""
        self._alone_since = now if in_flight == 1 else None

    def ended(self, now: float) -> None:
        """A request is over, to the last byte."""
        self._ended.append(now)
        if self._alone_since is None or self._told_at < self._alone_since:
            self._hidden.append(now)

    def observed(self, before: Iterable[WindowObservation], after: Iterable[WindowObservation]) -> None:
        """The account's windows, as they were and as they are after a sighting: what a request uses is learnt."""
        known = {(w.window, w.scope): w for w in before}
        seen = list(after)
        for w in seen:
            name = (w.window, w.scope)
            old = known.get(name)
            if old is None or w.observed_at <= old.observed_at or _began_anew(old, w):
                continue
            requests = sum(old.observed_at < at <= w.observed_at for at in self._ended)
            rise = max(0.0, w.used_percent - old.used_percent) / max(1, requests)
            if requests or rise:
                self._rises[name] = max(rise, LEAST_RISE, FORGOTTEN * self._rises.get(name, 0.0))
        oldest = min((w.observed_at for w in seen), default=0.0)
        self._told_at = max(self._told_at, oldest)
        for requests_ended in (self._ended, self._hidden):
            while requests_ended and requests_ended[0] <= oldest:
                requests_ended.popleft()

    def rise(self, w: WindowObservation) -> float:
        """Percent of a window that a request is taken to use."""
        return self._rises.get((w.window, w.scope), UNKNOWN_RISE)

    def fits(self, w: WindowObservation, left: float, now: float, *, here: int, elsewhere: int, workers: int) -> bool:
        """Whether one request more fits in what is `left` of a share of this window (percent): with those that `here`
        and `elsewhere` are in flight, where each of the `workers` gives out its part."""
        since = w.observed_at if w.resets_at is None or now < w.resets_at else max(w.observed_at, w.resets_at)
        unseen, each = here + sum(at > since for at in self._hidden), SAFETY * self.rise(w)
        return left > workers * unseen * each and left > (unseen + elsewhere) * each


def _began_anew(old: WindowObservation, new: WindowObservation) -> bool:
    """Vendors tell the same reset some seconds apart."""
    if old.resets_at is None or new.resets_at is None:
        return new.used_percent < old.used_percent
    return abs(new.resets_at - old.resets_at) > SAME_RESET_S
