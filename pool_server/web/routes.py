"""The one route table of the pages and their JSON API. The data plane's paths are the gateway's."""

from __future__ import annotations

from typing import Any

from tornado.routing import Rule, URLSpec
from tornado.web import Application

from pool_server.core.enums import TokenScope
from pool_server.ledger import WeekHours
from pool_server.web import api_shapes as shapes
from pool_server.web import status
from pool_server.web import usage_shapes as usage
from pool_server.web.admin import (
    account_changes,
    accounts,
    admin_pages,
    models_page,
    people,
    settings_page,
    spend,
    system,
)
from pool_server.web.base import live, page
from pool_server.web.base.assets import static_files
from pool_server.web.base.context import WebContext
from pool_server.web.base.handler import VERBS, BaseHandler
from pool_server.web.base.shared import key_changes
from pool_server.web.dashboard import bill, dashboard_page, usage_api
from pool_server.web.home import booking_pages, home_page, own_account, setup_script, sign_in
from pool_server.web.onboarding import snippets
from pool_server.web.openapi import BASE, ApiOperation, document
from pool_server.web.request_log import conversations, log_pages
from pool_server.web.sign_ins import contributing, sign_in_api

ID = r"([^/]+)"

TABLE: tuple[tuple[str, type[BaseHandler]], ...] = (
    (r"/", home_page.Home),
    (r"/healthz", status.Healthz),
    (r"/health", status.Healthz),
    (r"/readyz", status.Readyz),
    (r"/status", status.Status),
    (r"/metrics", system.Metrics),
    (r"/setup/([A-Za-z0-9_-]+)/([a-z]+)", setup_script.Setup),
    (r"/contribute/([A-Za-z0-9_-]+)", sign_in_api.Contribute),
    # a friend's own
    (r"/api/friend/login", sign_in.Login),
    (r"/api/friend/logout", sign_in.Logout),
    (r"/sign-in/openid", sign_in.OpenIdStart),
    (r"/sign-in/openid/callback", sign_in.OpenIdCallback),
    (r"/api/me", own_account.Me),
    (r"/api/me/requests", own_account.OwnRequests),
    (r"/api/me/transcripts", own_account.OwnTranscripts),
    (rf"/api/me/transcripts/{ID}", own_account.OwnTranscript),
    (r"/api/held", own_account.Held),
    (rf"/api/held/{ID}", own_account.OneHeld),
    (r"/api/bookings", booking_pages.AllBookings),
    (rf"/api/bookings/{ID}", booking_pages.OneBooking),
    (r"/api/me/captures", own_account.Captures),
    (rf"/api/me/captures/{ID}", own_account.OneCapture),
    (r"/transcripts", own_account.TranscriptsPage),
    (r"/api/me/balance", contributing.Balance),
    (r"/api/me/passphrase", own_account.Passphrase),
    (r"/api/me/alerts", own_account.OwnAlerts),
    (r"/api/keys", own_account.Keys),
    (rf"/api/keys/{ID}", own_account.OwnKey),
    (rf"/keys/{ID}", own_account.KeyPage),
    (r"/api/setup-tickets", own_account.TicketsHandler),
    (r"/api/statusline", status.StatusLine),
    (r"/api/usable", status.UsableNow),
    (r"/api/live", live.LiveHandler),
    (r"/api/invitations", contributing.Invitation),
    (r"/api/accounts", contributing.OwnAccounts),
    (rf"/api/accounts/{ID}", contributing.OwnAccount),
    (rf"/api/accounts/{ID}/test", contributing.OwnTest),
    (r"/api/sign-ins", sign_in_api.OwnSignIns),
    (rf"/api/sign-ins/{ID}", sign_in_api.OwnSignIn),
    (r"/contribute", contributing.ContributePage),
    # what was used: friends see their own part of it
    (r"/analytics", dashboard_page.AnalyticsPage),
    (r"/requests", log_pages.RequestsPage),
    (rf"/requests/{ID}", log_pages.RequestPage),
    (r"/analytics/conversations", conversations.ConversationsPage),
    (rf"/analytics/conversations/{ID}", conversations.ConversationPage),
    (r"/api/usage/summary", usage_api.Summary),
    (r"/api/usage/series", usage_api.SeriesHandler),
    (r"/api/usage/top", usage_api.Top),
    (r"/api/usage/heatmap", usage_api.HeatMap),
    (r"/api/usage/matrix", usage_api.Matrix),
    (r"/api/usage/bill", bill.Bill),
    (r"/bill", bill.BillPage),
    (r"/api/usage/forecast", usage_api.ForecastHandler),
    (r"/api/usage/requests", log_pages.Requests),
    (r"/api/usage/export", usage_api.Export),
    # the operator's
    (r"/admin", sign_in.Admin),
    (r"/admin/requests", log_pages.AdminRequests),
    (r"/admin/reload", system.Reload),
    (r"/admin/accounts", accounts.AccountList),
    (r"/admin/several-accounts", accounts.SeveralAccountsPage),
    (rf"/admin/accounts/{ID}/restore", account_changes.RestoredAccount),
    (rf"/admin/accounts/{ID}", account_changes.OneAccount),
    (rf"/admin/accounts/{ID}/(enable|disable|refresh|test|reset|priority|lock|unlock)", accounts.AccountAction),
    (r"/admin/sign-ins", sign_in_api.NewSignIn),
    (rf"/admin/sign-ins/{ID}", sign_in_api.OneSignIn),
    (rf"/admin/accounts/{ID}/spend", spend.AccountSpend),
    (r"/admin/pool-users", people.UsersHandler),
    (rf"/admin/pool-users/{ID}", people.UserHandler),
    (rf"/admin/pool-users/{ID}/keys", people.UserKeysHandler),
    (rf"/admin/pool-users/{ID}/keys/{ID}", people.UserKeyHandler),
    (rf"/admin/pool-users/{ID}/(rotate|enable|disable|sign-out|forget-passphrase)", people.UserActionHandler),
    (r"/admin/invitations", contributing.Invitations),
    (rf"/admin/invitations/{ID}", people.CodeHandler),
    (r"/admin/codes", people.CodesHandler),
    (rf"/admin/codes/{ID}", people.CodeHandler),
    (r"/admin/audit", people.AuditHandler),
    (r"/admin/log", system.ServerLog),
    (r"/admin/transcripts", own_account.AllTranscripts),
    (rf"/admin/transcripts/{ID}/{ID}", own_account.SharedTranscript),
    (r"/admin/settings", settings_page.OneSetting),
    (r"/admin/tokens", system.Tokens),
    (rf"/admin/tokens/{ID}", system.OneToken),
    (r"/accounts", admin_pages.AccountsPage),
    (rf"/sign-ins/{ID}", sign_in_api.SignInPage),
    (r"/admin/models", models_page.ModelsPage),
    (r"/admin/what-if", admin_pages.WhatIfPage),
    (r"/people", admin_pages.PeoplePage),
    (rf"/people/{ID}", admin_pages.PersonPage),
    (rf"/people/{ID}/keys/{ID}", admin_pages.PersonKeyPage),
    (r"/audit", admin_pages.AuditPage),
    (r"/log", system.ServerLogPage),
    (r"/whats-new", system.WhatsNewPage),
    (r"/settings", settings_page.SettingsPage),
    (r"/language", page.LanguageChoice),
    (r"/favicon\.ico", static_files.Icon),
    (r"/static/([0-9a-f]+)/([a-z0-9_./-]+)", static_files.StaticFile),
    (r".*", static_files.NotFound),
)


