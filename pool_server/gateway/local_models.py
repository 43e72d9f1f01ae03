"""Model lists in the asking client's shape. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pool_server.gateway.local_types import Json, LocalAnswer, answer
from pool_server.words import Provider

_SINCE = "2025-01-01T00:00:00Z"  # the pool does not know when a model came out; the shapes want a date
_SINCE_S = 1_735_689_600

Names = Mapping[Provider, Sequence[str]]


def codex_list(entries: Sequence[Json], etag: str, if_none_match: str) -> LocalAnswer:
    """The Codex catalogue; 304 when the client has it already."""
    if if_none_match and if_none_match in (etag, "*"):
        return LocalAnswer(304, [("ETag", etag)])
    return answer({"models": list(entries)}, 200, ("ETag", etag))


def openai_list(names: Names) -> LocalAnswer:
    return answer({"object": "list", "data": [_openai_row(name, owner) for name, owner in _owned(names)]})


def openai_one(names: Names, wanted: str) -> LocalAnswer | None:
    """One model's row, None when the pool does not serve it."""
    return next((answer(_openai_row(name, owner)) for name, owner in _owned(names) if name == wanted), None)


def anthropic_list(names: Names) -> LocalAnswer:
    rows = [_anthropic_row(name) for name, _ in _owned(names)]
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return answer({"data": rows, "has_more": False, "first_id": first, "last_id": last})


def anthropic_one(names: Names, wanted: str) -> LocalAnswer | None:
    return next((answer(_anthropic_row(name)) for name, _ in _owned(names) if name == wanted), None)


def gemini_list(names: Names) -> LocalAnswer:
    return answer({"models": [_gemini_row(name) for name, _ in _owned(names)]})


def gemini_one(names: Names, wanted: str) -> LocalAnswer | None:
    return next((answer(_gemini_row(name)) for name, _ in _owned(names) if name == wanted), None)


def _owned(names: Names) -> list[tuple[str, Provider]]:
    owned: dict[str, Provider] = {}
    for provider, models in names.items():
        for name in models:
            owned.setdefault(name, provider)
    return list(owned.items())


def _openai_row(name: str, owner: Provider) -> Json:
    return {"id": name, "object": "model", "created": _SINCE_S, "owned_by": owner.value}


def _anthropic_row(name: str) -> Json:
    return {"type": "model", "id": name, "display_name": name, "created_at": _SINCE}


def _gemini_row(name: str) -> Json:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    }
