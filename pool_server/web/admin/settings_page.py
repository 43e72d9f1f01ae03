"""`/settings`: what is in force, what it means, where it comes from; the harmless ones are changed here."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pool_server.core import settings_file
from pool_server.core.disk import DRAFT, create_private, folder_held, sync_folder
from pool_server.core.settings import COUNTED_LIMITS, HIDDEN, ConfigError, Section, Settings
from pool_server.core.settings_file import DEFAULT_FILE, LoadedSettings
from pool_server.language import gettext as _
from pool_server.language import marked
from pool_server.texts.settings import SECTIONS, SETTINGS
from pool_server.web.admin.settings_edit import NotEditableError, changed
from pool_server.web.base.handler import Access, ProblemError
from pool_server.web.base.listing import matches
from pool_server.web.base.page import PageHandler
from pool_server.web.base.shared import query_params as asking

# What a page may change: nothing that says where secrets go, who comes in, or where the server listens and writes, and
# only what a reload takes up.
EDITABLE = frozenset(
    {"public_url", "max_attempts", "debug", "upstream_first_byte_s", "upstream_idle_s", "drain_s", "upgrade_drain_s",
     "friend_name", "friend_tagline", "usage_polling.interval_s", "choosing.strategy", "choosing.wait_s",
     "choosing.pin_ttl_h", "bookings.most_percent", "bookings.longest_h", "bookings.ahead_days",
     "bookings.per_person", "fair_share.enabled", "fair_share.short_percent", "fair_share.window_h",
     "fair_share.wait_s", *(f"limits.{limit.name}" for limit in COUNTED_LIMITS),
     "alerts.room_hours", "alerts.error_rate_percent", "alerts.disk_free_mb", "models.translate"}
)  # fmt: skip
LONGEST = 500  # characters of a value
ORIGINS = (marked("all machines"), marked("file"))  # as `settings_file` names them


class ChangedSetting(msgspec.Struct, forbid_unknown_fields=True):
    """`key` is dotted; `value` as a person writes it, "" = back to the default."""

    key: str
    value: str = ""


class SettingRow(NamedTuple):
    """One setting. `changed`: it is not the default; `editable`: a page may change it, and no variable wins over it."""

    key: str
    name: str
    words: str
    shown: str
    value: str
    origin: str
    changed: bool
    editable: bool
    allowed: str
    choices: tuple[str, ...]


def rows(settings: Settings, sources: dict[str, str]) -> list[SettingRow]:
    """Every setting, in the order of the file; `sources` as `WebContext` has them."""
    origins = {key: sources.get(key, origin) for key, origin in _origins(settings)}
    usual = {key: value for key, value, _origin in settings_file.rows(LoadedSettings(Settings(), dict(origins), None))}
    found = []
    for key, value, origin in settings_file.rows(LoadedSettings(settings, origins, None)):
        editable = key in EDITABLE and not origin.startswith(("environment", "option"))
        choices = settings_file.choices(key) if editable else ()
        plain = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        found.append(
            SettingRow(
                key,
                key.rpartition(".")[2],
                SETTINGS.get(key, ""),  # one without words is shown all the same
                shown(value),
                plain if editable else "",
                origin,
                value != usual[key],
                editable,
                settings_file.allowed(key) if editable else "",
                choices,
            )
        )
    return found


def _origins(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every setting by its dotted key, and where it comes from when nobody has said."""
    usual = Settings()
    for name in Settings.__struct_fields__:
        value, default = getattr(settings, name), getattr(usual, name)
        if isinstance(value, Section):
            for inner in value.__struct_fields__:
                same = getattr(value, inner) == getattr(default, inner)
                yield f"{name}.{inner}", marked("default") if same else marked("set at the start")
        else:
            yield name, "default" if value == default else "set at the start"


def write(path: Path, key: str, value: Any) -> None:
    """The setting in the file at `path`, whole or not at all, and only if all settings are valid then; one writer at a
    time. Blocks. Raises ConfigError, NotEditableError and OSError."""
    with folder_held(path.parent):
        text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
        beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}{DRAFT}")
        create_private(beside, changed(text, key, value).encode())
        try:
            if path.exists():
                beside.chmod(path.stat().st_mode & 0o777)
            settings_file.load(beside, os.environ)
            beside.replace(path)
            sync_folder(path.parent)
        finally:
            beside.unlink(missing_ok=True)


class SettingsPage(PageHandler, access=Access.ADMIN):
    """Secrets are only set or not; `?q=` searches, `?changed=1` leaves out the defaults."""

    def get(self) -> None:
        every = rows(self.ctx.settings, self.ctx.sources)
        chosen = {"q": asking.text(self, "q"), "changed": asking.word(self, "changed", ("1",), "")}
        groups: dict[str, list[SettingRow]] = {}
        for row in every:
            wanted = matches((row.key, row.words), chosen["q"])
            if wanted and (row.changed or not chosen["changed"]):
                groups.setdefault(row.key.rpartition(".")[0], []).append(row)
        self.page(
            "settings.html",
            title="Settings",
            groups=groups,
            sections={section: SECTIONS.get(section, section) for section in groups},
            chosen=chosen,
            differ=sum(row.changed for row in every),
            can_change=self.ctx.reread is not None,
            shared=self.ctx.share_setting is not None,
            tokens=self.ctx.users.admin_tokens.rows(),
        )


class OneSetting(PageHandler, access=Access.ADMIN):
    """`PATCH /admin/settings` `{"key","value"}` writes one setting into the file and takes it up."""

    async def patch(self) -> None:
        asked, ctx = self.body_as(ChangedSetting), self.ctx
        row = next((one for one in rows(ctx.settings, ctx.sources) if one.key == asked.key), None)
        if row is None or not row.editable or ctx.reread is None:
            raise ProblemError(403, "not_editable", _("{key} cannot be changed on this page", key=asked.key[:60]))
        if len(asked.value) > LONGEST:
            raise ProblemError(422, "too_long", _("a value has at most {longest} characters", longest=LONGEST))
        try:
            value = settings_file.typed(asked.key, asked.value.strip()) if asked.value.strip() else None
            value = getattr(value, "value", value)
            if ctx.share_setting is not None:
                await ctx.share_setting(asked.key, asked.value.strip() or None)
            else:
                loaded = await asyncio.to_thread(ctx.reread)
                await asyncio.to_thread(write, (loaded.path or DEFAULT_FILE).resolve(), asked.key, value)
        except (ConfigError, NotEditableError) as wrong:
            raise ProblemError(422, "rejected", str(wrong)) from None
        except OSError as error:
            raise ProblemError(
                500, "not_written", _("the settings file cannot be written: {strerror}", strerror=error.strerror)
            ) from None
        await ctx.reload()
        await ctx.users.audit(self.actor, "settings.change", asked.key, {"to": asked.value.strip() or "the default"})
        self.answer({"key": asked.key, "value": value})


def shown(value: object) -> str:
    """A setting's value as one line of plain text; a secret is "set" or "not set"."""
    if value == HIDDEN:
        return _("set")
    if value in ("", None, [], {}, ()):
        return _("not set")
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown(item)}" for name, item in value.items())
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