_ACTIONS = ("enable", "disable", "refresh", "test", "reset", "priority", "lock", "unlock")
_DEEDS = ("enable", "disable", "sign-out", "forget-passphrase")
_PAGE = ("cursor", "limit")
_RANGE = ("range", "from", "to", "tz", "user", "provider", "model", "account")

# The operator's API: what its pages do, by the same handlers, described by `openapi.document`.
API: tuple[ApiOperation, ...] = (
    ApiOperation("GET", "/openapi.json", system.ApiDocument, TokenScope.READ, "This description", dict[str, Any]),
    ApiOperation("GET", "/status", status.Status, TokenScope.READ, "Headroom by provider", shapes.StatusAnswer),
    ApiOperation(
        "GET", "/accounts", accounts.AccountList, TokenScope.READ, "Every account", accounts.AccountsAnswer, query=_PAGE
    ),
    ApiOperation(
        "POST", "/accounts", accounts.AccountList, TokenScope.ACCOUNTS, "Add an account", shapes.AddedAnswer,
        account_changes.AddedAccount, 201, ("test",),
    ),
    ApiOperation(
        "PATCH", "/accounts/{account}", account_changes.OneAccount, TokenScope.ACCOUNTS, "Change options of an account",
        shapes.AccountAnswer, account_changes.ChangedOptions,
    ),
    ApiOperation(
        "DELETE", "/accounts/{account}", account_changes.OneAccount, TokenScope.ACCOUNTS,
        "Remove an account; it can be restored", shapes.RemovedAnswer,
    ),
    ApiOperation(
        "POST", "/accounts/{account}/restore", account_changes.RestoredAccount, TokenScope.ACCOUNTS,
        "Bring a removed account back", shapes.AccountAnswer,
    ),
    ApiOperation(
        "POST", "/accounts/{account}/{action}", accounts.AccountAction, TokenScope.ACCOUNTS,
        "Enable, disable, refresh, test, reset, lock; \"priority\" takes a body with it", shapes.AccountAnswer,
        choices={"action": _ACTIONS},
    ),
    ApiOperation(
        "POST", "/reload", system.Reload, TokenScope.ACCOUNTS, "Reread settings and credential files",
        shapes.ReloadAnswer,
    ),
    ApiOperation(
        "GET", "/people", people.UsersHandler, TokenScope.READ, "People", shapes.PeopleAnswer, query=(*_PAGE, "deleted")
    ),
    ApiOperation(
        "POST", "/people", people.UsersHandler, TokenScope.PEOPLE, "Add a person", shapes.NewPersonAnswer,
        people.NewUser,
    ),
    ApiOperation("GET", "/people/{person}", people.UserHandler, TokenScope.READ, "One person", shapes.OnePerson),
    ApiOperation(
        "PATCH", "/people/{person}", people.UserHandler, TokenScope.PEOPLE, "Change a person", shapes.PersonRow,
        shapes.PersonChange,
    ),
    ApiOperation(
        "DELETE", "/people/{person}", people.UserHandler, TokenScope.PEOPLE, "Delete a person", shapes.DeletedAnswer
    ),
    ApiOperation(
        "GET", "/people/{person}/keys", people.UserKeysHandler, TokenScope.READ, "A person's keys", shapes.KeysAnswer
    ),
    ApiOperation(
        "POST", "/people/{person}/keys", people.UserKeysHandler, TokenScope.PEOPLE, "A new key for a person",
        shapes.NewKeyAnswer, key_changes.NewKey,
    ),
    ApiOperation(
        "PATCH", "/people/{person}/keys/{key}", people.UserKeyHandler, TokenScope.PEOPLE,
        "Change a key's name, end or limits", shapes.KeyRow, key_changes.KeyChange,
    ),
    ApiOperation(
        "DELETE", "/people/{person}/keys/{key}", people.UserKeyHandler, TokenScope.PEOPLE, "Revoke a key",
        shapes.RevokedAnswer,
    ),
    ApiOperation(
        "POST", "/people/{person}/{action}", people.UserActionHandler, TokenScope.PEOPLE,
        "Enable, disable, end sessions, forget a passphrase", shapes.PersonRow, choices={"action": _DEEDS},
    ),
    ApiOperation(
        "POST", "/people/{person}/rotate", people.KeyRotation, TokenScope.PEOPLE,
        "One new key in place of all of a person's", shapes.NewKeyAnswer,
    ),
    ApiOperation(
        "GET", "/invitations", contributing.Invitations, TokenScope.READ, "Invitations", shapes.InvitationsAnswer
    ),
    ApiOperation(
        "POST", "/invitations", contributing.Invitations, TokenScope.PEOPLE,
        "Invite a person, or somebody who shares an account", shapes.NewInvitationAnswer, contributing.NewInvitation,
        201,
    ),
    ApiOperation(
        "DELETE", "/invitations/{code}", people.CodeHandler, TokenScope.PEOPLE, "Revoke an invitation",
        shapes.RevokedAnswer,
    ),
    ApiOperation(
        "POST", "/sign-ins", sign_in_api.NewSignIn, TokenScope.ACCOUNTS, "Begin to sign an account in",
        shapes.SignInAnswer,
        sign_in_api.BegunSignIn, 201,
    ),
    ApiOperation(
        "GET", "/sign-ins/{sign_in}", sign_in_api.OneSignIn, TokenScope.ACCOUNTS, "The state of a sign-in",
        shapes.SignInAnswer,
    ),
    ApiOperation(
        "POST", "/sign-ins/{sign_in}", sign_in_api.OneSignIn, TokenScope.ACCOUNTS, "Go on with a sign-in",
        shapes.SignInAnswer, sign_in_api.SignInWord,
    ),
    ApiOperation(
        "DELETE", "/sign-ins/{sign_in}", sign_in_api.OneSignIn, TokenScope.ACCOUNTS, "Cancel a sign-in",
        shapes.CancelledAnswer,
    ),
    ApiOperation(
        "PATCH", "/settings", settings_page.OneSetting, None, "Change one setting in the file, and take it up",
        shapes.SettingAnswer, settings_page.ChangedSetting,
    ),
    ApiOperation(
        "GET", "/held", own_account.Held, TokenScope.READ, "Requests that wait for headroom", shapes.HeldAnswer
    ),
    ApiOperation(
        "DELETE", "/held/{request}", own_account.OneHeld, TokenScope.ACCOUNTS, "End a request's wait",
        shapes.CancelledAnswer,
    ),
    ApiOperation(
        "GET", "/bookings", booking_pages.AllBookings, TokenScope.READ, "Headroom that is booked",
        booking_pages.BookingsAnswer,
    ),
    ApiOperation(
        "POST", "/bookings", booking_pages.AllBookings, TokenScope.PEOPLE, "Book headroom for a person",
        booking_pages.BookingRow, booking_pages.NewBooking, 201,
    ),
    ApiOperation(
        "DELETE", "/bookings/{booking}", booking_pages.OneBooking, TokenScope.PEOPLE, "End a booking",
        shapes.EndedAnswer,
    ),
    ApiOperation(
        "GET", "/transcripts", own_account.AllTranscripts, TokenScope.READ, "Of whom there are transcripts",
        shapes.TranscriptsAnswer,
    ),
    ApiOperation("GET", "/codes", people.CodesHandler, TokenScope.READ, "Personal codes", shapes.CodesAnswer),
    ApiOperation(
        "POST", "/codes", people.CodesHandler, TokenScope.PEOPLE, "A new personal code", shapes.NewCodeAnswer,
        people.NewCode,
    ),
    ApiOperation(
        "DELETE", "/codes/{code}", people.CodeHandler, TokenScope.PEOPLE, "Revoke a code", shapes.RevokedAnswer
    ),
    ApiOperation(
        "GET", "/requests", log_pages.AdminRequests, TokenScope.READ, "Recent requests with their decisions, no bodies",
        usage.RequestsAnswer, query=(*_PAGE, *_RANGE),
    ),
    ApiOperation(
        "GET", "/usage/summary", usage_api.Summary, TokenScope.READ, "What was used", usage_api.UsedAnswer, query=_RANGE
    ),
    ApiOperation(
        "GET", "/usage/series", usage_api.SeriesHandler, TokenScope.READ, "A chart: sums by steps of time",
        usage.SeriesAnswer, query=(*_RANGE, "by", "bucket", "metric", "top"),
    ),
    ApiOperation(
        "GET", "/usage/top", usage_api.Top, TokenScope.READ, "Who or what used most", usage_api.TopAnswer,
        query=(*_RANGE, "by", "metric", "limit"),
    ),
    ApiOperation(
        "GET", "/usage/heatmap", usage_api.HeatMap, TokenScope.READ, "Use by weekday and hour",
        WeekHours,
        query=(*_RANGE, "metric"),
    ),
    ApiOperation(
        "GET", "/usage/matrix", usage_api.Matrix, TokenScope.READ, "Who used which account", usage_api.MatrixAnswer,
        query=_RANGE,
    ),
    ApiOperation(
        "GET", "/usage/forecast", usage_api.ForecastHandler, TokenScope.READ, "Headroom, pace and end of each provider",
        usage.ForecastAnswer,
    ),
    ApiOperation(
        "GET", "/audit", people.AuditHandler, TokenScope.READ, "The audit log", shapes.AuditAnswer,
        query=(*_PAGE, "actor", "action", "target"),
    ),
    ApiOperation("GET", "/tokens", system.Tokens, None, "Admin tokens", shapes.TokensAnswer),
    ApiOperation(
        "POST", "/tokens", system.Tokens, None, "A new admin token", shapes.NewTokenAnswer, system.NewToken, 201
    ),
    ApiOperation("DELETE", "/tokens/{token}", system.OneToken, None, "Revoke a token", shapes.RevokedAnswer),
)  # fmt: skip


