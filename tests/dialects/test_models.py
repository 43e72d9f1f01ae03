"""Model lists in each client's shape."""

from __future__ import annotations

import json

import anthropic
import msgspec
import pytest

from pool_server.dialects import ModelInfo, ModelsShape, converses, etag, model_entry, models_answer, models_shape

SOL = ModelInfo(
    "gpt-x",
    owner="codex",
    entries={ModelsShape.CODEX: msgspec.Raw(b'{"slug": "gpt-x","base_instructions":"you"}')},
)
OPUS = ModelInfo("claude-x", owner="claude", name="Claude X", created=1_700_000_000, context=200_000, max_output=64_000)
MODELS = [SOL, OPUS, ModelInfo("gpt-x", owner="later")]


@pytest.mark.parametrize(
    ("path", "query", "headers", "shape"),
    [
        ("/v1/models", {}, {}, ModelsShape.OPENAI),
        ("/v1/models", {"limit": "1000"}, {"anthropic-version": "2023-06-01"}, ModelsShape.ANTHROPIC),
        ("/v1beta/models", {}, {}, ModelsShape.GEMINI),
        ("/backend-api/codex/models", {"client_version": "0.169.0"}, {}, ModelsShape.CODEX),
        ("/v1/models", {"client_version": "0.169.0"}, {}, ModelsShape.CODEX),
    ],
)
def test_who_asks(path: str, query: dict[str, str], headers: dict[str, str], shape: ModelsShape) -> None:
    assert models_shape(path, query, headers) is shape


def test_openai() -> None:
    assert json.loads(models_answer(ModelsShape.OPENAI, MODELS)) == {
        "object": "list",
        "data": [
            {"id": "gpt-x", "object": "model", "created": 0, "owned_by": "codex"},
            {"id": "claude-x", "object": "model", "created": 1_700_000_000, "owned_by": "claude"},
        ],
    }


def test_anthropic() -> None:
    answer = json.loads(models_answer(ModelsShape.ANTHROPIC, MODELS))
    assert answer["data"][1] == {
        "type": "model",
        "id": "claude-x",
        "display_name": "Claude X",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("gpt-x", "claude-x", False)
    assert json.loads(models_answer(ModelsShape.ANTHROPIC, []))["first_id"] is None


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"display_name": "Old"},
        {"lifecycle": "deprecated", "deprecated_at": "2026-01-02T03:04:05Z", "line": "opus", "future": [1]},
        {"created_at": "1970-01-01T00:00:00Z", "max_tokens": None},
    ],
)
def test_anthropic_s_entry_has_all_its_type_demands(own: dict[str, object]) -> None:
    """Servers of an older API leave fields out; what the vendor's entry says stands."""
    raw = msgspec.Raw(msgspec.json.encode({"type": "model", "id": "claude-x", **own}))
    for entries in ({ModelsShape.ANTHROPIC: raw}, {}):
        entry = model_entry(ModelsShape.ANTHROPIC, ModelInfo("claude-x", entries=entries))
        assert isinstance(entry, dict) and (own.items() <= entry.items() or not entries)
        anthropic.types.ModelInfo.model_validate(entry)
        anthropic.types.beta.BetaModelInfo.model_validate(entry)


def test_gemini() -> None:
    plain, full = json.loads(models_answer(ModelsShape.GEMINI, MODELS))["models"]
    assert plain["name"] == "models/gpt-x" and "inputTokenLimit" not in plain
    assert (full["displayName"], full["inputTokenLimit"], full["outputTokenLimit"]) == (
        "Claude X",
        200_000,
        64_000,
    )
    assert "streamGenerateContent" in full["supportedGenerationMethods"]


def test_codex_gets_the_providers_own_entries_to_the_byte_and_one_for_every_other_model() -> None:
    translated = msgspec.structs.replace(OPUS, family="claude", translated=True)
    answer = models_answer(ModelsShape.CODEX, [SOL, translated, ModelInfo("gpt-x", owner="later")])
    assert answer.startswith(b'{"models":[{"slug": "gpt-x","base_instructions":"you"},{"slug":"claude-x",')
    _, entry = json.loads(answer)["models"]
    assert (entry["family"], entry["translated"], entry["description"]) == (
        "claude",
        True,
        "claude, translated by the pool",
    )
    assert entry["context_window"] == 200_000 and entry["base_instructions"]


@pytest.mark.parametrize(
    "model", ["gpt-5.5", "claude-opus-5", "gemini-3-pro", "qwen3-coder", "deepseek-chat", "olive-7b"]
)
def test_models_to_talk_to(model: str) -> None:
    assert converses(model)


@pytest.mark.parametrize(
    "model",
    ["text-embedding-3-small", "whisper-1", "tts-1", "gpt-4o-mini-tts", "gpt-realtime", "dall-e-3", "sora-2",
     "gpt-image-1", "gemini-embedding-001", "gemini-2.5-flash-image", "veo-3", "imagen-4", "gemini-live-2.5-flash"],
)  # fmt: skip
def test_models_of_other_work(model: str) -> None:
    assert not converses(model)


@pytest.mark.parametrize("model", ["gpt-audio-2", "gpt-4o-audio-preview", "vendor/gemini-2.5-flash-image", "gpt-5.5"])
def test_models_that_answer_in_sound_or_pictures_too(model: str) -> None:
    assert converses(model, media=True)


@pytest.mark.parametrize("model", ["gpt-image-1", "imagen-4", "gpt-4o-mini-tts", "text-embedding-3-small", "whisper-1"])
def test_models_that_answer_in_sound_or_pictures_alone(model: str) -> None:
    assert not converses(model, media=True)


def test_etags_follow_the_answer() -> None:
    one, two = (models_answer(ModelsShape.OPENAI, models) for models in ([SOL], [OPUS]))
    assert etag(one) == etag(bytes(one)) != etag(two)
    assert etag(one).startswith('"') and etag(one).endswith('"')
