"""What is asked of a past: "+1 claude max", "-user Ada", "strategy round_robin", "limits tokens_day=1000000"; several
changes at once with commas between them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import msgspec

from pool_server.core.enums import CredentialKind, Provider
from pool_server.providers import Credential
from pool_server.simulation.replay.allowance import NAMES
from pool_server.simulation.replay.holdings import Holding, fresh_windows
from pool_server.simulation.strategies import strategies

MOST_ADDED = 100
_ADD = re.compile(r"\+\s*(\d+)?\s*([a-z0-9]+)(?:\s+(\S+))?")
_WITHOUT = re.compile(r"-\s*(user|account)\s+(.+)")
_STRATEGY = re.compile(r"strategy\s+(\S+)")
_LIMITS = re.compile(r"limits\s+(.+)")
FORMS = (
    '"+1 claude max", "-user NAME", "-account ID", "strategy NAME", "limits tokens_day=1000000", '
    '"limits cost_week=20 user NAME"'
)


class WhatIfError(ValueError):
    """A what-if that cannot be read, or is about something the past does not know: one line."""


class WhatIf(msgspec.Struct):
    """One changed past. `users` and `accounts` are left out, `added` are new; `limited` is the user id
    the limits concern, None = everybody."""

    text: str
    users: set[str] = msgspec.field(default_factory=set)
    accounts: set[str] = msgspec.field(default_factory=set)
    added: list[Holding] = []
    strategy: str = ""
    limits: dict[str, float] = {}
    limited: str | None = None


def parse(text: str, holdings: Sequence[Holding], people: Mapping[str, str], frm: float) -> WhatIf:
    """Read one what-if; `people` maps names and ids to user ids, `frm` is when the past begins. Raises WhatIfError."""
    asked = WhatIf(text.strip(), added=[], limits={})
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise WhatIfError(f"a what-if is {FORMS}")
    for part in parts:
        if found := _ADD.fullmatch(part):
            asked.added += _added(found, holdings, frm, len(asked.added))
        elif found := _WITHOUT.fullmatch(part):
            _leave_out(asked, found[1], found[2].strip(), holdings, people)
        elif found := _STRATEGY.fullmatch(part):
            if found[1] not in strategies():
                raise WhatIfError(f"{found[1]!r} is none of {', '.join(strategies())}")
            asked.strategy = found[1]
        elif found := _LIMITS.fullmatch(part):
            _limit(asked, found[1], people)
        else:
            raise WhatIfError(f"{part!r}: a what-if is {FORMS}")
    return asked


def _leave_out(asked: WhatIf, kind: str, name: str, holdings: Sequence[Holding], people: Mapping[str, str]) -> None:
    if kind == "user":
        asked.users.add(_user(name, people))
    elif name in {one.id for one in holdings}:
        asked.accounts.add(name)
    else:
        raise WhatIfError(f"no account was called {name!r}; there were {_listed(one.id for one in holdings)}")


def _user(name: str, people: Mapping[str, str]) -> str:
    try:
        return people[name]
    except KeyError:
        raise WhatIfError(f"there is no user {name!r}; there are {_listed(people)}") from None


def _limit(asked: WhatIf, text: str, people: Mapping[str, str]) -> None:
    pairs, _, whom = text.partition(" user ")
    if whom:
        asked.limited = _user(whom.strip(), people)
    for pair in pairs.split():
        name, equals, amount = pair.partition("=")
        if not equals or name not in NAMES:
            raise WhatIfError(f"{pair!r}: a limit is NAME=NUMBER with one of {', '.join(NAMES)}")
        try:
            number = float(amount)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise WhatIfError(f"{pair!r}: {amount!r} is no amount")
        asked.limits[name] = number


def _added(found: re.Match[str], holdings: Sequence[Holding], frm: float, n: int) -> list[Holding]:
    """So many accounts like those of the plan; their weeks begin spread over the first."""
    count, vendor, plan = int(found[1] or 1), found[2], (found[3] or "").lower()
    if not 1 <= count <= MOST_ADDED:
        raise WhatIfError(f"1 to {MOST_ADDED} accounts can be added")
    try:
        provider = Provider(vendor)
    except ValueError:
        raise WhatIfError(f"{vendor!r} is no vendor: {', '.join(one.value for one in Provider)}") from None
    like = _like(provider, plan, holdings)
    added = []
    for number in range(n, n + count):
        share = (number - n + 1) / (count + 1)
        windows = fresh_windows(like, frm, share)
        cred = Credential(provider, f"{vendor}:added-{number + 1}", CredentialKind.OAUTH, plan=like.plan)
        added.append(Holding(cred, type(like.options)(), windows, like.paid))
    return added


def _like(provider: Provider, plan: str, holdings: Sequence[Holding]) -> Holding:
    """An account of this plan whose windows are known."""
    own = [one for one in holdings if one.credential.provider is provider and (one.windows or one.paid)]
    if not own:
        raise WhatIfError(f"nothing is known of what an account of {provider.value} holds: there was none")
    plans: dict[str, Holding] = {}
    for one in own:
        names = (one.plan.lower(), one.credential.plan.lower()) if not one.paid else ("key",)
        for name in names:
            known = plans.get(name)
            if known is None or _sureness(one) > _sureness(known):
                plans[name] = one
    if plan in plans:
        return plans[plan]
    fitting = {name: one for name, one in plans.items() if plan and (name.startswith(plan) or plan in name)}
    if not plan and len(set(map(id, plans.values()))) == 1:
        return own[0]
    if len({one.plan for one in fitting.values()}) == 1:
        return next(iter(fitting.values()))
    which = f"which of {provider.value}'s plans" if len(fitting) > 1 or not plan else f"no plan {plan!r}"
    raise WhatIfError(f"{which}: known are {_listed(name for name in plans if name)}")


def _sureness(one: Holding) -> int:
    return sum(window.worth.turns + 1 for window in one.windows if window.worth is not None)


def _listed(names: object) -> str:
    some = sorted(set(names))  # type: ignore[call-overload]
    return ", ".join(some[:20]) + (f" and {len(some) - 20} more" if len(some) > 20 else "") or "none"
