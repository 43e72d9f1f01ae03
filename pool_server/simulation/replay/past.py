"""Recorded exchanges as columns: a month of a million of them takes some ninety megabytes."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable
from enum import IntEnum
from math import isfinite, nan
from typing import NamedTuple

from pool_server.accounts.selection.warmth import spent
from pool_server.core.enums import Dialect, FaultKind, Operation, Outcome, Provider
from pool_server.core.models import UsageRecord

WAITED_MS = 1000.0  # before the first attempt; less is the request's own way
FRESH_USD = 3.0 / 1e6  # a token of fresh input where no price is known, so that use without a price weighs something
CACHED_WEIGHT = 0.1  # of it, a token from a cache
LONGEST_S = 6 * 3600.0  # an exchange; a longer one is a clock that stepped

_SERVED = frozenset({Outcome.OK.value, Outcome.CLIENT_GONE.value, Outcome.CUT.value, Outcome.REVOKED.value})
_NOBODY = frozenset({Outcome.EXHAUSTED.value, Outcome.NO_ACCOUNT.value})
_KINDS = frozenset(one.value for one in FaultKind)


class RecordedEnd(IntEnum):
    """How an exchange ended, as far as the choice has to do with it."""

    SERVED = 0
    REFUSED = 1  # no account could serve
    APART = (
        2  # for reasons that no choice changes: a limit of the user's, a request that is wrong, a vendor that is down
    )


class Met(NamedTuple):
    """A fault that an account answered with within an exchange."""

    account: str
    kind: FaultKind
    status: int


class Past:
    """Exchanges in the order of time. `at` unix seconds, `seconds` from beginning to end, `units` what they took of the
    accounts in US dollars at list prices (not a number where that is not known), `tokens` of every kind, `prompt` those
    of the prompt, `spent` all at the price of fresh input. Names are numbers into `names`."""

    def __init__(self) -> None:
        self.at = array("d")
        self.seconds = array("d")
        self.waited = array("d")
        self.units = array("d")
        self.tokens = array("q")
        self.prompt = array("q")
        self.spent = array("d")
        self.user = array("l")
        self.talk = array("l")  # 0 = of no conversation
        self.model = array("l")
        self.account = array("l")
        self.sort = array("l")  # the provider, dialect and operation
        self.ending = array("b")
        self.met: dict[int, tuple[Met, ...]] = {}
        self.names: list[str] = [""]
        self.sorts: list[tuple[Provider, Dialect, Operation]] = []
        self.unread = 0  # records of a vendor or an operation that this version does not know
        self._numbers: dict[str, int] = {"": 0}
        self._sorts: dict[tuple[str, str, str], int | None] = {}

    def __len__(self) -> int:
        return len(self.at)

    def number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self.names)
            self.names.append(name)
        return found

    def known(self, name: str) -> int | None:
        """The number of a name that occurs, None when it does not."""
        return self._numbers.get(name)

    def add(self, rec: UsageRecord) -> None:
        """One more record, not older than the last."""
        sort = self._sort(rec)
        if sort is None:
            self.unread += 1
            return
        if self.at and rec.at < self.at[-1]:
            return  # of a clock that was set back: its place in the order is not known
        if rec.attempts:
            met = tuple(Met(a.account, FaultKind(a.fault), a.status) for a in rec.attempts if a.fault in _KINDS)
            if met:
                self.met[len(self.at)] = met
        ending = _ending(rec)
        waited = rec.attempts[0].started_ms if rec.attempts else 0.0
        self.at.append(rec.at)
        self.seconds.append(min(LONGEST_S, max(0.0, rec.total_ms / 1000)))
        self.waited.append(waited / 1000 if waited >= WAITED_MS else 0.0)
        self.units.append(_units(rec) if ending is RecordedEnd.SERVED else nan)
        self.tokens.append(rec.usage.total if ending is RecordedEnd.SERVED else 0)
        self.prompt.append(rec.usage.prompt)
        self.spent.append(spent(rec.usage, CACHED_WEIGHT))
        self.user.append(self.number(rec.user))
        self.talk.append(self.number("\0" + rec.session) if rec.session else 0)
        self.model.append(self.number(rec.model))
        self.account.append(self.number(rec.account))
        self.sort.append(sort)
        self.ending.append(ending)

    def _sort(self, rec: UsageRecord) -> int | None:
        key = rec.provider, rec.dialect, rec.operation
        if key not in self._sorts:
            try:
                self.sorts.append((Provider(rec.provider), Dialect(rec.dialect), Operation(rec.operation)))
                self._sorts[key] = len(self.sorts) - 1
            except ValueError:
                self._sorts[key] = None
        return self._sorts[key]

    def accounts(self) -> set[str]:
        """Every account that served."""
        return {self.names[number] for number in set(self.account)} - {""}

    def use(self) -> dict[str, list[tuple[float, float, str]]]:
        """For each account (time of the end, units, model) of what it served, in the order of time."""
        found: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        names = self.names
        for n, at in enumerate(self.at):
            if self.ending[n] == RecordedEnd.SERVED and self.account[n]:
                found[names[self.account[n]]].append((at + self.seconds[n], self.units[n], names[self.model[n]]))
        for rows in found.values():
            rows.sort()
        return dict(found)

    def fill_in(self) -> None:
        """What a refused exchange would have taken: the mean of its conversation, else of its person's with the model,
        else of the model, else of all."""
        means: list[dict[tuple[int, ...], list[float]]] = [{}, {}, {}, {}]
        for n in range(len(self)):
            if self.ending[n] == RecordedEnd.SERVED:
                for table, key in zip(means, self._likes(n), strict=True):
                    row = table.setdefault(key, [0.0, 0.0, 0.0])
                    row[0] += 1
                    row[1] += self.units[n]
                    row[2] += self.tokens[n]
        for n in range(len(self)):
            if self.ending[n] != RecordedEnd.REFUSED:
                continue
            like = (table[key] for table, key in zip(means, self._likes(n), strict=True) if key in table)
            count, units, tokens = next(like, (1.0, 0.0, 0.0))
            self.units[n] = units / count
            self.tokens[n] = int(tokens / count)

    def _likes(self, n: int) -> tuple[tuple[int, ...], ...]:
        talk = (self.talk[n], self.user[n]) if self.talk[n] else (-1, n)
        return talk, (self.user[n], self.model[n]), (self.model[n],), ()


def read(records: Iterable[UsageRecord]) -> Past:
    """The past of these records, which come in the order of time."""
    past = Past()
    for rec in records:
        past.add(rec)
    past.fill_in()
    return past


def _ending(rec: UsageRecord) -> RecordedEnd:
    if rec.outcome in _SERVED and rec.account:
        return RecordedEnd.SERVED
    return RecordedEnd.REFUSED if rec.outcome in _NOBODY else RecordedEnd.APART


def _units(rec: UsageRecord) -> float:
    if rec.cost is not None and isfinite(rec.cost) and rec.cost >= 0:
        return rec.cost
    return spent(rec.usage, CACHED_WEIGHT) * FRESH_USD
