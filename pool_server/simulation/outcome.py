"""What one strategy made of one scenario: counted while it runs, and as shares of what was possible."""

from __future__ import annotations

import msgspec

from pool_server.simulation.scenario import Scenario
from pool_server.simulation.world import World


class WeekOutcome(msgspec.Struct):
    """`refused_with_room`: requests refused while an account they might use had some left. `moved_share`:
    conversations moved although their account could have gone on, of all conversations. `served_of_bound`: work done
    of the most that could be done (None: no bound was computed). `usable_room_used`: what was used of the weeks that
    ended, of what a knowing planner could have used of them. `room_lost`: what was left unused in them, of all they
    held. `cached_of_bound`: requests that found their conversation's cache warm, of those that came in its life.
    `reserve_touched`: requests of others served out of an owner's reserve; `own_missed`: an owner's requests served
    elsewhere although their own account had room. `bill`: units served by API keys. `spread`: the greatest share of
    its own capacity an account was used, over the mean. `requests_per_s`: simulated requests in a second of processor
    time.
    """

    strategy: str
    scenario: str = ""
    requests: int = 0
    refused: int = 0
    refused_with_room: int = 0
    moved_share: float = 0.0
    usable_room_used: float = 0.0
    room_lost: float = 0.0
    requests_per_s: float = 0.0
    served_of_bound: float | None = None
    cached_of_bound: float = 1.0
    reserve_touched: int = 0
    own_missed: int = 0
    bill: float = 0.0
    conversations: int = 0
    failed_attempts: int = 0
    spread: float = 0.0


class Tally:
    """What is counted while a week runs."""

    def __init__(self) -> None:
        self.requests = 0
        self.refused = 0
        self.refused_with_room = 0
        self.failed_attempts = 0
        self.reserve_touched = 0
        self.own_missed = 0
        self.warm = 0
        self.could_be_warm = 0
        self.units = 0.0
        self.moved: set[int] = set()


class Goals(msgspec.Struct, frozen=True):
    """What could be reached in a scenario, in units: of the weeks that end, and (with a bound) in all."""

    weeks: float
    all: float | None = None


def outcome(strategy: str, scenario: Scenario, world: World, tally: Tally, goals: Goals, seconds: float) -> WeekOutcome:
    """The shares of a week that has run. `seconds`: processor time it took."""
    closed = world.closed
    held = sum(c.used + c.lost - c.before for c in closed)
    used = sum(c.used - c.before for c in closed)
    plans = {seat.name: seat.plan for seat in scenario.seats}
    shares = [world.served[name] / plan.week for name, plan in plans.items() if plan.week]
    bill = sum(world.served[name] for name, plan in plans.items() if plan.budget is not None)
    return WeekOutcome(
        strategy,
        scenario.name,
        tally.requests,
        tally.refused,
        tally.refused_with_room,
        moved_share=round(len(tally.moved) / max(1, len(scenario.talks)), 5),
        usable_room_used=round(min(1.0, used / goals.weeks), 4) if goals.weeks else 1.0,
        room_lost=round(sum(c.lost for c in closed) / held, 4) if held else 0.0,
        requests_per_s=round(tally.requests / max(1e-9, seconds)),
        served_of_bound=round(min(1.0, tally.units / goals.all), 4) if goals.all else None,
        cached_of_bound=round(tally.warm / tally.could_be_warm, 4) if tally.could_be_warm else 1.0,
        reserve_touched=tally.reserve_touched,
        own_missed=tally.own_missed,
        bill=round(bill, 1),
        conversations=len(scenario.talks),
        failed_attempts=tally.failed_attempts,
        spread=round(max(shares) / (sum(shares) / len(shares)), 3) if any(shares) else 1.0,
    )
