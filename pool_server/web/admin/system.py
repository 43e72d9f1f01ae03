"""The server itself: reread what is on disk, the counters for Prometheus, the newest lines of the log, what is new."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlencode

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from pool_server.core.enums import AccountState, TokenScope
from pool_server.language import gettext as _
from pool_server.language import marked
from pool_server.texts.changelog import releases, since
from pool_server.web.base import recent_log
from pool_server.web.base.assets.paths import changelog
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.recent_log import Level, LogFilter, LogLine
from pool_server.web.base.shared import query_params as asking

SHOWN = 100
LEVEL_LABELS: dict[Level, str] = {
    "DEBUG": marked("Everything"),
    "INFO": marked("Information and above"),
    "WARNING": marked("Warnings and errors"),
    "ERROR": marked("Errors"),
}
TONES = {"WARNING": "warn", "ERROR": "bad", "CRITICAL": "bad"}


class Reload(PageHandler, access=Access.ADMIN):
    """`POST /admin/reload` → what was added, changed, removed and rejected, and why."""

    async def post(self) -> None:
        report = await self.ctx.reload()
        counts = {name: len(value) for name, value in report.items() if isinstance(value, list) and value}
        await self.ctx.users.audit(self.actor, "pool.reload", detail=counts)
        self.answer(report)


class WhatsNewPage(PageHandler, access=Access.ADMIN):
    """`/whats-new`: what changed since the version that this browser saw before; from now on it has seen this one."""

    async def get(self) -> None:
        path = changelog()
        text = await asyncio.to_thread(path.read_text, "utf-8") if path is not None else ""
        before = asking.text(self, "since") or self.seen_version
        found = since(releases(text), before)
        self.note_version()
        kinds: Counter[str] = Counter()
        for one in found:
            kinds.update({part.name: len(part.entries) for part in one.parts})
        kind = asking.word(self, "kind", tuple(kinds), next(iter(kinds), ""))
        self.page(
            "whats_new.html",
            title="What is new",
            found=found,
            kinds=kinds,
            kind=kind,
            since=before,
            version=self.ctx.version,
        )


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """`scopes` as a list, or as text with blanks between; `expires_in` seconds from now, None = never."""

    label: str
    scopes: list[str] | str
    expires_in: float | None = None


class Tokens(PageHandler, access=Access.ADMIN):
    """Admin tokens: `GET`, and `POST {"label","scopes","expires_in"?}` → the token, shown once."""

    def get(self) -> None:
        self.answer({"tokens": self.ctx.users.admin_tokens.rows()})

    async def post(self) -> None:
        asked = self.body_as(NewToken)
        expires = None if asked.expires_in is None else self.ctx.clock() + asked.expires_in
        scopes = asked.scopes.split() if isinstance(asked.scopes, str) else asked.scopes
        made = await self.ctx.users.admin_tokens.create(
            actor=self.actor, label=asked.label, scopes=scopes, expires=expires
        )
        self.answer(made, 201)


class OneToken(PageHandler, access=Access.ADMIN):
    """`DELETE`: the token opens nothing any more."""

    async def delete(self, token: str) -> None:
        await self.ctx.users.admin_tokens.revoke(token, actor=self.actor)
        self.answer({"revoked": token})


class ApiDocument(PageHandler, access=Access.ADMIN):
    """The description of the API, as JSON."""

    def initialize(
        self, ctx: WebContext, scopes: Mapping[str, TokenScope | None] | None = None, *, described: Any = None
    ) -> None:
        super().initialize(ctx, scopes)
        self._described = described

    def get(self) -> None:
        self.answer(self._described())


class Metrics(PageHandler, access=Access.ADMIN):
    """`GET /metrics`: the data plane's counters, and the accounts as they are at this moment."""

    def get(self) -> None:
        body = generate_latest(counters()) + generate_latest(Snapshot(self.ctx))
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(body)


