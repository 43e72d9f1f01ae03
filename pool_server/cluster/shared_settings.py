"""Settings of several machines: each has its file, what is changed on a page counts on all, and each tells by a mark of
every section what it goes by, so that machines which differ are seen.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from pool_server.cluster.node import ClusterNode
from pool_server.core.settings import ConfigError, Section, Settings
from pool_server.core.settings_file import LoadedSettings, overlaid
from pool_server.storage.errors import StoreError

log = logging.getLogger(__name__)

# What may be another's on each machine.
OWN = frozenset(
    {"listen_addr", "tls_cert", "tls_key", "tls_ca", "log_format", "workers", "pool_dir", "data_dir", "store_url",
     "store_listen_url", "node_name", "debug", "telemetry", "trusted_proxies"}
)  # fmt: skip


class SharedSettings:
    """One node's view of them."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node
        self._known: dict[str, str] = {}

    async def over(self, loaded: LoadedSettings) -> LoadedSettings:
        """The settings of this machine's file and environment with those that count on all. Where the database does not
        answer those that were read last count; one that this program cannot read is left out, and told."""
        try:
            rows = await self._node.upkeep.rows("select key, value from pool.setting order by key")
            self._known = {row["key"]: row["value"] for row in rows}
        except StoreError as exc:
            log.warning("settings that were changed for all machines are those of before: %s", exc)
        for key, text in self._known.items():
            try:
                loaded = overlaid(loaded, {key: text})
            except ConfigError as mistake:
                log.warning("a setting that was changed for all machines is left out: %s", mistake)
        return loaded

    async def put(self, key: str, text: str | None) -> None:
        """One for all machines, None = back to what each file says; each reads its settings again. Raises
        StoreError."""
        self._node.told("settings", await self._node.pool.value("select pool.setting_put_1($1, $2)", key, text))

    async def announce(self) -> None:
        """The other machines read their settings and files again."""
        try:
            self._node.told("settings", await self._node.pool.value("select pool.reload_1()"))
        except StoreError as exc:
            log.warning("the other machines were not told to reload: %s", exc)

    async def describe(self, settings: Settings, mark: Callable[[str], str]) -> None:
        """Tells what this node goes by."""
        try:
            told = json.dumps(marks(settings, mark))
            await self._node.upkeep.value("select pool.node_settings_1($1, $2)", self._node.id, told)
        except StoreError as exc:
            log.info("what settings this machine has is not told just now: %s", exc)


def marks(settings: Settings, mark: Callable[[str], str]) -> dict[str, str]:
    """A mark of each section's values, "" being those of no section; nothing can be read from one."""
    found: dict[str, dict[str, Any]] = {"": {}}
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        if name not in OWN and name != "pool_users":
            found.setdefault(name if isinstance(value, Section) else "", {})[name] = value
    found["pool_users"] = {"admin_password": settings.pool_users.admin_password}
    return {section: mark(msgspec.json.encode(values, order="sorted").decode()) for section, values in found.items()}
