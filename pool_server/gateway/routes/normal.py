"""One form of a path, however the client's base URL was written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

# No client asks for such a path; followed upstream it would be another call than the one that was let in and counted.
_DOTS = re.compile(r"(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:$|[/\\:]|%2f|%5c)", re.IGNORECASE)
_SLASHES = re.compile(r"/{2,}")
_VERSION = r"/v\d+(?:beta1?|alpha)?"
_DOUBLED = re.compile(rf"(?:{_VERSION})+(?=(?:/upload)?{_VERSION}/)")

# What people paste as a base URL: versions, the endpoints the documentation shows, and what stands behind the host in
# the addresses of other vendors and gateways, where somebody replaced the host alone.
_PASTED = frozenset(
    (
        "v1", "v1beta", "v1beta1", "v1alpha", "api", "upload", "chat", "completions", "responses", "messages",
        "models", "embeddings", "images", "generations", "audio", "speech", "transcriptions", "count_tokens",
        "openai", "backend-api", "codex", "v2", "v3", "v4", "anthropic", "paas", "coding", "apps", "inference",
        "compatible-mode", "google", "proxy",
    )
)  # fmt: skip


# A call of a model behind a base URL of no known form. None of the pages has such a path.
_MODEL_CALLS = {
    "/v1/messages": "/v1/messages",
    "/v1/messages/count_tokens": "/v1/messages",
    "/chat/completions": "/v1/chat/completions",
    "/v1/responses": "/v1/responses",
    ":generateContent": "/v1beta/models",
    ":streamGenerateContent": "/v1beta/models",
}


def climbs(path: str) -> bool:
    """Is there a dot segment in it, also behind percent signs and backslashes?"""
    return ("/." in path or "\\" in path or "%" in path or path[:1] == ".") and _DOTS.search(path) is not None


def normal(path: str) -> str:
    """`path` with single slashes, none at its end, and one version: of `/v1/v1beta/models` the last one counts.
    Only for a path that does not climb."""
    if "//" in path:
        path = _SLASHES.sub("/", path)
    if path[-1:] == "/" and len(path) > 1:
        path = path[:-1]
    if "/models/models/" in path:  # a model named as its resource, put behind the collection once more
        path = path.replace("/models/models/", "/models/", 1)
    doubled = _DOUBLED.match(path)
    return path if doubled is None else path[doubled.end() :]


def tails(path: str) -> Iterator[str]:
    """What may be the call where an endpoint was pasted as the base URL: `path` with one more leading segment taken
    off each time, as long as those are words of a base URL."""
    segments = path.split("/")[1:]
    for at, segment in enumerate(segments[:-1]):
        if segment not in _PASTED:
            return
        yield "/" + "/".join(segments[at + 1 :])


def meant(path: str) -> str:
    """The call that `path` ends with, in whatever way it begins and is spelt; "" where it is none of a model."""
    folded = path.rstrip("/").lower()
    return next((call for end, call in _MODEL_CALLS.items() if folded.endswith(end.lower())), "")
