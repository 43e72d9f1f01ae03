"""What is simulated: accounts and what happens to them, people's requests, and how much of the truth is seen."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

HOUR = 3600.0
DAY = 86400.0
WEEK = 7 * DAY
START = 1_750_000_000.0 - 1_750_000_000.0 % WEEK  # some week's beginning; only differences matter
OPUS = "opus"


Units = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Part = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=4 * 7 * 86400.0)]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A subscription: how much its windows hold, in units of an average request. `opus`: 0 = not offered; None = no
    window of its own, it counts in the others. `budget` is what an API key may spend in all; None = not a key."""

    name: str
    five_hours: Units = 0.0
    week: Units = 0.0
    opus: Units | None = None
    budget: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None


PRO = Plan("pro", 100, 900, 0.0)
MAX_5 = Plan("max_5x", 500, 4500, 2200)
MAX_20 = Plan("max_20x", 2000, 18000, 9000)
PLANS = {plan.name: plan for plan in (PRO, MAX_5, MAX_20)}


class Seat(msgspec.Struct, frozen=True):
    """One account: its plan, when its week resets first (seconds from the start), what was used of it before the start
    (share), and when the account is lost (None = never). `owner` is the user who brought it, `reserve` the share of
    each window kept for them; `host` names where its requests go."""

    name: str
    plan: Plan
    resets_after: float
    used_before: float
    lost_after: float | None = None
    owner: str = ""
    reserve: float = 0.0
    host: str = "a"


class Talk(msgspec.Struct, frozen=True):
    """One conversation: when it begins, and for each request the pause before it, its length (seconds) and cost."""

    at: float
    user: str
    model: str
    turns: tuple[tuple[float, float, float], ...]


class EventKind(StrEnum):
    """What happens to accounts, hosts and clocks. `amount` is hours, a factor or seconds, as said."""

    HANG = "hang"  # the host takes requests and answers none, for `amount` hours
    OUTAGE = "outage"  # the host answers 503, for `amount` hours
    EARLY_RESET = "early_reset"  # all windows begin anew at once
    SHRINK = "shrink"  # every window holds `amount` times as much from now on
    WITHDRAW = "withdraw"  # the owner takes the account out of the pool
    CLOCK_STEP = "clock_step"  # the pool's clock is `amount` seconds off from now on


class Event(msgspec.Struct, frozen=True):
    """`at`: seconds from the start; `target`: an account or a host, "" for all."""

    at: float
    kind: EventKind
    target: str = ""
    amount: float = 0.0


class Sight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the truth the answers tell.

    `delay_s`: a figure is known so much later; `step`: percents are rounded down to multiples of it; `gaps`: the share
    of answers without figures; `wrong_resets`: the share that names a reset some hours off; `at_start`: are the
    windows known before the first answer?
    """

    delay_s: Seconds = 0.0
    step: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.0
    gaps: Part = 0.0
    wrong_resets: Part = 0.0
    at_start: bool = True


class Clients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How clients behave: `retries` of a refused request, each `retry_s` after the last."""

    retries: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    retry_s: Seconds = 2.0


class Caching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a warm prefix is worth: a request whose account did not serve the conversation's last `life_s` seconds costs
    `cold` times as much."""

    cold: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 1.0
    life_s: Seconds = 300.0


class Servers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many workers choose, and how late (seconds) one hears of what another did."""

    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    news_s: Seconds = 0.0


class Scenario(msgspec.Struct, frozen=True):
    """One run's world and demand; times of talks are unix seconds. `before`: (time, cost) of the conversations of the
    weeks before, as far as the pool knows of them."""

    name: str
    seats: tuple[Seat, ...]
    talks: tuple[Talk, ...]
    start: float = START
    length: float = WEEK
    events: tuple[Event, ...] = ()
    sight: Sight = Sight()
    clients: Clients = Clients()
    caching: Caching = Caching()
    servers: Servers = Servers()
    before: tuple[tuple[float, float], ...] = ()
    seed: int = 0

    @property
    def end(self) -> float:
        return self.start + self.length


def scope_of(model: str) -> str:
    """The window family a simulated model belongs to."""
    return OPUS if OPUS in model else ""
