"""Is it up, and how much is left: `/healthz` for machines, `/status` for all the pool knows, a line for status bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pool_server.accounts.describe import ProviderStatus
from pool_server.core.enums import Dialect, Provider
from pool_server.language import gettext as _
from pool_server.texts import format, labels
from pool_server.web.api_shapes import ReadyCount, StatusAnswer
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, BaseHandler, ProblemError
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import headroom, limits
from pool_server.web.base.shared.limits import LimitRow

AWAY_S = 5.0  # without its database, after which a node asks for no more than it must have
TOLD = 50.0  # percent of a limit of one's own from which it is part of the line


class Healthz(BaseHandler, access=Access.OPEN):
    """200 while the pool takes work; 503 when its books cannot be written or are gone, or it is leaving."""

    def get(self) -> None:
        ctx = self.ctx
        total, ready = ctx.accounts.ready()
        status = _word(ctx)
        body: dict[str, Any] = {
            "status": status,
            "version": ctx.version,
            "uptime_s": round(ctx.clock() - ctx.started_at, 1),
            "accounts": {"total": total, "ready": ready},
        }
        if ctx.store is not None:
            body["store"] = ctx.store()[0]
        if not ctx.ledger.healthy:
            body["records"] = {"waiting": ctx.ledger.waiting, "in_memory_only": ctx.ledger.unlogged}
        if unwritable := ctx.accounts.unwritable():
            body["warnings"] = [f"{ctx.settings.pool_dir}/ {unwritable}"]
        self.answer(body, 200 if status == "ok" else 503)


class Readyz(BaseHandler, access=Access.OPEN):
    """200 while a request would be served: the pool takes work and an account is ready; else 503 and why."""

    def get(self) -> None:
        total, ready = self.ctx.accounts.ready()
        status = _word(self.ctx)
        if status == "ok" and not ready:
            status = "no_account_ready" if total else "no_accounts"
        if status == "ok" and self.ctx.store is not None and self.ctx.store()[1] >= AWAY_S:
            status = "store_away"
        self.answer({"status": status, "accounts": {"total": total, "ready": ready}}, 200 if status == "ok" else 503)


class Status(PageHandler, access=Access.KEY):
    """Room for each provider. No account is named: what friends see is the pool, not whose account it is."""

    def get(self) -> None:
        accept = self.request.headers.get("Accept", "")
        if "application/json" in accept or not self.wants_page:
            self.answer(status(self.ctx))
            return
        self.page("status.html", title="Status", providers=headroom.provider_rows(self.ctx))


def _word(ctx: WebContext) -> str:
    if ctx.draining:
        return "draining"
    if ctx.data_lost:
        return "data_folder_lost"
    if ctx.ledger.healthy or (ctx.store is not None and not ctx.ledger.unlogged):
        return "ok"  # while the database is away a node's records are safe in its own log
    return "store_failed"


def status(ctx: WebContext) -> StatusAnswer:
    """The JSON of `/status`: `providers` as the accounts' room sums them up, and whether the pool takes work."""
    total, ready = ctx.accounts.ready()
    return StatusAnswer(_word(ctx), ctx.version, ReadyCount(total, ready), ctx.accounts.summary())


def line(providers: Sequence[ProviderStatus], own: Sequence[LimitRow], now: float) -> str:
    """The rows of `Accounts.summary()` that have accounts, and one's own limits: "Claude 62 % left, resets in 53 min ·
    Codex used up, back in 2 h · your tokens for today 82 % used, reset in 8 h"."""
    said = [_provider(row, now) for row in providers if row.total] or ["no accounts"]
    most = max(own, key=lambda row: row.percent, default=None)
    if most is not None and most.percent >= TOLD:
        name = most.yours.rpartition(" ")[0]
        back = f", {most.returns.partition(' ')[2]} {format.within(most.frees, now)}" if most.frees else ""
        used = "used up" if most.used_up else f"{format.percent(most.percent)} used"
        said.append(f"{name[:1].lower()}{name[1:]} {used}{back}")
    return " · ".join(said)


def _provider(row: ProviderStatus, now: float) -> str:
    name = labels.PROVIDERS[row.provider]
    if not row.ready:
        back = row.next_return
        return f"{name} used up, back {format.within(back, now)}" if back else f"{name} needs the operator"
    left = row.room_percent
    if left is None:
        return f"{name} ready"
    resets = [at for window in row.windows if (at := window.resets_at) and at > now]
    return f"{name} {format.percent(left)} left" + (f", resets {format.within(min(resets), now)}" if resets else "")


class StatusLine(BaseHandler, access=Access.KEY):
    """`GET /api/statusline?provider=`: one line for a status bar, or as JSON `{"line","providers","limits"}`."""

    def get(self) -> None:
        ctx, now = self.ctx, self.ctx.clock()
        wanted = self.get_query_argument("provider", "")
        if wanted not in ("", *Provider):
            raise ProblemError(400, "bad_request", _("there is no provider {name}", name=repr(wanted[:40])))
        providers = [row for row in ctx.accounts.summary() if wanted in ("", row.provider)]
        own = limits.of_caller(ctx, self.principal)
        told = line(providers, own, now)
        if "application/json" in self.request.headers.get("Accept", ""):
            limited = [{"label": row.label, "percent": row.percent, "resets_at": row.frees} for row in own]
            self.answer({"line": told, "providers": providers, "limits": limited})
            return
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(told + "\n")


class UsableNow(BaseHandler, access=Access.KEY):
    """`GET /api/usable?dialect=chat`: the model that its caller can be told to ask for now, as set-up lines name it,
    `{"model","served","returns_at"}`."""

    async def get(self) -> None:
        wanted = self.get_query_argument("dialect", "chat")
        if wanted not in tuple(Dialect):
            raise ProblemError(400, "bad_request", _("there is no dialect {name}", name=repr(wanted[:40])))
        found = await self.ctx.usable(self.principal, Dialect(wanted))
        self.answer({"model": found.model, "served": found.served, "returns_at": found.back})
