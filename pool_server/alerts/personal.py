"""What one person is told of their own limits: nearly used, used up, back again; each once, where they want it.

Pure but for the sending and for the note of what was told, which outlives a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import msgspec

from pool_server import language
from pool_server.alerts import destinations, notify
from pool_server.alerts.destinations import TargetKind
from pool_server.core.enums import NoticeWhen
from pool_server.core.models import HttpRequest, Send
from pool_server.core.origins import PUBLIC_ONLY, origins
from pool_server.core.settings import COUNTED_LIMITS, Alerts
from pool_server.core.tasks import PeriodicTasks
from pool_server.language import gettext as _
from pool_server.language import marked
from pool_server.ledger.service import Ledger
from pool_server.storage import StoreError
from pool_server.texts import format, languages
from pool_server.users import SERVER, LimitStanding, RefusedError, Users
from pool_server.users.consents import Notice

log = logging.getLogger(__name__)

EVERY_S = 60.0
NEARLY, FULL = 80, 100  # percent
CALMED = {NEARLY: 75.0, FULL: 95.0}  # percent under which a level is left again: a rolling limit goes back and forth
TIMEOUT_S = 10.0
SUBJECT = marked("Your limits on {pool}")
_WATCHED = tuple(limit for limit in COUNTED_LIMITS if limit.name.startswith(("tokens_", "cost_")))
_BY_NAME = {limit.name: limit for limit in _WATCHED}
_PLACE = b"personal"
_decode = msgspec.json.Decoder(dict[str, int]).decode


class NoticeKind(StrEnum):
    NEARLY = "nearly"
    USED_UP = "used_up"
    BACK = "back"


class PersonalEvent(NamedTuple):
    """One thing to tell a person of one of their limits; `percent` of it is used, some of it is back at `frees`."""

    kind: NoticeKind
    limit: str
    percent: float
    frees: float | None = None


def step(told: Mapping[str, int], standing: LimitStanding) -> tuple[dict[str, int], list[PersonalEvent]]:
    """What was told of each limit after a look at how they stand, and what is to be told. `told`: limit → level."""
    after: dict[str, int] = {}
    events = []
    for limit in _WATCHED:
        cap = getattr(standing.limits, limit.name)
        if cap is None:
            continue
        used = standing.used.get(limit.name) or 0
        percent = 100.0 * used / cap if cap else 100.0
        level, before = FULL if percent >= FULL else NEARLY if percent >= NEARLY else 0, told.get(limit.name, 0)
        if level < before and percent >= CALMED[before]:
            level = before
        frees = standing.frees.get(limit.name)
        if level > before:
            kind = NoticeKind.USED_UP if level == FULL else NoticeKind.NEARLY
            events.append(PersonalEvent(kind, limit.name, percent, frees))
        elif before == FULL and level < FULL:
            events.append(PersonalEvent(NoticeKind.BACK, limit.name, percent))
        if level:
            after[limit.name] = level
    return after, events


def wanted(events: Iterable[PersonalEvent], when: NoticeWhen) -> list[PersonalEvent]:
    return [one for one in events if when is NoticeWhen.ALL or one.kind is not NoticeKind.NEARLY]


def text(events: Iterable[PersonalEvent], now: float) -> str:
    """A line an event, in the language of this task."""
    return "\n".join(_line(one, now) for one in events)


def _line(event: PersonalEvent, now: float) -> str:
    limit = _BY_NAME[event.limit]
    yours = _(limit.yours)
    if event.kind is NoticeKind.BACK:
        return _("{yours} available again.", yours=yours)
    if event.kind is NoticeKind.USED_UP:
        said = _("{yours} used up.", yours=yours)
    else:
        said = _("{yours} {percent} used.", yours=yours, percent=format.percent(event.percent))
    if event.frees and event.frees > now:
        said += " " + _("{returns} {within}.", returns=_(limit.returns), within=format.within(event.frees, now))
    return said


async def deliver(notice: Notice, subject: str, body: str, settings: Alerts, send: Send) -> bool:
    """One message to one person. True when it was taken. Its address is in no log."""
    match destinations.kind(notice.target):
        case TargetKind.MAIL if settings.smtp_host:
            return await asyncio.to_thread(notify.send_mail, [notice.target], subject, body, settings)
        case TargetKind.CHAT:
            return await asyncio.to_thread(notify.send_chat, [notice.target], subject, body)
        case TargetKind.HTTPS:
            headers = (("Content-Type", "text/plain; charset=utf-8"), ("User-Agent", "pool-server"))
            reach = frozenset(origins(notice.target)) | {PUBLIC_ONLY}
            answer = await send(
                HttpRequest(
                    "POST", notice.target, headers, f"{subject}\n\n{body}".encode(), timeout_s=TIMEOUT_S, egress=reach
                )
            )
            return 200 <= answer.status < 300
    return False


class PersonalAlerts:
    """Looks at the limits of everybody who wants to hear of them, in one process of the server."""

    def __init__(
        self,
        ledger: Ledger,
        users: Users,
        send: Send,
        pool: str,
        *,
        clock: Callable[[], float],
        mine: Callable[[], bool] = lambda: True,
    ) -> None:
        """`mine` as of `AlertMonitor`."""
        self._mine = mine
        self._ledger, self._users, self._send, self._pool, self._clock = ledger, users, send, pool, clock
        self._waits: dict[str, tuple[int, float]] = {}  # person → failed tries in a row, when the next one may be
        self._tasks = PeriodicTasks()
        self._tasks.every(EVERY_S, self.look, "telling people of their limits")

    async def start(self) -> None:
        self._tasks.start()

    async def close(self) -> None:
        await self._tasks.close()

    async def look(self) -> int:
        """One look at everybody; returns how many were told something. What could not be delivered is tried again,
        ever less often, until it is no longer true."""
        if not self._mine():
            return 0
        before, delivered = await asyncio.to_thread(self._told), 0
        everybody = await asyncio.to_thread(self._users.notices.everybody)
        await self._users.limits.fetch(everybody)
        after: dict[str, int] = {}
        for user, notice in everybody.items():
            told = {key.partition("/")[2]: level for key, level in before.items() if key.startswith(f"{user}/")}
            if self._left(user):
                await self._users.notices.change(user, None, actor=SERVER)  # nobody's address stays behind them
                continue
            now_told, events = step(told, self._users.limits.standing(user))
            events = wanted(events, notice.when)
            if events and not await self._try(user, notice, events):
                now_told = told
            elif events:
                delivered += 1
            after |= {f"{user}/{limit}": level for limit, level in now_told.items()}
        if after != before:
            await self._ledger.notes.put(_PLACE, msgspec.json.encode(after))
        return delivered

    async def _try(self, user: str, notice: Notice, events: list[PersonalEvent]) -> bool:
        tries, at = self._waits.get(user, (0, 0.0))
        if self._clock() < at:
            return False
        if await self._tell(notice, events):
            self._waits.pop(user, None)
            return True
        self._waits[user] = tries + 1, self._clock() + EVERY_S * min(2**tries, 60)
        return False

    async def _tell(self, notice: Notice, events: list[PersonalEvent]) -> bool:
        spoken = notice.language if notice.language in languages.NAMES else languages.ENGLISH
        language.speak(partial(languages.look_up, spoken))
        try:
            subject, body = _(SUBJECT, pool=self._pool), text(events, self._clock())
        finally:
            language.speak(None)
        taken = await deliver(notice, subject, body, self._ledger.settings.alerts, self._send)
        if not taken:
            log.warning("a person could not be told of their limits (%s)", destinations.kind(notice.target))
        return taken

    def _left(self, user: str) -> bool:
        try:
            return bool(self._users.people.get(user)["state"] == "deleted")
        except RefusedError as refused:
            return refused.denied.status == 404

    def _told(self) -> dict[str, int]:
        try:
            raw = self._ledger.notes.get(_PLACE)
            return {} if raw is None else _decode(raw)
        except (StoreError, msgspec.MsgspecError):
            return {}
