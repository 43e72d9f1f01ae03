"""Reads the settings: `config.toml`, the environment over it, every mistake one clear line.

The type of a setting (`config.py`) is what a value is checked against and what the message is made from, so that
the two cannot drift apart; what a type cannot say stands in one table of rules.
"""

from __future__ import annotations

import base64
import difflib
import ipaddress
import json
import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import tomli
from msgspec.inspect import (
    DictType,
    EnumType,
    FloatType,
    IntType,
    ListType,
    LiteralType,
    StrType,
    StructType,
    VarTupleType,
)

from pool_server.core.disk import read_at_most
from pool_server.core.enums import Provider
from pool_server.core.loopback import is_loopback
from pool_server.core.settings import HIDDEN, SECRET, ConfigError, ModelPrice, Section, Settings, parse_listen

DEFAULT_FILE = Path("config.toml")
ALL_MACHINES = "all machines"  # where a setting comes from that was changed on a page of one of several


class LoadedSettings(NamedTuple):
    """Settings and where each came from.

    `origins` names every setting by its dotted key: "default", "file", "environment (NAME)", "option" or ALL_MACHINES.
    """

    settings: Settings
    origins: dict[str, str]
    path: Path | None


# Variable → dotted key. PROXY_DB_PATH, and db_path in a file, name codex-pool's database: its folder is used.
VARIABLES = {
    "PROXY_LISTEN_ADDR": "listen_addr",
    "PUBLIC_URL": "public_url",
    "POOL_TLS_CERT": "tls_cert",
    "POOL_TLS_CA": "tls_ca",
    "POOL_TLS_KEY": "tls_key",
    "POOL_DIR": "pool_dir",
    "PROXY_DB_PATH": "db_path",
    "POOL_DATA_DIR": "data_dir",
    "PROXY_MAX_ATTEMPTS": "max_attempts",
    "PROXY_DEBUG": "debug",
    "POOL_STORE_URL": "store_url",
    "POOL_STORE_LISTEN_URL": "store_listen_url",
    "POOL_NODE_NAME": "node_name",
    "POOL_LOCAL_TOKEN": "local_token",
    "FRIEND_CODE": "friend_code",
    "FRIEND_NAME": "friend_name",
    "FRIEND_TAGLINE": "friend_tagline",
    "POOL_ADMIN_PASSWORD": "pool_users.admin_password",
    "POOL_ADMIN_TOTP": "pool_users.admin_totp",
    "POOL_JWT_SECRET": "pool_users.jwt_secret",
    "POOL_OPENID_CLIENT_SECRET": "single_sign_on.client_secret",
    "GEMINI_OAUTH_CLIENT_ID": "gemini_client_id",
    "GEMINI_OAUTH_CLIENT_SECRET": "gemini_client_secret",
}
_ONLY_ENVIRONMENT = {key: name for name, key in VARIABLES.items() if key.startswith("gemini_client_")}
# In codex-pool's own example file; accepted where it says what happens here anyway.
_ALWAYS = {"disable_refresh": False}
_MOST_BYTES = 1 << 20  # of a file
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def load(path: Path | None, env: Mapping[str, str], options: Mapping[str, Any] | None = None) -> LoadedSettings:
    """Settings from a TOML file (None = no file), the environment over it, `options` (by dotted key) on top.

    An empty variable counts as not set. Raises ConfigError.
    """
    reading = _Reading()
    if path is not None:
        reading.table(_read(path), Settings, "", _Source("file", str(path), strict=True))
    for name, key in VARIABLES.items():
        if env.get(name):
            reading.leaf(key, env[name], _Source(f"environment ({name})", f"environment {name}", strict=False))
    for key, value in (options or {}).items():
        reading.leaf(key, value, _Source("option", "option", strict=True))
    return LoadedSettings(reading.settings(), reading.origins(), path)


def config_path(given: str | None) -> Path | None:
    """The file to read: the one asked for, else `config.toml` in the working directory if there is one."""
    if given:
        return Path(given)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def rows(loaded: LoadedSettings) -> list[tuple[str, Any, str]]:
    """(dotted key, value, origin) of every setting, for people to look at; secrets only as set or not."""
    out = []
    for key, origin in loaded.origins.items():
        value: Any = loaded.settings
        for part in key.split("."):
            value = getattr(value, part)
        out.append((key, HIDDEN if value and _secret(key) else value, origin))
    return out


