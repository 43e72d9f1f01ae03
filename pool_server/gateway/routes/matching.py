"""Which call of which client a request is. Pure: method, path and headers, nothing else.

Where vendors share a path (`/v1/files`, `/v1/batches`), the headers their clients always send tell them apart:
`anthropic-version`; `x-goog-api-key` or `x-goog-api-client`; else it is OpenAI's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from urllib.parse import unquote

import msgspec

from pool_server.core.enums import ApiFamily, Dialect, ObjectKind, Operation, Provider
from pool_server.gateway.routes import anthropic, google, openai
from pool_server.gateway.routes.normal import climbs, meant, normal, tails
from pool_server.gateway.routes.rows import Route, Row
from pool_server.providers import SPECS

_FORCED = {f"/{provider.value}": provider for provider in Provider}

_LONGEST = 2048  # characters of a path; ids of all vendors have a few hundred, and a longer one takes long to look at
_PLACE = re.compile(r"\{(\w+)\}")
# Words of the API itself are no ids: a base URL written one segment too long must not name an object. Nor is one what
# its reader may take apart: an encoded slash, backslash, colon or NUL, a backslash or the beginning of a fragment.
_ID = (
    r"(?![^/]*%(?:2[fF]|5[cC]|3[aA]|00))"
    r"(?!(?:models|responses|messages|chat|completions|files|batches|search)(?:[/:]|$))[^/:\\#\x00-\x20\x7f]+"
)
_NO_OBJECT = frozenset({"model", "_"})


class _Pattern(msgspec.Struct, frozen=True):
    """A path with parts of its own. `expression` is compiled when it is first searched for: there are many of them, and
    a start need not wait for those nobody calls."""

    expression: str
    kinds: tuple[ObjectKind | None, ...]
    route: Route


_compiled = cache(re.compile)


class _Table:
    """One vendor's calls: those without a part of their own looked up, the others searched for by length."""

    def __init__(self, dialect: Dialect, parts: Iterable[tuple[tuple[str, ...], Iterable[Row]]]) -> None:
        self.fixed: dict[tuple[str, str], Route] = {}
        self._patterns: dict[tuple[str, int], list[_Pattern]] = {}
        for bases, rows in parts:
            for row in rows:
                for base in bases:
                    self._add(dialect, row, base + row.path)

    def _add(self, dialect: Dialect, row: Row, path: str) -> None:
        route = Route(
            row.dialect or dialect,
            row.operation,
            path,
            websocket=row.socket,
            makes=row.makes,
            lists=row.lists,
            deletes=row.deletes,
            works=row.works,
        )
        names = _PLACE.findall(path)
        if not names:
            self.fixed[row.method, path] = route
            return
        kinds = tuple(None if name in _NO_OBJECT else ObjectKind(name) for name in names)
        literal = [re.escape(part) for part in _PLACE.split(path)[::2]]
        expression = f"({_ID})".join(literal)
        self._patterns.setdefault((row.method, path.count("/")), []).append(_Pattern(expression, kinds, route))

    def find(self, method: str, path: str) -> Route | None:
        found = self.fixed.get((method, path))
        if found is not None:
            return found
        for pattern in self._patterns.get((method, path.count("/")), ()):
            match = _compiled(pattern.expression).fullmatch(path)
            if match is not None:
                ids = tuple(
                    (kind, unquote(value))
                    for kind, value in zip(pattern.kinds, match.groups(), strict=True)
                    if kind is not None
                )
                return msgspec.structs.replace(pattern.route, path=path, ids=ids)
        return None


