"""What is asked for of a key, by whoever holds it or by the operator: its name, until when it is good, its limits,
how long its requests are held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pool_server.core.settings import COUNTED_LIMITS, CountedLimit
from pool_server.language import gettext as _
from pool_server.language import ngettext
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import BaseHandler, ProblemError
from pool_server.web.base.shared import limits

HOURS = (1, 2, 4, 8, 12, 24)  # waits that a page offers …
MORNINGS = (5, 6, 7, 8)  # … and the ends it offers
MOST_S = 10 * 365 * 86_400.0
Span = Annotated[float, Meta(gt=0, le=MOST_S)]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """`expires` in unix seconds, None = never; `expires_in` says it in seconds from now. `limits` are its own."""

    label: str = ""
    expires: float | None = None
    expires_in: Span | None = None
    limits: dict[str, Any] = {}


class KeyChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is not named stays. `limits` are all of the key's own; `expires` and `expires_in` None = never. `wait`: how
    long its requests are held until headroom returns, as `X-Pool-Wait` says it; "" = not at all."""

    label: str | UnsetType = UNSET
    expires: float | UnsetType | None = UNSET
    expires_in: Span | UnsetType | None = UNSET
    limits: dict[str, Any] | UnsetType = UNSET
    wait: str | UnsetType = UNSET


async def create(handler: BaseHandler, user: str) -> None:
    """Answers with a new key of this user, shown once."""
    asked = handler.body_as(NewKey)
    expires = handler.ctx.clock() + asked.expires_in if asked.expires_in is not None else asked.expires
    people = handler.ctx.users.people
    made = await people.create_key(user, asked.label, actor=handler.actor, expires=expires, limits=asked.limits)
    handler.answer(made)


async def change(handler: BaseHandler, user: str, key: str) -> None:
    """Changes a key of this user and answers with its row. From here on its counters are kept."""
    asked = handler.body_as(KeyChange)
    patch = {name: value for name, value in msgspec.structs.asdict(asked).items() if value is not UNSET}
    if "expires_in" in patch:
        span = patch.pop("expires_in")
        patch["expires"] = None if span is None else handler.ctx.clock() + span
    await handler.ctx.users.people.patch_key(user, key, patch, actor=handler.actor)
    handler.answer(row(handler.ctx, user, key))


def row(ctx: WebContext, user: str, key: str) -> dict[str, Any]:
    """One key of this user, with how its limits stand. ProblemError 404 also for somebody else's."""
    found = next((one for one in ctx.users.keys(user) if one["id"] == key), None)
    if found is None:
        raise ProblemError(404, "not_found", _("there is no such key"))
    return found


class KeyValues(NamedTuple):
    """What the page of a key shows: the key, its own limits by name, all that there are, and the waits to choose from
    with their words."""

    key: limits.KeyUse
    own: Mapping[str, float | None]
    counted: tuple[CountedLimit, ...]
    waits: list[tuple[str, str]]


async def page_values(ctx: WebContext, user: str, key: str) -> KeyValues:
    """ProblemError 404 also for somebody else's key."""
    found = next((one for one in await limits.keys(ctx, user) if one.id == key), None)
    if found is None:
        raise ProblemError(404, "not_found", _("there is no such key"))
    own = msgspec.structs.asdict(found.own) if found.own is not None else {}
    return KeyValues(found, own, COUNTED_LIMITS, _waits(ctx, found.wait))


def _waits(ctx: WebContext, now: str) -> list[tuple[str, str]]:
    """What a key can be set to, with its words; nothing where the operator holds nobody."""
    longest = ctx.settings.night_shift.longest_h
    if not longest:
        return []
    spans = [(f"for={hours}h", ngettext("up to an hour", "up to {n} hours", hours)) for hours in HOURS]
    offered = [pair for hours, pair in zip(HOURS, spans, strict=True) if hours <= longest]
    clocks = [(f"until={hour:02}:00", _("until {time}", time=f"{hour:02}:00")) for hour in MORNINGS]
    rows = [("", _("no: the answer is an error at once")), *offered, *clocks]
    return rows if now in dict(rows) else [*rows, (now, now)]
