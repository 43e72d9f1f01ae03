"""Fair share: who waits first when a provider's headroom is low. Pure.

Recent use is compared, weighted by each person's weight. The headroom says how much of what the pool
handed out lately it can go on handing out; that much is divided max-min fairly (everybody gets what they ask
for until an equal share, what modest people leave over goes to the others), and whoever has had more than the
resulting level waits. The level never falls under the equal share, so nobody who took no more than that is ever
held up, and somebody who is alone never waits for anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pool_server.core.models import Usage

BUCKET = 600  # seconds of recent use counted together
Buckets = list[tuple[int, float]]  # (start in unix seconds, weighted tokens), in order of time

# Roughly what a token weighs in the providers' own price lists, an uncached input token being 1.
_CACHE_READ, _CACHE_WRITE, _OUTPUT = 0.1, 1.25, 5.0


def weigh(usage: Usage) -> float:
    """How much of a provider's headroom an exchange took, in input-token equivalents; comparable across models'
    tokens.
    """
    return usage.input + _CACHE_READ * usage.cache_read + _CACHE_WRITE * usage.cache_write + _OUTPUT * usage.output


def add(buckets: Buckets, amount: float, now: float, window_s: float) -> Buckets:
    """The buckets with `amount` added at `now` and everything older than the window dropped."""
    start = int(now) // BUCKET * BUCKET
    kept = [(min(at, start), had) for at, had in buckets if at + BUCKET + window_s > now]
    if kept and kept[-1][0] >= start:
        kept[-1] = (kept[-1][0], kept[-1][1] + amount)
    else:
        kept.append((start, amount))
    return kept


def recent(buckets: Sequence[tuple[int, float]], now: float, window_s: float) -> float:
    """Use within the window before `now`."""
    return sum(amount for start, amount in buckets if start + BUCKET + window_s > now)


def level(use: Mapping[str, float], weights: Mapping[str, float], supply: float) -> float:
    """The use a unit of weight up to which everybody is served when `supply` is divided weighted max-min fairly.

    `use` is what each person asks for; a missing weight is 1. Infinite when the supply is enough for all.
    """
    total = sum(use.values())
    if supply >= total:
        return float("inf")
    left, weight_left = supply, sum(weights.get(user, 1.0) for user in use)
    for user in sorted(use, key=lambda who: use[who] / weights.get(who, 1.0)):
        weight = weights.get(user, 1.0)
        share = left / weight_left
        if use[user] / weight >= share:
            return share
        left -= use[user]
        weight_left -= weight
    return float("inf")


def allowed(use: Mapping[str, float], weights: Mapping[str, float], headroom: float, short: float) -> float:
    """How much recent use a unit of weight is fair at this much headroom; whoever has had more waits.

    `headroom` is the provider's headroom and `short` the threshold, both in percent. At the threshold nobody
    waits; the less is left, the closer the level comes to the equal share.
    """
    if headroom >= short or not use:
        return float("inf")
    total = sum(use.values())
    equal = total / sum(weights.get(user, 1.0) for user in use)
    return max(equal, level(use, weights, total * max(0.0, headroom) / short))


def frees_at(buckets: Sequence[tuple[int, float]], limit: float, now: float, window_s: float) -> float:
    """When recent use has aged to `limit` or less, if nothing is added."""
    left = recent(buckets, now, window_s)
    for start, amount in buckets:
        if left <= limit:
            return now
        if start + BUCKET + window_s > now:
            left -= amount
            if left <= limit:
                return min(start, now) + BUCKET + window_s  # counted in the future by a clock that was set back
    return now
