"""What a sum of prices leaves out or rests on, in words: the same on every page that shows one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.ledger import OLD_AFTER_DAYS, Prices, UsageSums
from pool_server.texts import format

NAMED = 8  # models named; the rest is a number


class MissingPrice(NamedTuple):
    """A model without a known price, how many requests went to it, and the lines of config.toml that give it one."""

    model: str
    requests: int
    lines: str


class PriceBasis(NamedTuple):
    """What of a sum rests on estimates and on prices not confirmed, and what moves between accounts cost; the names are
    those of `UsageSums`."""

    estimated: int
    estimated_cost_usd: float
    assumed: int
    assumed_cost_usd: float
    moves: int = 0
    move_cost_usd: float = 0.0
    moves_unpriced: int = 0

    @classmethod
    def of(cls, sums: UsageSums) -> PriceBasis:
        return cls(*(getattr(sums, name) for name in cls._fields))


class PriceNotes(NamedTuple):
    """`missing` are models without a price, the most used first, `more` how many further ones there are; `sentences`
    say what is estimated, assumed or old."""

    missing: tuple[MissingPrice, ...]
    more: int
    sentences: tuple[str, ...]

    @property
    def heading(self) -> str:
        """Names of models without a price, as one sentence."""
        names = format.listed(format.isolated(one.model) for one in self.missing)
        rest = _(" and {more} more", more=self.more) if self.more else ""
        return _(
            "No price is known for {names}{rest}, or for how it was served; such requests are not in the sum.",
            names=names,
            rest=rest,
        )


def notes(total: PriceBasis, models: Mapping[str, UsageSums], prices: Prices, now: float) -> PriceNotes:
    """`now` is unix seconds."""
    ranked = sorted(models.items(), key=lambda item: (-item[1].unpriced, item[0]))
    missing = [MissingPrice(name, sums.unpriced, _lines(name)) for name, sums in ranked if name and sums.unpriced]
    sentences = []
    if total.estimated:
        worth = (
            _(" ({estimated_cost_usd} of the price)", estimated_cost_usd=format.money(total.estimated_cost_usd))
            if total.estimated_cost_usd
            else ""
        )
        sentences.append(
            _(
                "The tokens of {requests}{worth} are estimated: no usage was told.",
                requests=format.requests(total.estimated),
                worth=worth,
            )
        )
    if total.assumed:
        worth = format.money(total.assumed_cost_usd)
        sentences.append(
            _(
                "{worth} of the price, of {requests}, rests on prices not confirmed.",
                worth=worth,
                requests=format.requests(total.assumed),
            )
        )
    if total.moves:
        sentences.append(_moved(total))
    if (age := prices.age_days(now)) > OLD_AFTER_DAYS:
        written = date.fromisoformat(prices.date)
        day = format.written(written)
        sentences.append(
            _("The price table is of {day}, {age} old: prices may have changed.", day=day, age=format.days(age))
        )
    return PriceNotes(tuple(missing[:NAMED]), max(0, len(missing) - NAMED), tuple(sentences))


def _moved(total: PriceBasis) -> str:
    """What changes of account cost, as far as it is known."""
    moves, unpriced = total.moves, total.moves_unpriced
    times = ngettext(
        "Conversations changed their account {n} time",
        "Conversations changed their account {n} times",
        moves,
        n=format.count(moves),
    )
    if unpriced == moves:
        return _("{times}; what they read again is not known.", times=times)
    rest = _(", {unpriced} of unknown price left out", unpriced=format.count(unpriced)) if unpriced else ""
    return _(
        "{times}: reading again what the one before had cached cost {move_cost_usd}{rest}.",
        times=times,
        move_cost_usd=format.money(total.move_cost_usd),
        rest=rest,
    )


def _lines(model: str) -> str:
    name = json.dumps(model, ensure_ascii=False)
    fill_in = "# put the vendor's price here: US dollars a million tokens"
    return f"[prices.{name}]\ninput = 1.25    {fill_in}\noutput = 10.0   # and here"
