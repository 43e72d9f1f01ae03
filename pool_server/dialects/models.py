"""Model lists in each client's own shape."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from pool_server.dialects.types import dumps

# Of a model whose vendor has no entry for Codex.
_CODEX_INSTRUCTIONS = """\
You are a coding agent in the Codex CLI, working with its user in a workspace on their machine.

Do what the user asks, to its end, with the tools you are given: look before you change, keep changes small and in \
the style of the code around them, and run what proves them. Read files and search with the shell (`rg` where it is \
there). Leave changes alone that you did not make, and ask before anything that cannot be undone. Instructions in \
AGENTS.md hold for the folder it stands in and all below; what the user says comes first.

Answer briefly, in Markdown, naming files as `path:line`. Say what you did, what you saw, and what is still open."""
_CONTEXT = 128_000  # tokens, where nobody says more
_LAST = 1_000  # behind what the vendor's own entries rank
_OTHER_WORK = re.compile(
    r"embed|whisper|(?:^|[-_/])tts|transcri|speech|realtime|audio|(?:^|-)live(?:-|$)|moderation|dall-e|image|imagen|sora|"
    r"veo|video|lyria|rerank|babbage|davinci|(?:^|[-/])aqa"
)
_BESIDE_TEXT = re.compile(r"audio|(?<!gpt-)image(?!n)")  # what models to talk to have in their names, too


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


class UsableModel(NamedTuple):
    """A model that somebody can be told to ask for in one dialect. `served`: it is served now, by translation or not;
    else `back` is when (unix seconds), None where nobody knows. `model` "" with `served`: an endpoint serves whose
    models have no known names. `whole_range`: so is all that the dialect's vendor has, and its own client needs no
    model named."""

    model: str = ""
    served: bool = False
    back: float | None = None
    translated: bool = False
    whole_range: bool = False


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

    Codex takes each model's system prompt and tools from its catalogue entry: a model without the vendor's own gets one
    that suits any.
    """
    unique: dict[str, ModelInfo] = {}
    for model in models:
        unique.setdefault(model.id, model)
    listed = [model_entry(shape, model) for model in unique.values()]
    if shape in (ModelsShape.CODEX, ModelsShape.GEMINI):
        return dumps({"models": listed})
    if shape is ModelsShape.OPENAI:
        return dumps({"object": "list", "data": listed})
    ids = list(unique)
    ends = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return dumps({"data": listed, "has_more": False} | ends)


def model_entry(shape: ModelsShape, model: ModelInfo) -> msgspec.Raw | dict[str, Any]:
    """One model as the list shows it and as `GET …/models/ID` answers it. `family` and `translated` are the pool's own
    words in it; an entry of Codex's vendor passes to the byte."""
    if shape is ModelsShape.CODEX and shape in model.entries:
        return model.entries[shape]
    marks = {"family": model.family, "translated": model.translated} if model.family else {}
    own: dict[str, Any] | None = msgspec.json.decode(model.entries[shape]) if shape in model.entries else None
    if shape is ModelsShape.CODEX:
        return _codex(model) | marks
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


def _codex(model: ModelInfo) -> dict[str, Any]:
    """An entry with every field the CLI (0.169) reads a model by; behind the vendor's own in its list."""
    what = f"{model.family or model.owner}, translated by the pool" if model.translated else model.family or model.owner
    efforts = [{"effort": name, "description": name.capitalize()} for name in ("low", "medium", "high")]
    return {
        "slug": model.id,
        "display_name": model.name or model.id,
        "description": what,
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": efforts,
        "shell_type": "unified_exec",
        "visibility": "list",
        "supported_in_api": True,
        "priority": _LAST,
        "upgrade": None,
        "base_instructions": _CODEX_INSTRUCTIONS,
        "supports_reasoning_summaries": True,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": {"mode": "tokens", "limit": 10_000},
        "supports_parallel_tool_calls": True,
        "context_window": model.context or _CONTEXT,
        "experimental_supported_tools": [],
        "minimal_client_version": "0.1.0",
        "prefer_websockets": False,
    }


def converses(model: str, *, media: bool = False) -> bool:
    """Whether a model is one to talk to, as far as its name tells: not one of speech, pictures, vectors … `media`: one
    that answers in sound or pictures, too, counts."""
    name = model.lower()
    return _OTHER_WORK.search(_BESIDE_TEXT.sub("", name) if media else name) is None


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