def counters() -> CollectorRegistry:
    """The counters of the whole server: with several workers the sum over them, those that ended included."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


class Snapshot:
    """Gauges read when they are asked for. Every label value comes from an enum."""

    def __init__(self, ctx: WebContext) -> None:
        self.ctx = ctx

    def collect(self) -> Iterator[Metric]:
        by_provider = {row.provider: row for row in self.ctx.accounts.summary()}
        accounts = GaugeMetricFamily("pool_accounts", "Accounts by state", labels=["provider", "state"])
        room = GaugeMetricFamily("pool_room_percent", "Headroom left, where it is known", labels=["provider"])
        in_flight = GaugeMetricFamily("pool_account_exchanges", "Exchanges in flight", labels=["provider"])
        unreachable = GaugeMetricFamily("pool_accounts_unreachable", "Accounts of silent hosts", labels=["provider"])
        returning = GaugeMetricFamily("pool_accounts_returning", "Accounts in slow start", labels=["provider"])
        for provider in self.ctx.accounts.offered():
            row = by_provider.get(provider)
            for state in AccountState:
                accounts.add_metric([provider, state], row.accounts.get(state, 0) if row else 0)
            in_flight.add_metric([provider], row.in_flight if row else 0)
            unreachable.add_metric([provider], row.unreachable if row else 0)
            returning.add_metric([provider], row.returning if row else 0)
            if row is not None and row.room_percent is not None:
                room.add_metric([provider], row.room_percent)
        up = GaugeMetricFamily("pool_uptime_seconds", "Time since the server started")
        up.add_metric([], self.ctx.clock() - self.ctx.started_at)
        healthy = GaugeMetricFamily("pool_books_writable", "1 while usage can be recorded")
        healthy.add_metric([], float(self.ctx.ledger.healthy))
        waiting = GaugeMetricFamily("pool_records_waiting", "Usage records the store has no room for", labels=["where"])
        waiting.add_metric(["log"], self.ctx.ledger.waiting - self.ctx.ledger.unlogged)
        waiting.add_metric(["memory"], self.ctx.ledger.unlogged)
        yield from (accounts, room, in_flight, unreachable, returning, up, healthy, waiting)


class ServerLogHandler(PageHandler, abstract=True):
    """`?level=&q=&request=&before=`."""

    async def lines(self, most: int) -> tuple[LogFilter, list[LogLine], str]:
        """What was asked for, the newest lines that pass and the next cursor, read beside the event loop."""
        wanted = LogFilter(
            asking.word(self, "level", get_args(Level), "DEBUG"), asking.text(self, "q"), asking.text(self, "request")
        )
        folder, before = Path(self.ctx.settings.data_dir), asking.text(self, "before")
        try:
            return wanted, *await asyncio.to_thread(recent_log.newest, folder, wanted, most, before)
        except ValueError as wrong:
            raise ProblemError(400, "bad_request", str(wrong)) from None


class ServerLog(ServerLogHandler, access=Access.ADMIN):
    """`GET /admin/log?level=&q=&request=&before=&limit=` → `{"lines","next"}`, newest first; `next` is the next page's
    `before`."""

    async def get(self) -> None:
        try:
            limit = max(1, min(recent_log.MOST_LINES, int(self.get_query_argument("limit", str(SHOWN)))))
        except ValueError:
            raise ProblemError(400, "bad_request", _("{name} must be a whole number", name="limit")) from None
        _state, lines, following = await self.lines(limit)
        self.answer({"lines": [msgspec.structs.asdict(line) for line in lines], "next": following or None})


class ServerLogPage(ServerLogHandler, access=Access.ADMIN):
    """The same as a page that follows what is written."""

    async def get(self) -> None:
        wanted, lines, following = await self.lines(SHOWN)
        asked = {"level": wanted.level, "q": wanted.text, "request": wanted.request}
        filters = {name: value for name, value in asked.items() if value and value != "DEBUG"}
        older = urlencode({**filters, "before": following}) if following else ""
        paged = bool(asking.text(self, "before"))
        self.page(
            "log.html",
            title="Log",
            rows=[(datetime.fromisoformat(line.time).timestamp(), TONES.get(line.level, ""), line) for line in lines],
            wanted=wanted,
            filters=filters,
            newest=f"/log?{urlencode(filters)}" if paged else "",
            levels=[(value, _(label)) for value, label in LEVEL_LABELS.items()],
            older=older,
        )
