"""Arithmetic of quota windows. Pure: every function takes the time it speaks of.

A window is kept as its last `WindowObservation`. Percentages run from 0 (untouched) to 100 (used up) and may
pass 100 where a provider sells more; times are unix seconds. Past its reset a window reads 0 until it is
observed again, and a window nobody has reported yet is unknown: it is absent, not empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pool_server.accounts.health.demand_clock import DemandClock
from pool_server.core.enums import Source
from pool_server.core.models import WindowObservation

DAY = 86400.0
FULL = 100.0
CREDITS = "credits"  # paid extra usage: shown, but a plan works without it
SHORTEST_PACED = 600  # seconds; shorter ones (requests a minute) say nothing about what must last
UNKNOWN_RESET_COOLDOWN = 3600.0  # a full window without a known reset is believed for an hour


def key(window: str, scope: str) -> str:
    """The name under which one window of an account is kept: "5h", or "7d/opus" when it binds a family."""
    return f"{window}/{scope}" if scope else window


def used(w: WindowObservation, now: float) -> float:
    """Percent used at `now`: 0 past the reset, else what was last seen. Without a known reset the length decides."""
    resets_at = w.resets_at
    if resets_at is not None:
        return 0.0 if now >= resets_at else w.used_percent
    return 0.0 if 0 < w.seconds <= now - w.observed_at else w.used_percent


def time_left(w: WindowObservation, now: float) -> float | None:
    """Seconds to the reset, None when it is not known or the window has not begun anew in anyone's sight."""
    if w.resets_at is None or now >= w.resets_at:
        return None
    return w.resets_at - now


def merge(old: WindowObservation | None, new: WindowObservation) -> WindowObservation:
    """The window after another observation.

    An older sighting changes nothing. `resets_at` None keeps the known cadence: a reset still ahead stays, and a
    window of a day or more rolls on by its own length; shorter ones begin with the first use, so theirs is
    unknown.
    """
    if old is None:
        return new
    if new.observed_at < old.observed_at:
        return old
    if new.resets_at is not None or old.resets_at is None:
        return new
    resets_at: float | None = old.resets_at
    if old.resets_at <= new.observed_at:
        resets_at = None
        if new.seconds >= DAY:
            missed = (new.observed_at - old.resets_at) // new.seconds + 1
            resets_at = old.resets_at + missed * new.seconds
    return WindowObservation(
        new.window, new.seconds, new.used_percent, resets_at, new.source, new.observed_at, new.scope
    )


def binding(windows: Mapping[str, WindowObservation], scopes: tuple[str, ...]) -> list[WindowObservation]:
    """The windows that bind a request whose model belongs to `scopes`: the account's own and these families'."""
    return [w for w in windows.values() if (not w.scope or w.scope in scopes) and w.window != CREDITS]


def room(windows: Iterable[WindowObservation], now: float) -> float | None:
    """Percent left in the tightest of these windows, not below 0; None when none is known."""
    left = [FULL - used(w, now) for w in windows]
    return max(0.0, min(left)) if left else None


def surplus(w: WindowObservation, room: float, now: float, clock: DemandClock) -> float:
    """How the `room` (percent) left in a window compares with the time it must last, as `clock` counts it: share left /
    share of time left.

    1 is on pace, 2 has twice what an even pace needs, 0 is used up. Without a known reset the whole length is
    assumed to lie ahead. Never above 100, so that the last seconds of a window stay comparable.
    """
    resets_at = w.resets_at
    if resets_at is None or now >= resets_at or not w.seconds:
        return room / FULL
    return room / FULL / max(0.01, min(1.0, clock.between(now, resets_at) / w.seconds))


def full_until(w: WindowObservation, now: float) -> float | None:
    """Until when this window stops its account, None when it does not.

    A sighting by the usage endpoint alone never does: polls may loosen a state, not stop a working account.
    """
    if w.source is Source.USAGE_ENDPOINT or w.window == CREDITS or used(w, now) < FULL:
        return None
    if w.resets_at is not None:
        return w.resets_at
    until = w.observed_at + min(w.seconds or UNKNOWN_RESET_COOLDOWN, UNKNOWN_RESET_COOLDOWN)
    return until if until > now else None


def believable(hint: float, windows: Iterable[WindowObservation], now: float, *, longest: float) -> float:
    """A provider's "try again at", cut to what its own windows make plausible.

    A hint that agrees with a known reset (within five minutes) is believed. One that lies beyond every window that
    is nearly full ends at the last of their resets; if none is nearly full, at the next reset of any. `longest` is
    the longest window in seconds, for accounts whose windows are not known yet.
    """
    hint = min(hint, now + longest)
    resets = [(w.resets_at, used(w, now)) for w in windows if w.resets_at is not None and w.resets_at > now]
    if not resets or any(abs(hint - at) <= 300 for at, _ in resets):
        return hint
    tight = [at for at, percent in resets if percent >= 90]
    return min(hint, max(tight) if tight else min(at for at, _ in resets))


def prune(windows: dict[str, WindowObservation], now: float) -> None:
    """Forget windows the provider stopped reporting (a changed plan): two lengths and a day without sight."""
    for name in [n for n, w in windows.items() if now - w.observed_at > 2 * w.seconds + DAY]:
        del windows[name]
