"""The one route table of the pages and their JSON API. The data plane's paths are the gateway's."""

from __future__ import annotations

from typing import Any

from tornado.routing import Rule, URLSpec
from tornado.web import Application

from pool_server.web import (
    accounts,
    admin_pages,
    analytics,
    analytics_api,
    analytics_export,
    door,
    health,
    home,
    live,
    me,
    people,
    request_log,
    setup,
    static_files,
    system,
)
from pool_server.web.base import BaseHandler
from pool_server.web.context import WebContext

ID = r"([^/]+)"

TABLE: tuple[tuple[str, type[BaseHandler]], ...] = (
    (r"/", home.Home),
    (r"/healthz", health.Healthz),
    (r"/status", health.Status),
    (r"/metrics", system.Metrics),
    (r"/setup/([A-Za-z0-9_-]+)/([a-z]+)", setup.Setup),
    # a friend's own
    (r"/api/friend/login", door.Login),
    (r"/api/friend/logout", door.Logout),
    (r"/api/me", me.Me),
    (r"/api/me/requests", me.OwnRequests),
    (r"/api/me/passphrase", me.Passphrase),
    (r"/api/keys", me.Keys),
    (rf"/api/keys/{ID}", me.OwnKey),
    (r"/api/setup-tickets", me.Tickets),
    (r"/api/live", live.Live),
    # what was used: friends see their own part of it
    (r"/analytics", analytics.AnalyticsPage),
    (r"/requests", request_log.RequestsPage),
    (rf"/requests/{ID}", request_log.RequestPage),
    (r"/api/usage/summary", analytics_api.Summary),
    (r"/api/usage/series", analytics_api.Series),
    (r"/api/usage/top", analytics_api.Top),
    (r"/api/usage/heatmap", analytics_api.HeatMap),
    (r"/api/usage/matrix", analytics_api.Matrix),
    (r"/api/usage/forecast", analytics_api.Forecast),
    (r"/api/usage/requests", request_log.Requests),
    (r"/api/usage/export", analytics_export.Export),
    # the operator's
    (r"/admin", door.Admin),
    (r"/admin/requests", request_log.AdminRequests),
    (r"/admin/reload", system.Reload),
    (r"/admin/accounts", accounts.AccountList),
    (rf"/admin/accounts/{ID}/(enable|disable|refresh|test|reset|priority|lock|unlock)", accounts.AccountAction),
    (r"/admin/pool-users", people.Users),
    (rf"/admin/pool-users/{ID}", people.User),
    (rf"/admin/pool-users/{ID}/keys", people.UserKeys),
    (rf"/admin/pool-users/{ID}/keys/{ID}", people.UserKey),
    (rf"/admin/pool-users/{ID}/(rotate|enable|disable|sign-out|forget-passphrase)", people.UserAction),
    (r"/admin/codes", people.Codes),
    (rf"/admin/codes/{ID}", people.Code),
    (r"/admin/audit", people.Audit),
    (r"/accounts", admin_pages.AccountsPage),
    (r"/people", admin_pages.PeoplePage),
    (rf"/people/{ID}", admin_pages.PersonPage),
    (r"/audit", admin_pages.AuditPage),
    (r"/settings", admin_pages.SettingsPage),
    (r"/favicon\.ico", static_files.Icon),
    (r"/static/([0-9a-f]+)/([a-z0-9_./-]+)", static_files.StaticFile),
    (r".*", static_files.NotFound),
)


def rules(ctx: WebContext) -> list[Rule]:
    """The table as Tornado rules. The last one answers every other path with a 404."""
    return [URLSpec(pattern, handler, {"ctx": ctx}) for pattern, handler in TABLE]


def application(ctx: WebContext) -> Application:
    """The pages as a Tornado application: compressed, quiet about itself, no access log of its own."""
    settings: dict[str, Any] = {"compress_response": True, "log_function": lambda handler: None}
    return Application(rules(ctx), **settings)
