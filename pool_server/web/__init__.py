"""Pages, JSON API and set-up scripts: one route table over the rooms below, loaded when the first page is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pool_server.web.base.context import WebContext

if TYPE_CHECKING:
    from tornado.web import Application

__all__ = ["WebContext", "application"]


def application(ctx: WebContext) -> Application:
    """All pages as a Tornado application."""
    from pool_server.web import routes

    return routes.application(ctx)
