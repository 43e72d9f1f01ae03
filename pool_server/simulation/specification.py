"""Scenarios as data: `scenarios/*.toml`, checked field by field. docs/choosing.md describes the format."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any

import msgspec
import tomli

from pool_server.simulation.scenario import PLANS, Caching, Clients, EventKind, Plan, Servers, Sight

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Hour = Annotated[float, msgspec.Meta(ge=0, le=24 * 366)]


class ScenarioError(ValueError):
    """A scenario that cannot be simulated: one line that names the file and the field."""


class AccountsOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`count` accounts of one plan. `resets_h`: hours to the first reset of the week, None = spread over the week;
    `used`: share used before the start, None = by the time that has passed. `owners`: each account belongs to one of
    the first `count` people. `lost_h`: when the first of them is lost."""

    plan: str
    count: Count = 1
    resets_h: Annotated[float, msgspec.Meta(gt=0, le=168)] | None = None
    used: Share | None = None
    owners: bool = False
    reserve: Share = 0.0
    host: str = "a"
    lost_h: Hour | None = None


class PeopleOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`count` people of one rhythm: the hour (UTC) their day begins and how far it spreads, hours a day, conversations
    a working day as a share among all people (`weight`) and its log-normal `spread`, the share of them at a weekend
    day, requests a conversation (mean), seconds between requests, the median cost of a request, the range of the
    share that asks for the large model."""

    count: Count = 1
    weight: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    spread: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.5
    begins: Annotated[float, msgspec.Meta(ge=0, le=24)] = 8.5
    begins_spread: Annotated[float, msgspec.Meta(ge=0, le=12)] = 2.5
    hours: Annotated[float, msgspec.Meta(gt=0, le=24)] = 11.0
    weekend: Share = 0.3
    requests: Annotated[float, msgspec.Meta(ge=1, le=200)] = 15.0
    pause_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 40.0
    cost: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 0.4
    opus: tuple[Share, Share] = (0.0, 0.5)


class Burst(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every person begins `each` conversations within `over_s` seconds of `at_h`."""

    at_h: Hour
    each: Count = 3
    over_s: Annotated[float, msgspec.Meta(gt=0, le=86400)] = 600.0


class EventAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event `at_h` hours from the start; `account` counts from 0 in the file's order."""

    at_h: Annotated[float, msgspec.Meta(ge=0, le=24 * 366)]
    kind: EventKind
    account: Annotated[int, msgspec.Meta(ge=0)] | None = None
    host: str = ""
    amount: Annotated[float, msgspec.Meta(ge=-1e7, le=1e7)] = 0.0


class WeekSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file. `tests` says in a sentence what it is for; `load` is the demand's share of what the accounts hold."""

    name: str
    tests: str
    accounts: tuple[AccountsOf, ...]
    people: tuple[PeopleOf, ...]
    load: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.9
    days: Annotated[int, msgspec.Meta(ge=1, le=28)] = 7
    plans: tuple[Plan, ...] = ()
    bursts: tuple[Burst, ...] = ()
    events: tuple[EventAt, ...] = ()
    sight: Sight = Sight()
    clients: Clients = Clients()
    caching: Caching = Caching()
    servers: Servers = Servers()

    def plan(self, name: str) -> Plan:
        """Raises KeyError for a plan neither the file nor the simulation knows."""
        return {**PLANS, **{plan.name: plan for plan in self.plans}}[name]


def parse(text: str, file: str = "scenario") -> WeekSpec:
    """Read one scenario. Raises ScenarioError."""
    try:
        spec = msgspec.convert(tomli.loads(text), WeekSpec, strict=False)
    except (tomli.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ScenarioError(f"{file}: {error}") from None
    wrong = _contradiction(spec)
    if wrong:
        raise ScenarioError(f"{file}: {wrong}")
    return spec


def _contradiction(spec: WeekSpec) -> str:
    """What the fields say against each other, "" when nothing."""
    accounts = sum(row.count for row in spec.accounts)
    people = sum(row.count for row in spec.people)
    hosts = {row.host for row in spec.accounts}
    if not accounts or not people:
        return "it needs accounts and people"
    for row in spec.accounts:
        try:
            plan = spec.plan(row.plan)
        except KeyError:
            return f"accounts: no plan is called {row.plan!r}"
        if plan.budget is None and (plan.five_hours <= 0 or plan.week <= 0):
            return f"plans: {plan.name!r} holds nothing"
        if row.owners and row.count > people:
            return "accounts: more owners than people"
        if row.reserve and not row.owners:
            return "accounts: a reserve needs owners"
    if len({plan.name for plan in spec.plans}) < len(spec.plans):
        return "plans: two have one name"
    return next(filter(None, (_impossible(event, spec.days, accounts, hosts) for event in spec.events)), "")


def _impossible(event: EventAt, days: int, accounts: int, hosts: set[str]) -> str:
    """Why an event cannot happen in a scenario of so many days and accounts, "" when it can."""
    if event.at_h >= 24 * days:
        return f"events: hour {event.at_h:g} is not within {days} days"
    if event.account is not None and event.account >= accounts:
        return f"events: there is no account {event.account}"
    if event.host and event.host not in hosts:
        return f"events: no account is at host {event.host!r}"
    if event.kind is EventKind.SHRINK and not 0 < event.amount <= 10:
        return "events: a window shrinks to more than nothing, and to ten times at most"
    if event.kind in (EventKind.HANG, EventKind.OUTAGE) and event.amount <= 0:
        return f"events: {event.kind.value} needs an amount, its hours"
    return ""


@lru_cache(1)
def shipped() -> dict[str, WeekSpec]:
    """The scenarios of the package by name."""
    found: dict[str, WeekSpec] = {}
    for path in sorted(files("pool_server.simulation").joinpath("scenarios").iterdir(), key=_standard_first):
        if path.name.endswith(".toml"):
            spec = parse(path.read_text(encoding="utf-8"), path.name)
            found[spec.name] = spec
    return found


def _standard_first(path: Any) -> tuple[bool, str]:
    return (path.name != "standard-week.toml", path.name)
