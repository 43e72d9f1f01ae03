"""Presets: every one is whole, goes to its own hosts, and reads its quota; what cannot be honoured rejects the file."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pool_server
from pool_server.core.enums import Dialect, FaultKind, Provider
from pool_server.core.enums import Operation as O
from pool_server.core.origins import origin
from pool_server.core.settings import Settings, Upstreams
from pool_server.providers import SPECS, CredentialRejectedError, provider_module, providers_for
from pool_server.providers.presets import data
from pool_server.providers.presets.data import PRESETS
from pool_server.providers.presets.quota import READERS
from tests.providers.make import KEY, NOW, answered, call, cred, preset_file

ALL = list(PRESETS)
PATHS = {
    Dialect.MESSAGES: ("/v1/messages", O.MESSAGES),
    Dialect.CHAT: ("/v1/chat/completions", O.CHAT),
    Dialect.RESPONSES: ("/v1/responses", O.RESPONSES),
}
PLAIN = Settings()
DOCS = Path(pool_server.__file__).parent.parent / "docs/accounts.md"


@pytest.mark.parametrize("provider", ALL)
def test_every_preset_says_where_its_facts_are_from(provider: Provider) -> None:
    about = PRESETS[provider].about
    assert about.checked >= date(2026, 11, 1) and about.source and about.name
    assert about.local or (about.sign_up.startswith("https://") and "?" not in about.sign_up)  # no referral
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{provider}_"))
    assert about.name in row, "docs/accounts.md lists it by its name"


@pytest.mark.parametrize("provider", ALL)
def test_every_call_goes_to_the_presets_own_address_with_its_key(provider: Provider) -> None:
    preset, module = PRESETS[provider], provider_module(provider)
    found = cred(provider)
    allowed = module.egress(found, PLAIN)
    for dialect, address in preset.hosts.by_dialect().items():
        path, operation = PATHS[dialect]
        model = (preset.use.models or ("m",))[0].replace("*", "x")
        assert module.serves(found, operation, dialect, model)
        request = module.prepare(found, call(path, dialect=dialect), PLAIN)
        whole = data.filled(address, found.places)
        assert request.url == whole + path.removeprefix("/v1") and "{" not in request.url
        assert origin(request.url) in request.egress == allowed
        shown = [name.lower() for name, value in request.headers if KEY in value]
        header = {"bearer": "authorization", "none": None}.get(preset.auth(dialect), preset.auth(dialect).value)
        assert shown == ([header] if header else [])
    for other in set(PATHS) - set(preset.dialects):
        assert not module.serves(found, PATHS[other][1], other, "")
    for request_ in filter(None, (module.test_request(found, PLAIN), module.usage_request(found, PLAIN))):
        assert origin(request_.url) in allowed and "{" not in request_.url
    assert all(host.startswith("https://") or preset.about.local for host in allowed)


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize("field", ["base_url", "auth", "dialects", "baseURL", "OPENAI_BASE_URL", "endpoint"])
def test_a_preset_is_not_hosted_elsewhere(provider: Provider, field: str) -> None:
    with pytest.raises(CredentialRejectedError, match=field):
        cred(provider, preset_file(provider, **{field: "https://evil.example"}))


@pytest.mark.parametrize("provider", ALL)
def test_a_preset_can_be_moved_as_a_whole_by_the_settings(provider: Provider) -> None:
    moved = Settings(upstreams=Upstreams(presets={provider.value: "http://127.0.0.1:9"}))
    module, found = provider_module(provider), cred(provider)
    assert module.egress(found, moved) == {"http://127.0.0.1:9"}
    request = module.prepare(found, call("/v1/x", dialect=PRESETS[provider].dialects[0]), moved)
    assert request.url.startswith("http://127.0.0.1:9/") and origin(request.url) in request.egress


@pytest.mark.parametrize(
    ("provider", "key"),
    [
        (Provider.KIMI, "sk-abcdefghij"), (Provider.OPENROUTER, "sk-kimi-abcdef"), (Provider.GROQ, "sk-abcdefghij"),
        (Provider.ZAI, "sk-ant-api03-abcdef"), (Provider.DASHSCOPE, "sk-sp-abcdefgh"),
        (Provider.ALIBABA, "sk-abcdefghij"), (Provider.MISTRAL, "gsk_abcdefghij"), (Provider.OLLAMA, "sk-or-v1-abcdef"),
    ],
)  # fmt: skip
def test_a_key_of_another_kind_is_told_before_it_is_sent(provider: Provider, key: str) -> None:
    with pytest.raises(CredentialRejectedError, match="key of") as caught:
        cred(provider, preset_file(provider, api_key=key))
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "more", "host"),
    [
        (Provider.MOONSHOT, {}, "api.moonshot.ai"),
        (Provider.MOONSHOT, {"region": "cn"}, "api.moonshot.cn"),
        (Provider.MINIMAX, {"region": "cn"}, "api.minimaxi.com"),
        (Provider.DASHSCOPE, {}, "dashscope-intl.aliyuncs.com"),
        (Provider.DASHSCOPE, {"region": "cn"}, "dashscope.aliyuncs.com"),
        (Provider.BEDROCK, {"region": "eu-central-1"}, "bedrock-runtime.eu-central-1.amazonaws.com"),
        (Provider.AZURE, {"resource": "my-team"}, "my-team.openai.azure.com"),
    ],
)
def test_a_region_or_resource_fills_its_place(provider: Provider, more: dict[str, str], host: str) -> None:
    found = cred(provider, {"api_key": f"sk-{KEY}", **more})
    assert provider_module(provider).egress(found, PLAIN) == {f"https://{host}"}


@pytest.mark.parametrize(
    ("provider", "more", "words"),
    [
        (Provider.MOONSHOT, {"region": "eu"}, "region must be one of ai, cn"),
        (Provider.ZAI, {"region": "cn"}, "region cannot be honoured"),
        (Provider.BEDROCK, {"region": ""}, "region must be given"),
        (Provider.BEDROCK, {"region": "evil.example/x"}, "region must be given"),
        (Provider.BEDROCK, {"region": "us-east-1.evil"}, "region must be given"),
        (Provider.BEDROCK, {"region": "a@b"}, "region must be given"),
        (Provider.BEDROCK, {"region": "-"}, "region must be given"),
        (Provider.AZURE, {"resource": "Evil.example#"}, "resource must be given"),
        (Provider.AZURE, {"resource": 7}, "resource must be a text"),
        (Provider.KIMI, {"resource": "x"}, "resource cannot be honoured"),
    ],
)
def test_a_place_that_cannot_be_honoured_rejects_the_file(provider: Provider, more: dict[str, Any], words: str) -> None:
    with pytest.raises(CredentialRejectedError, match=words):
        cred(provider, preset_file(provider, **more))


@given(st.text(max_size=30))
def test_no_place_leads_away_from_the_vendor(value: str) -> None:
    try:
        found = cred(Provider.BEDROCK, {"api_key": KEY, "region": value})
    except CredentialRejectedError:
        return
    (only,) = provider_module(Provider.BEDROCK).egress(found, PLAIN)
    assert re.fullmatch(r"https://bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com", only)


def test_a_local_server_needs_no_key_and_is_asked_last() -> None:
    found = cred(Provider.OLLAMA, {})
    assert found.secret == "" and found.guessed == PRESETS[Provider.OLLAMA].dialects
    assert cred(Provider.OLLAMA, {"models": ["qwen3*"]}).guessed == ()
    for provider in ALL:
        if not PRESETS[provider].about.local:
            with pytest.raises(CredentialRejectedError, match="api_key is missing"):
                cred(provider, {key: value for key, value in preset_file(provider).items() if key != "api_key"})


def test_models_can_be_narrowed() -> None:
    module = provider_module(Provider.OPENROUTER)
    narrow = cred(Provider.OPENROUTER, preset_file(Provider.OPENROUTER, models=["z-ai/*"]))
    assert module.serves(narrow, O.CHAT, Dialect.CHAT, "z-ai/glm-5.2")
    assert not module.serves(narrow, O.CHAT, Dialect.CHAT, "openai/gpt-5")
    assert not module.serves(cred(Provider.KIMI), O.CHAT, Dialect.CHAT, "gpt-5")


@pytest.mark.parametrize("dialect", list(PATHS))
def test_presets_are_asked_in_the_dialects_they_speak(dialect: Dialect) -> None:
    asked = providers_for(dialect, PATHS[dialect][1], "m", None)
    assert set(ALL) <= set(asked)
    assert not set(providers_for(dialect, O.OTHER, "", None)) & set(ALL)  # a call without a model is its vendor's
    assert providers_for(dialect, O.CHAT, "m", Provider.KIMI) == (Provider.KIMI,)


GLM = {
    "code": 200, "success": True, "data": {"level": "pro", "limits": [
        {"type": "TIME_LIMIT", "unit": 5, "number": 1, "percentage": 90},
        {"type": "CREDIT_LIMIT", "unit": 6, "number": 1, "percentage": 40, "nextResetTime": int((NOW + 86400) * 1000)},
        {"type": "TOKENS_LIMIT", "unit": 3, "number": 5, "percentage": 25},
    ]},
}  # fmt: skip
KIMI = {
    "usage": {"limit": "2048", "remaining": "1834", "resetTime": "2026-09-25T00:00:00.123456789Z"},
    "limits": [{"window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"}, "detail": {"limit": "200", "used": "50"}}],
    "user": {"membership": {"level": "LEVEL_ALLEGRETTO"}},
}
GENERAL: dict[str, Any] = {
    "model_name": "general",
    "current_interval_remaining_percent": "75",
    "end_time": int((NOW + 3600) * 1000),
    "current_weekly_status": 1,
    "current_weekly_remaining_percent": 20,
    "weekly_end_time": int((NOW + 90_000) * 1000),
}
VIDEO = {"model_name": "video", "current_interval_remaining_percent": 1}
USD = [{"currency": "USD", "total_balance": "3.20"}]
CNY = [{"currency": "CNY", "total_balance": "0.00"}]


@pytest.mark.parametrize(
    ("provider", "body", "windows"),
    [
        (Provider.ZAI, GLM, {"5h": 25.0, "7d": 40.0}),
        (Provider.KIMI, KIMI, {"7d": 100 * 214 / 2048, "5h": 25.0}),
        (Provider.MINIMAX, {"data": {"model_remains": [VIDEO, GENERAL]}}, {"5h": 25.0, "7d": 80.0}),
        (Provider.MINIMAX, {"model_remains": [{**GENERAL, "current_weekly_status": 3}]}, {"5h": 25.0}),
        (Provider.DEEPSEEK, {"is_available": True, "balance_infos": USD}, {"credits": 0.0}),
        (Provider.DEEPSEEK, {"is_available": False, "balance_infos": CNY}, {"credits": 100.0}),
        (Provider.MOONSHOT, {"data": {"available_balance": -0.5}}, {"credits": 100.0}),
        (Provider.SILICONFLOW, {"data": {"totalBalance": "12.5"}}, {"credits": 0.0}),
        (Provider.OPENROUTER, {"data": {"limit": 20, "limit_remaining": 5}}, {"credits": 75.0}),
        (Provider.OPENROUTER, {"data": {"limit": None, "usage": 3}}, {}),
    ],
)
def test_a_quota_endpoint_is_read(provider: Provider, body: dict[str, Any], windows: dict[str, float]) -> None:
    answer = provider_module(provider).usage_answer(cred(provider), answered(200, body), now=NOW)
    assert answer.fault is None
    assert {one.window: one.used_percent for one in answer.windows} == pytest.approx(windows)


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        (Provider.ZAI, {"code": 1001, "success": False, "msg": "Authorization Token Missing"}),
        (Provider.MINIMAX, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}),
    ],
)
def test_an_error_in_a_200_is_no_quota(provider: Provider, body: dict[str, Any]) -> None:
    answer = provider_module(provider).usage_answer(cred(provider), answered(200, body), now=NOW)
    assert answer.fault is not None and not answer.windows and answer.retry_at is not None


NAMES = st.sampled_from(
    (
        "data", "limits", "usage", "limit", "remaining", "window", "duration", "timeUnit", "detail", "unit", "number",
        "model_remains", "model_name", "balance_infos", "total_balance", "limit_remaining", "percentage", "type",
    )
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from([one for one in ALL if PRESETS[one].quota]), JSON)
def test_no_answer_of_a_quota_endpoint_breaks_its_reader(provider: Provider, body: object) -> None:
    raw = json.dumps(body).encode()
    answer = provider_module(provider).usage_answer(cred(provider), answered(200, raw), now=NOW)
    for window in answer.windows:
        assert 0 <= window.used_percent <= 1000 and window.seconds >= 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml = = 1", "cannot be read"),
        ("[kimi]\nabout = 1", "cannot be read"),
        ('[kimi]\nabout = {name="K",checked=2026-11-28,source="s",share="team",colour="red"}', "colour"),
    ],
)
def test_a_broken_file_stops_the_start_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        data.read(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "changed", "words"),
    [
        ('hosts = { chat = "https://h/v1" }', 'hosts = { chat = "http://h/v1" }', "is no https address"),
        ('hosts = { chat = "https://h/v1" }', "hosts = {}", "no host"),
        ('hosts = { chat = "https://h/v1" }', 'hosts = { chat = "https://{x}/v1" }', "unknown place x"),
        ('test = "request"', 'test = "quota"', "does not have"),
        ('auth = "bearer"', 'auth = "bearer", key = "("', "no pattern"),
        ('auth = "bearer"', 'auth = "basic"', "cannot be read"),
        ("use", 'quota = { url = "https://h/q", auth = "raw", reader = "none", every_s = 1 }\nuse', "unknown reader"),
        ("use", "regions = { a = \"b\" }\nuse", "regions without"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_preset_is_named(line: str, changed: str, words: str) -> None:
    good = (
        '[kimi]\nabout = { name = "K", checked = 2026-11-28, source = "s", share = "team" }\n'
        'hosts = { chat = "https://h/v1" }\nuse = { auth = "bearer", test = "request" }\n'
    )
    assert list(data.read(good)) == [Provider.KIMI]
    with pytest.raises(ValueError, match=words):
        data.read(good.replace(line, changed, 1))


def test_presets_and_members_are_the_same() -> None:
    assert {*PRESETS} == {one for one, spec in SPECS.items() if spec.preset} and len(SPECS) == len(Provider)
    assert {preset.quota.reader for preset in PRESETS.values() if preset.quota} == READERS.keys()


@pytest.mark.parametrize("provider", ALL)
def test_a_refusal_is_read_as_of_any_compatible_endpoint(provider: Provider) -> None:
    fault = provider_module(provider).classify(401, {}, b'{"error":{"message":"no"}}', now=NOW, model="m")
    assert fault.kind is FaultKind.AUTH