def overlaid(loaded: LoadedSettings, shared: Mapping[str, str]) -> LoadedSettings:
    """The settings with values that count on all machines, by dotted key, as a person writes them: over those of the
    file, and under those of environment and options. Raises ConfigError."""
    source, reading = _Source(ALL_MACHINES, ALL_MACHINES, strict=False), _Reading()
    for key in _TYPES:
        value: Any = loaded.settings
        for part in key.split("."):
            value = getattr(value, part)
        reading.keep(key, value, loaded.origins.get(key, "default"))
    for key, text in shared.items():
        if loaded.origins.get(key, "default") in ("default", "file"):
            reading.leaf(key, text, source)
    return LoadedSettings(reading.settings(), reading.origins(), loaded.path)


def typed(key: str, text: str) -> Any:
    """A setting's value from what a person wrote into a field. Raises ConfigError, also for a key there is not."""
    source = _Source("page", "this page", strict=False)
    if key not in _TYPES:
        raise _unknown(key, text, source)
    return _checked(key, text, source)


def allowed(key: str) -> str:
    """What a setting takes, in words."""
    rule = _RULES.get(key) or _RULES.get(key.partition(".")[0])
    return rule[1] if rule else _allowed(msgspec.inspect.type_info(_TYPES[key]))


def choices(key: str) -> tuple[str, ...]:
    """The words a setting is one of; () where it is anything else."""
    kind = msgspec.inspect.type_info(_TYPES[key])
    if isinstance(kind, msgspec.inspect.BoolType):
        return ("true", "false")
    if isinstance(kind, EnumType):
        return tuple(str(member.value) for member in kind.cls)
    return tuple(str(value) for value in kind.values) if isinstance(kind, LiteralType) else ()


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_at_most(path, _MOST_BYTES).decode("utf-8-sig")
        return tomli.loads(text.replace("\r\n", "\n").replace("\r", "\n"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except (tomli.TOMLDecodeError, RecursionError) as error:
        why = " ".join(str(error).split()) if isinstance(error, tomli.TOMLDecodeError) else "nested too deeply"
        raise ConfigError(f"{path}: is not TOML: {why}") from None


class _Source(NamedTuple):
    origin: str
    where: str  # how a message names it
    strict: bool  # False: values are text and are read as what the setting needs

    def error(self, key: str, value: Any, why: str) -> ConfigError:
        return ConfigError(f"{self.where}: {_key(key)} = {_shown(key, value)}: {why}")


class _Reading:
    """Collects checked values by dotted key; later ones win."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[Any, str]] = {}

    def table(self, table: Mapping[str, Any], kind: type[Section], prefix: str, source: _Source) -> None:
        """Take every entry of one TOML table."""
        for name, value in table.items():
            key = prefix + name
            section = _SECTIONS.get(key)
            if section is None:
                self.leaf(key, value, source)
            elif isinstance(value, dict):
                self.table(value, section, f"{key}.", source)
            else:
                raise source.error(key, value, f"must be a table: [{key}]")

    def leaf(self, key: str, value: Any, source: _Source) -> None:
        """Take one value, checked."""
        if key == "db_path":
            key, value = "data_dir", _folder_of(value, source)
            if self._values.get(key, ("", ""))[1] == source.origin:
                return  # data_dir itself stands beside it and wins
        if source.strict and key in _ALWAYS and value is _ALWAYS[key]:
            return
        if source.strict and key in _ONLY_ENVIRONMENT:
            raise source.error(key, value, f"only read from the environment, as {_ONLY_ENVIRONMENT[key]}")
        if key not in _TYPES:
            raise _unknown(key, value, source)
        self._values[key] = (_checked(key, value, source), source.origin)

    def keep(self, key: str, value: Any, origin: str) -> None:
        """Take one value that was checked before."""
        self._values[key] = (value, origin)

    def settings(self) -> Settings:
        top: dict[str, Any] = {}
        for section in _SECTIONS:
            inner = {k.partition(".")[2]: v for k, (v, _) in self._values.items() if k.startswith(f"{section}.")}
            top[section] = msgspec.structs.replace(getattr(_DEFAULTS, section), **inner)
        top |= {key: value for key, (value, _) in self._values.items() if "." not in key}
        return Settings(**top)

    def origins(self) -> dict[str, str]:
        return {key: self._values.get(key, ("", "default"))[1] for key in _TYPES}


def _sections(kind: type[Section], prefix: str = "") -> dict[str, type[Section]]:
    found: dict[str, type[Section]] = {}
    for item in msgspec.structs.fields(kind):
        if isinstance(item.type, type) and issubclass(item.type, Section):
            found[prefix + item.name] = item.type
    return found


_SECTIONS = _sections(Settings)
_DEFAULTS = Settings()
_TYPES: dict[str, Any] = {}  # every setting's type by its dotted key, in the order of the sections
for _field in msgspec.structs.fields(Settings):
    if _field.name in _SECTIONS:
        for _inner in msgspec.structs.fields(_SECTIONS[_field.name]):
            _TYPES[f"{_field.name}.{_inner.name}"] = _inner.type
    else:
        _TYPES[_field.name] = _field.type


def _checked(key: str, value: Any, source: _Source) -> Any:
    """The value in the setting's own type; raises ConfigError saying what is allowed."""
    if key == "prices":
        return _prices(value, source)
    kind = _TYPES[key]
    try:
        typed = msgspec.convert(value, kind, strict=source.strict)
    except msgspec.ValidationError:
        raise source.error(key, value, f"must be {_allowed(msgspec.inspect.type_info(kind))}") from None
    if key != "friend_tagline" and any(_CONTROL.search(text) for text in _texts(typed)):
        raise source.error(key, value, "must be text on one line, without control characters")
    rule = _RULES.get(key) or _RULES.get(key.partition(".")[0])
    if rule is None:
        return typed
    check, allowed = rule
    try:
        return check(typed)
    except ValueError:
        raise source.error(key, value, f"must be {allowed}") from None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a setting: no path, name or address can hold what ends a line or a string."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _prices(value: Any, source: _Source) -> dict[str, ModelPrice]:
    """`[prices."model"]` tables: each entry is named in a mistake."""
    amounts = {item.name: item.type for item in msgspec.structs.fields(ModelPrice)}
    if not isinstance(value, dict):
        raise source.error("prices", value, 'must be tables: [prices."model"]')
    prices = {}
    for model, price in value.items():
        key = f"prices.{json.dumps(model)}"
        if not isinstance(price, dict):
            raise source.error(key, price, f"must be a table with {', '.join(amounts)}")
        for name, amount in price.items():
            if name not in amounts:
                raise ConfigError(f"{source.where}: {key}: unknown key {_key(name)}{_near(name, amounts)}")
            if not isinstance(amount, int | float) or isinstance(amount, bool) or not 0 <= amount <= 1e12:
                raise source.error(f"{key}.{name}", amount, "must be US dollars a million tokens, 0 or more")
        if not {"input", "output"} <= price.keys():
            raise ConfigError(f"{source.where}: {key}: input and output must both be given")
        prices[model] = msgspec.convert(price, ModelPrice)
    return prices


def _folder_of(value: Any, source: _Source) -> str:
    """The folder of codex-pool's database file."""
    if not isinstance(value, str) or not value:
        raise source.error("db_path", value, "must be the path of a file; its folder is used")
    return value if value.endswith("/") else str(Path(value).parent)


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(text)
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\"'<>\\`$]", text):
        raise ValueError(text)
    parts.port  # noqa: B018 — raises ValueError when it is none
    return text.rstrip("/")


def _preset_origins(table: dict[str, str]) -> dict[str, str]:
    for name in table:
        Provider(name)
    return {name: _url(text) for name, text in table.items()}


def _optional_url(text: str) -> str:
    return _url(text) if text else text


def _webhook(text: str) -> str:
    if text and (urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname):
        raise ValueError(text)
    return text


def _chats(addresses: list[str]) -> list[str]:
    for one in addresses:
        if not re.fullmatch(r"[a-z0-9]+://\S+", one):
            raise ValueError
    return addresses


def _listen(text: str) -> str:
    parse_listen(text)
    return text.strip()


def _networks(names: list[str]) -> list[str]:
    return [str(ipaddress.ip_network(name, strict=False)) for name in names]


def _password(text: str) -> str:
    hashed = re.fullmatch(r"\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}", text)
    if text and (text.isspace() or (text.startswith("$2") and not hashed) or len(text.encode()) > 72):
        raise ValueError
    return text


def _local_token(text: str) -> str:
    if text and (not re.fullmatch(r"[!-~]{1,200}", text) or text.startswith("$2")):
        raise ValueError
    return text


def _totp(text: str) -> str:
    if text and len(base64.b32decode(text.upper() + "=" * (-len(text) % 8))) < 16:
        raise ValueError(text)
    return text


def _issuer(text: str) -> str:
    """Compared letter by letter with what the issuer calls itself. Without https on this machine alone."""
    if text and _url(text) and not text.startswith("https://") and not is_loopback(urlsplit(text).hostname or ""):
        raise ValueError(text)
    return text


def _user_header(text: str) -> str:
    """No header that says something else: clients send those themselves."""
    taken = text.lower().startswith(("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "sec-"))
    known = text.lower() in ("host", "cookie", "authorization", "x-api-key", "x-goog-api-key", "user-agent", "origin")
    if text and (not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{2,63}", text) or taken or known):
        raise ValueError(text)
    return text


def _signing_secret(text: str) -> str:
    if 0 < len(text) < 16:
        raise ValueError
    return text


def _timezone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, OSError):
        raise ValueError(name) from None
    return name


def _providers(names: list[str] | None) -> list[str] | None:
    return names if names is None else [Provider(name).value for name in names]


# What a type cannot say: dotted key or section → (check: answers the value to use or raises ValueError; in words).
_URL = "an address like https://host or http://host:port/path"
_RULES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "listen_addr": (_listen, "host:port, [v6]:port, :port or a port (0 to 65535)"),
    "public_url": (_optional_url, f"{_URL}, or empty"),
    "upstreams": (_url, _URL),
    "upstreams.presets": (_preset_origins, f"a table of presets, each {_URL}"),
    "token_urls": (_url, _URL),
    "sign_in": (_url, _URL),
    "trusted_proxies": (_networks, 'addresses or networks, as in ["127.0.0.1", "10.0.0.0/8"]'),
    "local_token": (_local_token, "visible ASCII characters without blanks, as a header can carry them, or empty"),
    "friend_code": (_password, "text of at most 72 bytes that is not blank"),
    "pool_users.admin_password": (_password, "a password of at most 72 bytes, or a whole bcrypt hash"),
    "pool_users.admin_totp": (
        _totp,
        "a Base32 secret of at least 26 characters, or empty",
    ),
    "single_sign_on.user_header": (_user_header, "the name of a header of its own, as in X-Forwarded-User, or empty"),
    "single_sign_on.issuer": (_issuer, "the https address of an issuer of OpenID Connect, or empty"),
    "pool_users.jwt_secret": (_signing_secret, "text of at least 16 characters, or empty"),
    "ledger.timezone": (_timezone, 'a time zone by its IANA name, as in "Europe/Zurich"'),
    "limits.providers": (_providers, f"a list of {', '.join(Provider)}"),
    "alerts.chat_urls": (_chats, 'addresses as Apprise writes them, as in ["ntfy://host/topic"]'),
    "telemetry.endpoint": (_optional_url, f"{_URL}, or empty"),
    "alerts.webhook_url": (_webhook, "an http or https address, or empty"),
}


def _allowed(kind: msgspec.inspect.Type) -> str:
    """What a type takes, in words."""
    if isinstance(kind, msgspec.inspect.UnionType):  # always "T | None", and TOML has no null
        return next(_allowed(inner) for inner in kind.types if not isinstance(inner, msgspec.inspect.NoneType))
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(kind, IntType | FloatType):
        noun = "a whole number" if isinstance(kind, IntType) else "a number"
        low = f"from {kind.ge:g}" if kind.ge is not None else f"above {kind.gt:g}" if kind.gt is not None else ""
        return " ".join(part for part in (noun, low, f"to {kind.le:g}" if kind.le is not None else "") if part)
    if isinstance(kind, StrType):
        return "text that is not empty" if kind.min_length else "text"
    if isinstance(kind, EnumType):
        return "one of " + ", ".join(json.dumps(member.value) for member in kind.cls)
    if isinstance(kind, LiteralType):
        return "one of " + ", ".join(json.dumps(value) for value in kind.values)
    if isinstance(kind, ListType | VarTupleType):
        return f"a list, each {_allowed(kind.item_type)}"
    if isinstance(kind, StructType):
        return f"a table with {', '.join(field.name for field in kind.fields)}"
    if isinstance(kind, DictType):
        return f"a table, each value {_allowed(kind.value_type)}"
    raise TypeError(kind)


def _secret(key: str) -> bool:
    return key.rpartition(".")[2] in SECRET


def _key(key: str) -> str:
    return key if re.fullmatch(r'[\w."\-/: ]{1,120}', key) else json.dumps(key)[:120]


def _shown(key: str, value: Any) -> str:
    """A value as it may stand in a message: short, on one line, never a secret."""
    if _secret(key):
        return HIDDEN
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _near(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def _unknown(key: str, value: Any, source: _Source) -> ConfigError:
    """An unknown key. Its value may be a misspelt secret's, so that only numbers and truth values are shown."""
    section, _, name = key.rpartition(".")
    siblings = {k.removeprefix(f"{section}."): 1 for k in _TYPES if k.rpartition(".")[0] == section}
    if not section:
        siblings |= {**dict.fromkeys(_SECTIONS, 1), "db_path": 1}
    shown = _shown("", value) if isinstance(value, int | float) else HIDDEN if isinstance(value, str) else "…"
    homes = sorted(k.rpartition(".")[0] for k in _TYPES if k.rpartition(".")[2] == name)
    places = " or ".join(f"below [{home}]" if home else "above the first table" for home in homes)
    near = f"; {name} stands {places}" if homes else _near(name, siblings)
    return ConfigError(f"{source.where}: {_key(key)} = {shown}: unknown key{near}")
