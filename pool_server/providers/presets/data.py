"""The shape of `presets.toml` and its reading. The file itself says what each field means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from importlib.resources import files
from typing import Literal

import msgspec
import tomli

from pool_server.core.enums import Dialect, Provider
from pool_server.core.origins import origin
from pool_server.providers.credential import KeyAuth
from pool_server.providers.presets.quota import READERS

_PLACE = re.compile(r"\{(\w+)\}")
PLACES = ("region", "resource")  # fields of a credential file that name a host's variable part
PLACE_VALUE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class PresetAbout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    checked: date
    source: str
    share: Literal["team", "personal", "unclear", "trial"]
    sign_up: str = ""
    local: bool = False
    traced_as: str = ""


class PresetHosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    chat: str = ""
    responses: str = ""
    messages: str = ""
    embeddings: bool = False

    def by_dialect(self) -> dict[Dialect, str]:
        told = {Dialect.CHAT: self.chat, Dialect.RESPONSES: self.responses, Dialect.MESSAGES: self.messages}
        return {dialect: host for dialect, host in told.items() if host}


class PresetUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    auth: KeyAuth
    test: Literal["quota", "request"]
    messages_auth: KeyAuth | None = None
    key: str = ""
    models: tuple[str, ...] = ()
    test_model: str = ""
    foreign_errors: bool = False


class PresetQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    auth: Literal["bearer", "raw"]
    reader: str
    every_s: int


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    about: PresetAbout
    hosts: PresetHosts
    use: PresetUse
    regions: dict[str, str] = {}
    quota: PresetQuota | None = None

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """What it speaks, Chat first."""
        return tuple(self.hosts.by_dialect())

    @property
    def places(self) -> frozenset[str]:
        """The variable parts of its hosts: names in `PLACES`."""
        return frozenset(_PLACE.findall(" ".join(self.addresses())))

    def addresses(self) -> tuple[str, ...]:
        """Every address of it, with the variable parts as they are written."""
        return (*self.hosts.by_dialect().values(), *((self.quota.url,) if self.quota is not None else ()))

    def auth(self, dialect: Dialect) -> KeyAuth:
        return (self.use.messages_auth or self.use.auth) if dialect is Dialect.MESSAGES else self.use.auth


@lru_cache(maxsize=1024)
def filled(address: str, places: tuple[tuple[str, str], ...], moved: str = "") -> str:
    """An address with its variable parts, and at the origin `moved` instead of its own where one is given."""
    for name, value in places:
        address = address.replace(f"{{{name}}}", value)
    if not moved:
        return address
    end = address.find("/", address.find("://") + 3)
    return moved.rstrip("/") + (address[end:] if end > 0 else "")


def read(text: str) -> dict[Provider, Preset]:
    """The presets of a file's text. Raises ValueError, in one line, for one that is not what it has to be."""
    try:
        found = msgspec.convert(tomli.loads(text), dict[str, Preset])
    except (tomli.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise ValueError(f"the presets cannot be read: {exc}") from None
    for name, preset in found.items():
        for wrong in _wrong(preset):
            raise ValueError(f"preset {name}: {wrong}")
    return {Provider(name): preset for name, preset in found.items()}


def _wrong(preset: Preset) -> list[str]:
    """What is wrong with a preset that has the right shape."""
    found = []
    if not preset.dialects:
        found.append("no host")
    values = dict.fromkeys(PLACES, "x")
    if unknown := preset.places - set(PLACES):
        found.append(f"unknown place {min(unknown)}")
    for address in preset.addresses():
        whole = filled(address, tuple(values.items()))
        if not origin(whole) or not (whole.startswith("https://") or preset.about.local):
            found.append(f"{address} is no https address")
    if preset.regions and "region" not in preset.places:
        found.append("regions without {region}")
    if preset.quota is not None and preset.quota.reader not in READERS:
        found.append(f"unknown reader {preset.quota.reader}")
    if preset.use.test == "quota" and preset.quota is None:
        found.append("tested by a quota endpoint it does not have")
    try:
        re.compile(preset.use.key)
    except re.error:
        found.append("key is no pattern")
    return found


PRESETS: Mapping[Provider, Preset] = read((files("pool_server.providers") / "presets.toml").read_text("utf-8"))