TABLES: dict[ApiFamily, _Table] = {
    ApiFamily.OPENAI: _Table(Dialect.CHAT, ((openai.BASES, openai.ROWS), (openai.CODEX_BASES, openai.CODEX_ROWS))),
    ApiFamily.ANTHROPIC: _Table(Dialect.MESSAGES, ((anthropic.BASES, anthropic.ROWS),)),
    ApiFamily.GOOGLE: _Table(
        Dialect.GEMINI,
        (
            (google.BASES, google.ROWS),
            (google.UPLOAD_BASES, google.UPLOAD_ROWS),
            (("",), (*google.CODE_ASSIST_ROWS, *google.LIVE_ROWS)),
        ),
    ),
}
_CALLS = {key for table in TABLES.values() for key in table.fixed}
_SHARED = {key for key in _CALLS if sum(key in table.fixed for table in TABLES.values()) > 1}
# The calls of one vendor alone whose path has no part of its own, which are nearly all: one look tells them.
_FIXED = {
    key: route
    for table in TABLES.values()
    for key, route in table.fixed.items()
    if key not in _SHARED and not route.websocket
}


def _refusing(segments: Iterable[str]) -> re.Pattern[str]:
    words = "|".join(re.escape(segment) for segment in segments)
    return re.compile(rf"(?:/v\d+(?:beta1?|alpha)?|/backend-api/codex|/api/codex)?/(?:{words})(?:[/:].*)?")


_REFUSED: tuple[tuple[ApiFamily, Dialect, re.Pattern[str]], ...] = (
    (ApiFamily.OPENAI, Dialect.CHAT, _refusing(openai.REFUSED)),
    (ApiFamily.ANTHROPIC, Dialect.MESSAGES, _refusing(anthropic.REFUSED)),
    (ApiFamily.GOOGLE, Dialect.GEMINI, _refusing(google.REFUSED)),
)
_VERSIONED = re.compile(r"/(?:v\d|backend-api/|api/codex/)")
_MODEL = re.compile(r"(?:/v\d+)?/models/.+")

# A model call as Vertex AI and Bedrock take one: the pool asks them, and speaks the vendors' own APIs itself.
_CLOUDS = re.compile(
    r"(?:/v\d+(?:beta1?|alpha)?)?(?:/projects/[^/]+/locations/[^/]+)?/publishers/(?P<vendor>[^/]+)/models/.+"
    r"|/model/[^/]+/(?:invoke|converse)[a-z-]*"
)

# Paths that belong to the data plane even where no call above matches: answered locally or with a 404 in the
# client's dialect, never by the pages.
_FAMILIES: tuple[tuple[str, Dialect], ...] = (
    ("/v1internal", Dialect.CODE_ASSIST),
    ("/v1beta", Dialect.GEMINI),
    ("/v1alpha", Dialect.GEMINI),
    ("/upload/", Dialect.GEMINI),
    ("/ws/google.", Dialect.GEMINI),
    ("/v1/messages", Dialect.MESSAGES),
    ("/v1/responses", Dialect.RESPONSES),
    ("/v1/oauth", Dialect.MESSAGES),
    ("/v1/", Dialect.CHAT),
    ("/backend-api", Dialect.RESPONSES),
    ("/api/codex", Dialect.RESPONSES),
    ("/ps/", Dialect.RESPONSES),
    ("/responses", Dialect.RESPONSES),
    ("/messages", Dialect.MESSAGES),
    ("/chat/completions", Dialect.CHAT),
    ("/models", Dialect.CHAT),
    ("/oauth/token", Dialect.RESPONSES),
    ("/api/hello", Dialect.MESSAGES),
    ("/api/oauth/", Dialect.MESSAGES),
    ("/api/event_logging", Dialect.MESSAGES),
    ("/api/claude_c", Dialect.MESSAGES),
    ("/api/directory/", Dialect.MESSAGES),
    ("/api/eval/", Dialect.MESSAGES),
    ("/api/organization", Dialect.MESSAGES),
)


