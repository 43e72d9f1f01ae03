"""Who may answer what: by dialect, by model, by plan."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect as D
from pool_server.core.enums import Operation as O
from pool_server.core.enums import Provider
from pool_server.core.settings import Settings, Upstreams
from pool_server.providers import Knowledge, catalogue_request, has_model, provider_module, providers_for
from pool_server.providers.keys.operations import (
    ANTHROPIC_API,
    CHATGPT_BACKEND,
    CODE_ASSIST,
    DASHSCOPE,
    GEMINI_API,
    OPENAI_CHAT_API,
    OPENAI_RESPONSES_API,
)
from tests.providers.make import ACCESS, KEY, OWN, SETTINGS, claude_file, codex_file, cred, google_file

CODEX, CLAUDE, GEMINI, QWEN, OPENAI = (Provider(name) for name in ("codex", "claude", "gemini", "qwen", "openai"))


ELSEWHERE = {"base_url": "http://127.0.0.1:4100"}


@pytest.mark.parametrize(
    ("provider", "more", "model", "known"),
    [
        (CODEX, {}, "gpt-6", Knowledge.HAS),
        (OPENAI, {}, "gpt-6", Knowledge.HAS),
        (OPENAI, {}, "claude-opus-4-5", Knowledge.LACKS),
        (OPENAI, {}, "kimi-k2", Knowledge.UNTOLD),
        (OPENAI, ELSEWHERE, "claude-opus-4-5", Knowledge.UNTOLD),
        (OPENAI, ELSEWHERE, "kimi-k2", Knowledge.HAS),
        (OPENAI, {"models": ["kimi-k2"]}, "claude-opus-4-5", Knowledge.HAS),
        (Provider.VERTEX, {}, "claude-opus-4-5", Knowledge.HAS),
        (Provider.VERTEX, {}, "gpt-6", Knowledge.LACKS),
    ],
)
def test_an_account_has_a_model_or_not_or_nobody_can_tell(
    provider: Provider, more: dict[str, Any], model: str, known: Knowledge
) -> None:
    data = {"api_key": KEY, **more} if provider is OPENAI else None
    assert has_model(cred(provider, data), model) is known


@pytest.mark.parametrize(
    ("dialect", "model", "first"),
    [
        (D.RESPONSES, "gpt-6", CODEX),
        (D.MESSAGES, "claude-opus-4-5", CLAUDE),
        (D.GEMINI, "gemini-2.5-pro", GEMINI),
        (D.CHAT, "qwen3-coder-plus", QWEN),
        (D.CHAT, "coder-model", QWEN),
        (D.CHAT, "gpt-6", OPENAI),
        (D.CHAT, "qwen/qwen3-coder", OPENAI),
    ],
)
def test_a_key_of_any_vendors_file_may_answer_the_likelier_first(dialect: D, model: str, first: Provider) -> None:
    asked = providers_for(dialect, O.OTHER, model, None)
    assert asked[0] is first and {*OWN} == {*asked[: len(OWN) - (not model and dialect is D.CHAT)]} | {QWEN}
    assert len(set(asked)) == len(asked)
    for forced in Provider:
        assert providers_for(dialect, O.OTHER, model, forced) == (forced,)


def test_every_dialect_has_a_provider() -> None:
    for dialect in D:
        assert providers_for(dialect, O.OTHER, "m", None)


OPENAI_CALLS = {(o, D.CHAT) for o in OPENAI_CHAT_API} | {(o, D.RESPONSES) for o in OPENAI_RESPONSES_API}


def test_a_call_without_a_model_stays_with_its_vendor() -> None:
    assert QWEN not in providers_for(D.CHAT, O.IMAGES, "", None)
    assert providers_for(D.CHAT, O.FILES, "", QWEN) == (QWEN,)


def serves(provider: Provider, data: object, operation: O, dialect: D, model: str = "") -> bool:
    return provider_module(provider).serves(cred(provider, data), operation, dialect, model)


@pytest.mark.parametrize(
    ("provider", "data", "yes"),
    [
        (CODEX, None, {(o, D.RESPONSES) for o in CHATGPT_BACKEND}),
        (CODEX, {"OPENAI_API_KEY": KEY}, OPENAI_CALLS),
        (CLAUDE, None, {(o, D.MESSAGES) for o in ANTHROPIC_API}),
        (CLAUDE, {"api_key": KEY}, {(o, D.MESSAGES) for o in ANTHROPIC_API}),
        (GEMINI, None, {(o, D.CODE_ASSIST) for o in CODE_ASSIST}),
        (GEMINI, {"api_key": KEY}, {(o, D.GEMINI) for o in GEMINI_API}),
        (QWEN, None, {(o, D.CHAT) for o in DASHSCOPE}),
        (QWEN, {"api_key": KEY}, {(o, D.CHAT) for o in DASHSCOPE}),
        (OPENAI, None, OPENAI_CALLS),
    ],
)
def test_each_serves_its_own_dialect(provider: Provider, data: object, yes: set[tuple[O, D]]) -> None:
    assert {(o, d) for o in O for d in D if serves(provider, data, o, d)} == yes


@pytest.mark.parametrize(
    ("provider", "data", "model", "expected"),
    [
        (OPENAI, {"api_key": KEY}, "gpt-6", True),
        (OPENAI, {"api_key": KEY}, "qwen3-coder-plus", False),
        (OPENAI, {"api_key": KEY, "models": ["qwen*"]}, "qwen3-coder-plus", True),
        (OPENAI, {"api_key": KEY, "models": ["qwen*"]}, "gpt-6", False),
        (OPENAI, {"api_key": KEY, "base_url": "https://x.example"}, "qwen3-coder-plus", True),
        (OPENAI, {"api_key": KEY, "models": ["GPT-6"]}, "gpt-6", True),
        (QWEN, google_file(), "qwen3-coder-plus", True),
        (QWEN, google_file(), "gpt-6", False),
        (QWEN, google_file(models=["deepseek-*"]), "deepseek-v4", True),
        (QWEN, {"api_key": KEY, "base_url": "https://x.example"}, "glm-5", True),
    ],
)
def test_chat_by_model(provider: Provider, data: object, model: str, expected: bool) -> None:
    assert serves(provider, data, O.CHAT, D.CHAT, model) is expected


def test_a_key_limited_to_models_serves_these() -> None:
    limited = {"OPENAI_API_KEY": KEY, "models": ["gpt-6*"]}
    assert serves(CODEX, limited, O.RESPONSES, D.RESPONSES, "gpt-6-mini")
    assert not serves(CODEX, limited, O.RESPONSES, D.RESPONSES, "gpt-5")
    assert serves(CODEX, limited, O.OTHER, D.RESPONSES)
    gemini = {"api_key": KEY, "models": ["gemini-2.5-*"]}
    assert serves(GEMINI, gemini, O.GENERATE, D.GEMINI, "models/gemini-2.5-pro")
    assert not serves(GEMINI, gemini, O.GENERATE, D.GEMINI, "gemini-3-pro")


@pytest.mark.parametrize(
    ("provider", "data", "model", "expected"),
    [
        (CODEX, codex_file(plan_type="pro"), "gpt-5.3-codex-spark", True),
        (CODEX, codex_file(plan_type="plus"), "gpt-5.3-codex-spark", False),
        (CODEX, codex_file(plan_type="plus"), "gpt-6", True),
        (CODEX, {"OPENAI_API_KEY": KEY}, "gpt-5.3-codex-spark", True),
        (CODEX, {"tokens": {"access_token": ACCESS}}, "gpt-5.3-codex-spark", True),
        (CLAUDE, claude_file(subscriptionType="free"), "claude-sonnet-4-5", False),
        (CLAUDE, claude_file(subscriptionType="pro"), "claude-opus-4-5", True),
        (GEMINI, None, "gemini-2.5-pro", True),
        (QWEN, None, "qwen3", True),
        (OPENAI, None, "gpt-6", True),
    ],
)
def test_plan_fits(provider: Provider, data: object, model: str, expected: bool) -> None:
    assert provider_module(provider).plan_fits(cred(provider, data), model) is expected


def test_who_speaks_websocket() -> None:
    compatible = cred(OPENAI, {"api_key": KEY, "base_url": "https://x.example"})
    assert provider_module(OPENAI).websocket(compatible) is False
    found = {p: provider_module(p).websocket(cred(p)) for p in OWN}
    assert found == {CODEX: True, CLAUDE: False, GEMINI: False, QWEN: False, OPENAI: True}


@pytest.mark.parametrize(
    ("provider", "data", "method", "url"),
    [
        (CODEX, None, "GET", "https://chatgpt.com/backend-api/wham/usage"),
        (CODEX, {"OPENAI_API_KEY": KEY}, "GET", "https://api.openai.com/v1/models"),
        (CLAUDE, None, "GET", "https://api.anthropic.com/v1/models?limit=1"),
        (CLAUDE, {"api_key": KEY}, "GET", "https://api.anthropic.com/v1/models?limit=1"),
        (GEMINI, None, "POST", "https://cloudcode-pa.googleapis.com/v1internal:loadCodeAssist"),
        (GEMINI, {"api_key": KEY}, "GET", "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1"),
        (QWEN, None, "GET", "https://portal.qwen.ai/v1/models"),
        (OPENAI, {"api_key": KEY, "base_url": "http://127.0.0.1:9"}, "GET", "http://127.0.0.1:9/v1/models"),
    ],
)
def test_the_smallest_real_call(provider: Provider, data: object, method: str, url: str) -> None:
    found = cred(provider, data)
    request = provider_module(provider).test_request(found, SETTINGS)
    assert (request.method, request.url) == (method, url)
    assert found.secret in json.dumps(request.headers)


def test_the_codex_catalogue() -> None:
    settings = Settings(upstreams=Upstreams(codex="http://127.0.0.1:9/backend-api/codex"))
    request = catalogue_request(cred(CODEX), settings, "0.169.0 &x")
    assert request.url == "http://127.0.0.1:9/backend-api/codex/models?client_version=0.169.0%20%26x"
    assert dict(request.headers)["ChatGPT-Account-ID"] == "acc-1"
    assert catalogue_request(cred(CODEX, key=True), settings, "1").url == "https://api.openai.com/v1/models"
