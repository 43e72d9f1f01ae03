"""The data plane's route table: which call of which client is this? Pure.

Paths come from the clients' recorded traffic: Codex with either base URL, Claude Code, Gemini CLI in both modes,
Qwen Code, opencode and plain SDKs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from pool_server.core.enums import Dialect, Operation, Provider


class Route(msgspec.Struct, frozen=True):
    """What a path means. `path` has no provider prefix; `model_call` False = answered by the pool itself."""

    dialect: Dialect
    operation: Operation
    path: str
    forced: Provider | None = None
    model_call: bool = True
    websocket: bool = False


_FORCED = {f"/{provider.value}": provider for provider in Provider}
_HOME: dict[Provider, Dialect] = {
    Provider.CODEX: Dialect.RESPONSES,
    Provider.CLAUDE: Dialect.MESSAGES,
    Provider.GEMINI: Dialect.GEMINI,
    Provider.QWEN: Dialect.CHAT,
    Provider.OPENAI: Dialect.CHAT,
}

_CODEX_BASES = ("", "/v1", "/backend-api/codex", "/api/codex")
_CODEX_PATHS = [f"{base}/responses{end}" for base in _CODEX_BASES for end in ("", "/")]
_COMPACT_PATHS = [f"{base}/responses/compact" for base in _CODEX_BASES]
_CODE_ASSIST_VERBS = ("generateContent", "GenerateContent", "streamGenerateContent", "streamgenerateContent")

# The calls whose paths have no part of their own, which are nearly all: looked up before anything is searched for.
_FIXED: dict[tuple[str, str], Route] = {
    (method, path): Route(dialect, operation, path, websocket=method == "GET")
    for method, paths, dialect, operation in (
        ("POST", _CODEX_PATHS, Dialect.RESPONSES, Operation.RESPONSES),
        ("GET", _CODEX_PATHS, Dialect.RESPONSES, Operation.RESPONSES),
        ("POST", _COMPACT_PATHS, Dialect.RESPONSES, Operation.RESPONSES_COMPACT),
        ("POST", ["/v1/messages", "/v1/messages/"], Dialect.MESSAGES, Operation.MESSAGES),
        ("POST", ["/v1/messages/count_tokens"], Dialect.MESSAGES, Operation.COUNT_TOKENS),
        ("POST", ["/v1/chat/completions", "/chat/completions"], Dialect.CHAT, Operation.CHAT),
        ("POST", [f"/v1internal:{v}" for v in _CODE_ASSIST_VERBS], Dialect.CODE_ASSIST, Operation.GENERATE),
        ("POST", ["/v1internal:countTokens"], Dialect.CODE_ASSIST, Operation.COUNT_TOKENS),
    )
    for path in paths
}

# (method or "*", pattern, dialect, operation); the first match wins.
_CALLS: tuple[tuple[str, re.Pattern[str], Dialect, Operation], ...] = tuple(
    (method, re.compile(pattern), dialect, operation)
    for method, pattern, dialect, operation in (
        (
            "POST",
            r"/v1(beta1?|alpha)?/models/[^/]+:(stream)?[gG]enerateContent",
            Dialect.GEMINI,
            Operation.GENERATE,
        ),
        ("POST", r"/v1(beta1?|alpha)?/models/[^/]+:countTokens", Dialect.GEMINI, Operation.COUNT_TOKENS),
        ("POST", r"/v1(beta1?|alpha)?/models/[^/]+:\w+", Dialect.GEMINI, Operation.OTHER),
        ("*", r"/v1beta/(cachedContents|files)(/.*)?", Dialect.GEMINI, Operation.OTHER),
        ("*", r"(/v1)?/responses/.+", Dialect.RESPONSES, Operation.OTHER),
        (
            "POST",
            r"/backend-api/codex/(alpha/search|images/.+|realtime/.+|memories/.+)",
            Dialect.RESPONSES,
            Operation.OTHER,
        ),
        ("*", r"/v1/(messages/batches|files)(/.*)?", Dialect.MESSAGES, Operation.OTHER),
        (
            "POST",
            r"/v1/(embeddings|completions|moderations|rerank|images/.+|audio/.+)",
            Dialect.CHAT,
            Operation.OTHER,
        ),
    )
)

# Paths that belong to the data plane even where no call above matches: answered locally or with a 404 in the
# client's dialect, never by the pages.
_FAMILIES: tuple[tuple[str, Dialect], ...] = (
    ("/v1internal", Dialect.CODE_ASSIST),
    ("/v1beta", Dialect.GEMINI),
    ("/v1alpha", Dialect.GEMINI),
    ("/v1/messages", Dialect.MESSAGES),
    ("/v1/responses", Dialect.RESPONSES),
    ("/v1/oauth", Dialect.MESSAGES),
    ("/v1/", Dialect.CHAT),
    ("/backend-api", Dialect.RESPONSES),
    ("/api/codex", Dialect.RESPONSES),
    ("/ps/", Dialect.RESPONSES),
    ("/responses", Dialect.RESPONSES),
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


# No client asks for such a path; followed upstream it would be another call than the one that was let in and counted.
_DOTS = re.compile(r"(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:$|[/\\:]|%2f|%5c)", re.IGNORECASE)


def match(method: str, path: str, headers: Mapping[str, str]) -> Route | None:
    """The route of a data-plane call, None when the path belongs to the pages. Headers by any-case `get`."""
    found = _FIXED.get((method, path))
    if found is not None and not found.websocket:
        return found
    forced, inner = _strip_prefix(path)
    found = _call(method, inner, headers)
    if found is not None:
        if forced is None:
            return found
        dialect = Dialect.CHAT if forced is Provider.OPENAI and inner.startswith("/v1/files") else found.dialect
        return msgspec.structs.replace(found, forced=forced, dialect=dialect)
    if forced is not None:
        return Route(_family(inner, headers) or _HOME[forced], Operation.OTHER, inner, forced, model_call=False)
    family = _family(inner, headers)
    if family is None:
        if method == "HEAD" and inner == "/":
            return Route(Dialect.MESSAGES, Operation.OTHER, inner, model_call=False)
        return None
    return Route(family, Operation.OTHER, inner, model_call=False)


def _call(method: str, path: str, headers: Mapping[str, str]) -> Route | None:
    """The provider's call this is, if it is one; `path` has no prefix."""
    found = _FIXED.get((method, path))
    if found is not None:
        # A socket begins as a GET; without its Upgrade it is no call of any provider.
        return found if not found.websocket or headers.get("Upgrade", "").lower() == "websocket" else None
    if ("/." in path or "\\" in path or "%" in path or path[:1] == ".") and _DOTS.search(path):
        return None
    for wanted, pattern, dialect, operation in _CALLS:
        if wanted in ("*", method) and pattern.fullmatch(path):
            return Route(dialect, operation, path)
    return None


def _strip_prefix(path: str) -> tuple[Provider | None, str]:
    slash = path.find("/", 1)
    forced = _FORCED.get(path if slash < 0 else path[:slash])
    if forced is None:
        return None, path
    return forced, (path[slash:] if slash > 0 else "/")


def _family(path: str, headers: Mapping[str, str]) -> Dialect | None:
    for prefix, dialect in _FAMILIES:
        if path.startswith(prefix):
            if prefix == "/v1/" and headers.get("Anthropic-Version"):
                return Dialect.MESSAGES
            return dialect
    return None
