"""Absolute times that outlive the process, judged so that no step of the clock makes a wait longer than it was.

Nothing that is known came from the future: what claims to was written by a clock that has been set back since, and
counts as of now.
"""

from __future__ import annotations


def left(until: float, now: float, longest: float) -> float:
    """Seconds until `until`, 0.0 when it is over. A time further away than `longest`, the most that anybody would have
    waited, was written by a clock that was ahead: it is over."""
    return until - now if 0.0 < until - now <= longest else 0.0


def within(until: float, now: float, longest: float) -> float:
    """`until`, and never further from `now` than `longest`."""
    return min(until, now + longest)
