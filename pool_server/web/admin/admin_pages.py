"""The operator's pages: accounts, people, audit, settings. Each is a table over what the JSON API answers too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from pool_server.core.enums import AccountState
from pool_server.core.settings import Section, Settings
from pool_server.core.settings_file import LoadedSettings
from pool_server.core.settings_file import rows as setting_rows
from pool_server.users import RefusedError
from pool_server.web.admin import accounts, people
from pool_server.web.base import labels
from pool_server.web.base.handler import Access
from pool_server.web.base.page import PageHandler
from pool_server.web.home import headroom, limits

SELF_TOLD = frozenset({"session.open", "session.end"})
ORDER = {"bad": 0, "warn": 1, "quiet": 3, "good": 2}


class AccountsPage(PageHandler, access=Access.ADMIN):
    """A row an account; those that need a hand come first."""

    def get(self) -> None:
        now = self.ctx.clock()
        rows = [{**row, **_shown(row, now)} for row in accounts.rows(self.ctx)]
        rows.sort(key=lambda row: (ORDER[row["tone"]], row["provider"], row["priority"], row["id"]))
        locked = [row["id"] for row in rows if row.get("locked")]
        pool = self.ctx.accounts
        self.page(
            "accounts.html",
            title="Accounts",
            rows=rows,
            rejected=pool.rejected(),
            trouble=pool.folder_trouble(),
            locked=locked,
        )


def _shown(row: dict[str, Any], now: float) -> dict[str, Any]:
    """What the page adds to a row of `Accounts.describe()`: words, tone and bars."""
    state = AccountState(row["state"])
    return {
        "words": labels.STATES[state],
        "tone": labels.TONES[state],
        "gauges": [headroom.gauge(window, now) for window in row["windows"]],
        "why": labels.standing(row, now),
    }


class PeoplePage(PageHandler, access=Access.ADMIN):
    """Everybody, with their limits and use, and the personal codes."""

    def get(self) -> None:
        users = self.ctx.users
        rows, following = users.list_users(cursor=self.get_query_argument("cursor", None), limit=100)
        now = self.ctx.clock()
        for row in rows:
            row["bars"] = limits.rows(users.limits(row["id"]), now)
            row["week"] = limits.used(self.ctx, row["id"])[1][1]
        rows.sort(key=lambda row: (-(row["last_seen"] or 0.0), row["name"].casefold()))
        names = {row["id"]: row["name"] for row in rows}
        self.page(
            "people.html",
            title="People",
            rows=rows,
            following=following,
            codes=users.list_codes(),
            counted=limits.COUNTED,
            names=names,
        )


class PersonPage(PageHandler, access=Access.ADMIN):
    """One person: limits to change, keys to revoke, access to end."""

    def get(self, user: str) -> None:
        users = self.ctx.users
        row = users.get_user(user)
        standing = users.limits(user)
        self.page(
            "person.html",
            title=row["name"],
            row=row,
            standing=standing,
            bars=limits.rows(standing, self.ctx.clock()),
            used=limits.used(self.ctx, user),
            keys=users.list_keys(user),
            counted=limits.COUNTED,
            usual=limits.usual(self.ctx.settings.limits),
        )


class AuditPage(PageHandler, access=Access.ADMIN):
    """Who did what, when; filters are in the address."""

    def get(self) -> None:
        rows, following = people.audit(self, 100)
        filters = {name: self.get_query_argument(name, "") for name in ("actor", "action", "target")}
        older = urlencode({**{k: v for k, v in filters.items() if v}, "cursor": following}) if following else ""
        for row in rows:
            row["person"] = self._name(row["target"])
            told = {name: value for name, value in row["detail"].items() if name != "name" or value != row["person"]}
            row["facts"] = "" if row["action"] in SELF_TOLD else labels.detail(told)
        self.page("audit.html", title="Audit", rows=rows, filters=filters, older=older)

    def _name(self, target: str) -> str:
        """The name of the person an entry is about, "" when it is about something else."""
        if not target.startswith("u_"):
            return ""
        try:
            return str(self.ctx.users.get_user(target)["name"])
        except RefusedError:
            return ""


class SettingsPage(PageHandler, access=Access.ADMIN):
    """What is in force and where it comes from; secrets only as set or not."""

    def get(self) -> None:
        settings = self.ctx.settings
        origins = {key: self.ctx.sources.get(key, origin) for key, origin in _origins(settings)}
        groups: dict[str, list[tuple[str, Any, str]]] = {}
        for key, value, origin in setting_rows(LoadedSettings(settings, origins, None)):
            section, _, name = key.rpartition(".")
            groups.setdefault(section, []).append((name, value, origin))
        self.page("settings.html", title="Settings", groups=groups)


def _origins(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every setting by its dotted key, and where it comes from when nobody has said."""
    usual = Settings()
    for name in Settings.__struct_fields__:
        value, default = getattr(settings, name), getattr(usual, name)
        if isinstance(value, Section):
            for inner in value.__struct_fields__:
                same = getattr(value, inner) == getattr(default, inner)
                yield f"{name}.{inner}", "default" if same else "set at the start"
        else:
            yield name, "default" if value == default else "set at the start"
