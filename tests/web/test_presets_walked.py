"""Each vendor of presets.toml, one after the other: its account is added with a key by the API, tried, and serves each
of its dialects at that vendor's own paths, with the key shown as that vendor wants it and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from pool_server.core.enums import Dialect, Provider
from pool_server.providers.credential import KeyAuth
from pool_server.providers.presets.data import PRESETS, filled
from tests.loop_thread import LoopbackApp, LoopThread
from tests.web.server import Running, running

BEGINS = {  # how the keys of those begin whose pattern is no plain beginning
    Provider.MINIMAX: "sk-cp-", Provider.FIREWORKS: "fw_", Provider.GITHUB: "ghp_", Provider.DASHSCOPE: "sk-",
}  # fmt: skip
PLACES = {
    Provider.AZURE: {"resource": "ours"},
    Provider.FOUNDRY: {"resource": "ours"},
    Provider.BEDROCK: {"region": "eu-west-1"},
}
WINDOW = {"limit": "100", "used": "25", "resetTime": "2099-01-01T00:00:00Z"}
FIVE_HOURS = {"window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"}, "detail": WINDOW}
TOKENS = {"type": "TOKENS_LIMIT", "unit": 3, "number": 5, "percentage": 25}
REMAINS = {
    "model_name": "general", "current_interval_remaining_percent": "75", "end_time": 4_000_000_000_000,
    "current_weekly_status": 3,
}  # fmt: skip
QUOTAS: dict[str, Any] = {  # as vendors.md has them
    "glm": {"code": 200, "success": True, "data": {"level": "pro", "limits": [TOKENS]}},
    "kimi": {"usage": WINDOW, "limits": [FIVE_HOURS]},
    "minimax": {"base_resp": {"status_code": 0}, "model_remains": [REMAINS]},
    "moonshot": {"data": {"available_balance": 12.5, "voucher_balance": 0, "cash_balance": 12.5}},
    "deepseek": {"is_available": True, "balance_infos": [{"currency": "USD", "total_balance": "12.50"}]},
    "openrouter": {"data": {"label": "x", "limit": 10, "limit_remaining": 7.5, "usage": 2.5}},
    "siliconflow": {"data": {"totalBalance": "12.50", "balance": "12.50", "chargeBalance": "0"}},
}
MODELS = {Provider.AZURE: "gpt-5", Provider.BEDROCK: "anthropic.claude-haiku-4-5"}
ANSWERS: dict[Dialect, dict[str, Any]] = {
    Dialect.CHAT: {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    },
    Dialect.MESSAGES: {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hello"}], "usage": {"input_tokens": 3, "output_tokens": 2},
    },
    Dialect.RESPONSES: {
        "id": "resp_1", "object": "response", "status": "completed", "model": "m", "created_at": 1,
        "output": [{"type": "message", "id": "i", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    },
}  # fmt: skip
OPERATIONS = {Dialect.CHAT: "/chat/completions", Dialect.MESSAGES: "/messages", Dialect.RESPONSES: "/responses"}
SHOWN = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


class FakeKeyVendor:
    """One endpoint for every vendor: `key` is good, shown by the headers `shown`. `calls` are what it saw: method, path
    and the credentials by their headers."""

    def __init__(self) -> None:
        self.key, self.model = "", "a-model"
        self.quota: dict[str, Any] = {}
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self._app = LoopbackApp(self._answer)
        self._thread = LoopThread("fake-key-vendor")

    def __enter__(self) -> FakeKeyVendor:
        self._thread.start()
        self.origin = self._thread.call(self._app.start())
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.call(self._app.close())
        self._thread.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        shown = {name: request.headers[name] for name in SHOWN if name in request.headers}
        self.calls.append((request.method, request.path, shown))
        if self.key and not any(value.removeprefix("Bearer ") == self.key for value in shown.values()):
            error = {"type": "authentication_error", "code": "invalid_api_key", "message": "Incorrect API key provided"}
            return web.json_response({"error": error}, status=401)
        for dialect, end in OPERATIONS.items():
            if request.path.endswith(end):
                return web.json_response(ANSWERS[dialect])
        if request.path.endswith("/models"):
            return web.json_response({"data": [{"id": self.model, "object": "model"}]})
        return web.json_response(self.quota)


@pytest.fixture(scope="module")
def vendor() -> Iterator[FakeKeyVendor]:
    with FakeKeyVendor() as made:
        yield made


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, vendor: FakeKeyVendor) -> Iterator[Running]:
    moved = {one.value: vendor.origin for one in PRESETS}
    with running(tmp_path_factory.mktemp("presets"), [], moved=moved) as made:
        yield made


@pytest.fixture(scope="module")
def friend(pool: Running) -> str:
    return str(pool.ask("POST", "/admin/pool-users", {"name": "Ann"})[1]["key"])


def key_of(provider: Provider) -> str:
    return BEGINS.get(provider, PRESETS[provider].use.key) + "good-0123456789abcdef"


def model_of(provider: Provider) -> str:
    use = PRESETS[provider].use
    if use.test_model or provider in MODELS:
        return use.test_model or MODELS[provider]
    return use.models[0].replace("*", "x") if use.models else "a-model"


def body_of(dialect: Dialect, model: str) -> dict[str, Any]:
    turn = [{"role": "user", "content": "hi"}]
    if dialect is Dialect.RESPONSES:
        return {"model": model, "input": turn}
    return {"model": model, "messages": turn, **({"max_tokens": 8} if dialect is Dialect.MESSAGES else {})}


def shown_as(key: str, auth: KeyAuth) -> dict[str, str]:
    if auth is KeyAuth.NONE:
        return {}
    return {"authorization": f"Bearer {key}"} if auth is KeyAuth.BEARER else {auth.value: key}


@pytest.mark.slow
@pytest.mark.parametrize("provider", PRESETS)
def test_a_vendors_key_is_added_and_serves_each_of_its_dialects(
    pool: Running, vendor: FakeKeyVendor, friend: str, provider: Provider
) -> None:
    preset, name, key = PRESETS[provider], provider.value, key_of(provider)
    vendor.key = "" if preset.use.auth is KeyAuth.NONE else key
    vendor.quota = QUOTAS[preset.quota.reader] if preset.quota else {}
    vendor.model = model = model_of(provider)
    asked: dict[str, Any] = {"preset": name, "name": "walked", **PLACES.get(provider, {})}
    asked |= {"models": [model]} if not preset.use.models else {}
    if vendor.key:
        status, said = pool.ask("POST", "/admin/accounts", {**asked, "api_key": key[:-1] + "!"})
        assert status == 422 and key[:-1] not in str(said), said
        assert not (pool.pool / f"{name}_walked.json").exists(), "a key that is refused is not kept"
    vendor.calls.clear()
    status, made = pool.ask("POST", "/admin/accounts", {**asked, "api_key": key})
    assert status == 201 and made["id"] == f"{name}:walked" and made["test"]["ok"], made
    assert made["test"]["call"] == ("usage" if preset.use.test == "quota" else "request")
    assert vendor.calls and pool.file(f"{name}_walked.json")["api_key"] == key
    row = pool.row(f"{name}:walked")
    assert preset.quota is None or row["windows"], "its quota is read"
    cred = pool.server.accounts._registry.credentials.items[f"{name}:walked"].credential
    for dialect, host in preset.hosts.by_dialect().items():
        vendor.calls.clear()
        path = f"/{name}/v1{OPERATIONS[dialect]}"
        status, said = pool.ask("POST", path, body_of(dialect, model), Authorization=f"Bearer {friend}")
        assert status == 200 and said["usage"], (dialect, said)
        [(_method, seen, shown)] = [one for one in vendor.calls if one[0] == "POST"]
        assert seen == urlsplit(filled(host, cred.places)).path.rstrip("/") + OPERATIONS[dialect], dialect
        assert shown == shown_as(key, preset.auth(dialect)), dialect
    assert pool.ask("DELETE", f"/admin/accounts/{name}:walked")[0] == 200