def match(method: str, path: str, headers: Mapping[str, str]) -> Route | None:
    """The route of a data-plane call, None when the path belongs to the pages. Headers by any-case `get`."""
    found = _FIXED.get((method, path))
    if found is not None:
        return found
    if len(path) > _LONGEST:
        return None
    forced, inner = _strip_prefix(path)
    family = SPECS[forced].family if forced is not None else _family(headers)
    if not climbs(inner):
        inner = normal(inner)
        if forced is None:
            forced, inner = _strip_prefix(inner)
        found = _call(method, inner, headers, family, bool(forced)) or _repaired(method, inner, headers, family)
    if found is not None:
        return found if forced is None else msgspec.structs.replace(found, forced=forced)
    if forced is not None:
        dialect = _dialect(inner, headers) or SPECS[forced].home
        return Route(dialect, Operation.OTHER, inner, forced, model_call=False)
    dialect_of = _dialect(inner, headers)
    if dialect_of is None:
        if method == "HEAD" and inner == "/":
            return Route(Dialect.MESSAGES, Operation.OTHER, inner, model_call=False)
        return None
    return Route(dialect_of, Operation.OTHER, inner, model_call=False)


def _family(headers: Mapping[str, str]) -> ApiFamily:
    """The vendor whose client this is, by the headers all its clients send."""
    if headers.get("Anthropic-Version"):
        return ApiFamily.ANTHROPIC
    if headers.get("X-Goog-Api-Key") or headers.get("X-Goog-Api-Client"):
        return ApiFamily.GOOGLE
    return ApiFamily.OPENAI


def _call(method: str, path: str, headers: Mapping[str, str], family: ApiFamily, forced: bool) -> Route | None:
    """The provider's call this is, if it is one; `path` is in its normal form and has no prefix."""
    refused = _refusal(method, path, family, forced)
    if refused is not None:
        return refused
    for table in (TABLES[family], *(table for other, table in TABLES.items() if other is not family)):
        found = table.find(method, path)
        if found is not None:
            # A socket begins as a GET; without its Upgrade it is no call of any provider.
            socket = headers.get("Upgrade", "").lower() == "websocket"
            return found if not found.websocket or socket else None
    return None


def _refusal(method: str, path: str, family: ApiFamily, forced: bool) -> Route | None:
    """A call that acts on the provider's whole account. Without a version or a prefix a path may be a page's."""
    if not forced and not _VERSIONED.match(path):
        return None
    fitting = sorted(_REFUSED, key=lambda entry: entry[0] is not family)
    for _, dialect, expression in fitting:
        if expression.fullmatch(path) and not _CLOUDS.fullmatch(path):
            return Route(dialect, Operation.OTHER, path, model_call=False, refused=True)
    if method in ("DELETE", "PATCH") and _MODEL.fullmatch(path):
        dialect = next(dialect for one, dialect, _ in _REFUSED if one is family)
        return Route(dialect, Operation.OTHER, path, model_call=False, refused=True)
    return None


def _repaired(method: str, path: str, headers: Mapping[str, str], family: ApiFamily) -> Route | None:
    """The call behind a base URL that was written one part too long, if it plainly is one."""
    for tail in tails(path):
        found = _call(method, tail, headers, family, False)
        if found is not None:
            return found
    return None


def _strip_prefix(path: str) -> tuple[Provider | None, str]:
    slash = path.find("/", 1)
    forced = _FORCED.get(path if slash < 0 else path[:slash])
    if forced is None:
        return None, path
    return forced, (path[slash:] if slash > 0 else "/")


def _dialect(path: str, headers: Mapping[str, str]) -> Dialect | None:
    if (cloud := _CLOUDS.fullmatch(path)) is not None:
        return Dialect.GEMINI if cloud["vendor"] == "google" else Dialect.MESSAGES
    for prefix, dialect in _FAMILIES:
        if path.startswith(prefix):
            if prefix in ("/v1/", "/models"):
                family = _family(headers)
                if family is not ApiFamily.OPENAI:
                    return Dialect.MESSAGES if family is ApiFamily.ANTHROPIC else Dialect.GEMINI
            return dialect
    call = meant(path)
    return _dialect(call, headers) if call else None
