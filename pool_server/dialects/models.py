"""Model lists in each client's own shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgspec

from pool_server.dialects.types import dumps


class ModelsShape(StrEnum):
    """Whose model list a client asks for."""

    OPENAI = "openai"  # GET /v1/models
    ANTHROPIC = "anthropic"  # GET /v1/models with anthropic-version
    GEMINI = "gemini"  # GET /v1beta/models
    CODEX = "codex"  # GET …/models?client_version=


class ModelInfo(msgspec.Struct, frozen=True):
    """One model the pool serves. `created` is unix seconds, `context` and `max_output` are tokens, 0 = not known.

    `family` is the vendor whose model it is; `translated`: the client's calls of it are translated. `entries` are the
    provider's own catalogue entries as raw JSON, by the shape it gave them in.
    """

    id: str
    owner: str = "pool"
    name: str = ""
    created: int = 0
    context: int = 0
    max_output: int = 0
    family: str = ""
    translated: bool = False
    entries: Mapping[ModelsShape, msgspec.Raw] = {}


def models_shape(path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> ModelsShape:
    """The shape a `GET …/models` asks for; `headers` have lower-case names, `query` the decoded parameters."""
    if "client_version" in query:
        return ModelsShape.CODEX
    if path.startswith(("/v1beta", "/v1alpha")):
        return ModelsShape.GEMINI
    if "anthropic-version" in headers:
        return ModelsShape.ANTHROPIC
    if "x-goog-api-key" in headers or "x-goog-api-client" in headers:
        return ModelsShape.GEMINI
    return ModelsShape.OPENAI


def models_answer(shape: ModelsShape, models: Sequence[ModelInfo]) -> bytes:
    """The body of a model list, one entry an id (the first wins), in the order given.

    Codex takes each model's system prompt from its catalogue entry, so only models with a provider's own entry
    are in its list; where there is none at all, answer 404 instead and Codex uses the catalogue it came with.
    """
    unique: dict[str, ModelInfo] = {}
    for model in models:
        unique.setdefault(model.id, model)
    listed = [entry for model in unique.values() if (entry := model_entry(shape, model)) is not None]
    if shape in (ModelsShape.CODEX, ModelsShape.GEMINI):
        return dumps({"models": listed})
    if shape is ModelsShape.OPENAI:
        return dumps({"object": "list", "data": listed})
    ids = list(unique)
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return dumps({"data": listed, "has_more": False} | ends)


def model_entry(shape: ModelsShape, model: ModelInfo) -> msgspec.Raw | dict[str, Any] | None:
    """One model as the list shows it and as `GET …/models/ID` answers it; None where the shape cannot say it. `family`
    and `translated` are the pool's own words in it; Codex's catalogue is the vendor's to the byte."""
    if shape is ModelsShape.CODEX:
        return model.entries.get(shape)
    marks = {"family": model.family, "translated": model.translated} if model.family else {}
    own: dict[str, Any] | None = msgspec.json.decode(model.entries[shape]) if shape in model.entries else None
    if shape is ModelsShape.ANTHROPIC:
        return _anthropic(model) | (own or {}) | marks
    if own is not None:
        return own | marks
    if shape is ModelsShape.GEMINI:
        return _gemini(model) | marks
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owner} | marks


def _anthropic(model: ModelInfo) -> dict[str, Any]:
    """Every field the API's type demands: what an older or compatible server leaves out of its entry is filled in."""
    made = datetime.fromtimestamp(model.created, UTC).strftime("%FT%TZ")
    named = {"type": "model", "id": model.id, "display_name": model.name or model.id, "created_at": made}
    sizes = {"max_input_tokens": model.context, "max_tokens": model.max_output}
    return {**named, "lifecycle": "active", **{name: size for name, size in sizes.items() if size}}


def _gemini(model: ModelInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": f"models/{model.id}", "displayName": model.name or model.id}
    if model.context:
        entry["inputTokenLimit"] = model.context
    if model.max_output:
        entry["outputTokenLimit"] = model.max_output
    return entry | {"supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"]}


def etag(body: bytes) -> str:
    """A strong ETag header value for an answer."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'
