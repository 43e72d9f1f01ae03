"""Is it up, and how much room is left: `/healthz` for machines, `/status` for everyone the pool knows."""

from __future__ import annotations

from typing import Any

from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import Access, BaseHandler
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import headroom


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
    return "ok" if ctx.ledger.healthy else "store_failed"


def status(ctx: WebContext) -> dict[str, Any]:
    """The JSON of `/status`: `providers` as the accounts' room sums them up, and whether the pool takes work."""
    total, ready = ctx.accounts.ready()
    return {
        "status": _word(ctx),
        "version": ctx.version,
        "accounts": {"total": total, "ready": ready},
        "providers": ctx.accounts.summary(),
    }