_NOTHING: dict[str, TokenScope | None] = dict.fromkeys(verb.upper() for verb in VERBS)


def api_rules(ctx: WebContext) -> list[Rule]:
    """The API as Tornado rules: a handler hears which methods of its path are of the API, and what each needs."""
    scopes: dict[tuple[str, type[BaseHandler]], dict[str, TokenScope | None]] = {}
    for one in API:
        scopes.setdefault((one.pattern, one.handler), {})[one.method] = one.scope
    made: list[Rule] = []
    for (pattern, handler), methods in scopes.items():
        given: dict[str, Any] = {"ctx": ctx, "scopes": methods}
        if handler is system.ApiDocument:
            given["described"] = lambda: document(API, ctx.version)
        made.append(URLSpec(pattern, handler, given))
    return [*made, URLSpec(rf"{BASE}(?:/.*)?", static_files.NotFound, {"ctx": ctx, "scopes": _NOTHING})]


def rules(ctx: WebContext) -> list[Rule]:
    """The tables as Tornado rules. The last one answers every other path with a 404."""
    return [*api_rules(ctx), *(URLSpec(pattern, handler, {"ctx": ctx}) for pattern, handler in TABLE)]


def application(ctx: WebContext) -> Application:
    """The pages as a Tornado application: compressed, quiet about itself, no access log of its own."""
    settings: dict[str, Any] = {
        "compress_response": True,
        "log_function": lambda handler: None,
        "template_functions": {"first_account": snippets.first_account, "sign_in_again": snippets.sign_in_again},
    }
    return Application(rules(ctx), **settings)
