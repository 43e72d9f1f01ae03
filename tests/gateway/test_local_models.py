"""Model lists: what can be called here, in each client's own shape."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from pool_server.core.enums import CredentialKind, Dialect
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Limits, Models
from tests.gateway.test_local import Desk, FakeServices, ask, catalogue


def test_the_codex_catalogue_is_the_union_of_the_plans() -> None:
    services = FakeServices()
    services.add("codex:a", plan="plus")
    services.add("codex:b", plan="pro")
    services.add("codex:c", plan="pro")
    services.answers = {"token-codex:a": catalogue("one", "two"), "token-codex:b": catalogue("two", "three")}
    status, body = ask("GET", "/backend-api/codex/models?client_version=0.169.0", services=services)
    assert status == 200 and [row["slug"] for row in body["models"]] == ["one", "two", "three"]
    assert len(services.sent) == 2 and all("client_version=0.169.0" in one.url for one in services.sent)


def test_the_codex_catalogue_is_kept_and_survives_a_failing_provider() -> None:
    async def run() -> None:
        services = FakeServices()
        services.add("codex:a", plan="plus")
        services.answers = {"token-codex:a": catalogue("one", etag='"v1"')}
        desk = Desk(services)
        path = "/backend-api/codex/models?client_version=1.0"
        first = await desk.ask("GET", path)
        assert dict(first.headers)["ETag"] == '"v1"'
        assert (await desk.ask("GET", path, if_none_match='"v1"')).status == 304
        assert len(services.sent) == 1
        desk.now += 3600
        services.answers = {}
        stale = await desk.ask("GET", path)
        assert stale.body == first.body
        await asyncio.sleep(0)
        assert len(services.sent) == 2
        assert (await desk.ask("GET", path)).body == first.body
        await asyncio.sleep(0)
        assert len(services.sent) == 2, "a source that failed is left alone for a while"

    asyncio.run(run())


def test_all_vendors_are_asked_for_the_codex_catalogue_at_once() -> None:
    """Codex waits five seconds for all of it."""

    class BothAtOnce(FakeServices):
        async def send(self, request: HttpRequest) -> HttpAnswer:
            found = await super().send(request)
            both.set() if len(self.sent) == 2 else await both.wait()
            return found

    both = asyncio.Event()
    services = BothAtOnce()
    services.add("codex:a", plan="plus")
    services.add("claude:a")
    services.answers = {
        "token-codex:a": catalogue("one"),
        "token-claude:a": HttpAnswer(200, {}, b'{"data":[{"type":"model","id":"claude-next"}]}'),
    }
    _, body = ask("GET", "/backend-api/codex/models?client_version=0.169.0", services=services)
    assert [row["slug"] for row in body["models"]] == ["one", "claude-next"]


def test_without_a_catalogue_codex_gets_an_empty_one_and_uses_its_own() -> None:
    services = FakeServices()
    services.add("codex:a", plan="plus")
    services.add("codex:k", kind=CredentialKind.API_KEY)
    assert ask("GET", "/backend-api/codex/models?client_version=1", services=services) == (200, {"models": []})
    asked = [one for one in services.sent if "/codex/models" in one.url]
    assert len(asked) == 1, "an API key has no such catalogue and is not asked for it"
    assert ask("GET", "/backend-api/codex/models?client_version=1") == (200, {"models": []})


def test_codex_sees_what_it_can_call_behind_its_vendors_own_models() -> None:
    services = FakeServices()
    services.add("codex:a", plan="plus")
    services.add("claude:a")
    services.add("openai:a", kind=CredentialKind.API_KEY, models=("house", "text-embedding-9", "one"))
    services.answers = {
        "token-codex:a": catalogue("one", "two", etag='"v1"'),
        "token-claude:a": HttpAnswer(200, {}, b'{"data":[{"type":"model","id":"claude-next"}]}'),
    }
    path = "/codex/models?client_version=1"
    rows = ask("GET", f"/backend-api{path}", services=services)[1]["models"]
    assert [(row["slug"], row.get("family"), row.get("translated")) for row in rows] == [
        ("one", None, None),
        ("two", None, None),
        ("claude-next", "claude", True),
        ("house", "openai", False),
    ]
    answer = asyncio.run(Desk(services).ask("GET", f"/backend-api{path}", if_none_match='"v1"'))
    assert answer.status == 200 and dict(answer.headers)["ETag"] == '"v1"', "the vendor's ETag says nothing of the rest"


def test_codex_sees_what_there_is_where_no_vendor_of_its_own_is_signed_in() -> None:
    services = FakeServices()
    services.add("claude:a")
    services.answers = {"token-claude:a": HttpAnswer(200, {}, b'{"data":[{"type":"model","id":"claude-next"}]}')}
    rows = ask("GET", "/v1/models?client_version=1", services=services)[1]["models"]
    assert [row["slug"] for row in rows] == ["claude-next"]


def test_accounts_that_are_out_are_not_asked() -> None:
    services = FakeServices()
    services.add("codex:a", plan="plus")
    services.states["codex:a"] = "needs_login"
    assert ask("GET", "/v1/models?client_version=1", services=services) == (200, {"models": []}) and services.sent == []


def mixed() -> FakeServices:
    services = FakeServices()
    services.add("claude:a")
    services.add("openai:a", kind=CredentialKind.API_KEY, models=("local-model",))
    services.answers = {"token-claude:a": HttpAnswer(200, {}, b'{"data":[{"type":"model","id":"claude-next"}]}')}
    return services


def test_models_are_the_union_in_openai_shape() -> None:
    body = ask("GET", "/v1/models", services=mixed())[1]
    assert body["object"] == "list"
    assert {row["id"]: row["owned_by"] for row in body["data"]} == {
        "claude-next": "claude",
        "local-model": "openai",
    }


def test_models_in_anthropic_shape_and_by_prefix() -> None:
    body = ask("GET", "/claude/v1/models?limit=1000", services=mixed(), anthropic_version="2023-06-01")[1]
    assert body["has_more"] is False and body["first_id"] == body["last_id"] == "claude-next"
    assert body["data"][0]["type"] == "model"
    only = ask("GET", "/openai/v1/models", services=mixed())[1]["data"]
    assert [row["id"] for row in only] == ["local-model"]


SHAPES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "openai": ("/v1/models", {}, "data", "id"),
    "anthropic": ("/v1/models", {"anthropic_version": "2023-06-01"}, "data", "id"),
    "gemini": ("/v1beta/models", {"x_goog_api_key": "k"}, "models", "name"),
}


@pytest.mark.parametrize(
    ("shape", "untranslated"),
    [("openai", {"gpt-9", "house"}), ("anthropic", {"claude-next", "house"}), ("gemini", {"gemini-next"})],
)
def test_each_model_tells_its_family_and_whether_it_is_translated(shape: str, untranslated: set[str]) -> None:
    services = FakeServices()
    services.add("claude:a")
    services.add("codex:k", kind=CredentialKind.API_KEY, models=("gpt-9",))
    services.add("gemini:a", kind=CredentialKind.API_KEY, models=("gemini-next",))
    services.add("openai:c", kind=CredentialKind.API_KEY, models=("house",), dialects=(Dialect.CHAT,))
    services.add("openai:m", kind=CredentialKind.API_KEY, models=("house",), dialects=(Dialect.MESSAGES,))
    services.answers = {"token-claude:a": HttpAnswer(200, {}, b'{"data":[{"type":"model","id":"claude-next"}]}')}
    path, headers, listed, ident = SHAPES[shape]
    rows = {
        row[ident].removeprefix("models/"): row for row in ask("GET", path, services=services, **headers)[1][listed]
    }
    families = {"claude-next": "claude", "gpt-9": "codex", "gemini-next": "gemini", "house": "openai"}
    assert {name: row["family"] for name, row in rows.items()} == families
    assert {name for name, row in rows.items() if not row["translated"]} == untranslated
    one = ask("GET", f"{path}/claude-next", services=services, **headers)[1]
    assert (one["family"], one["translated"]) == ("claude", shape != "anthropic")


@pytest.mark.parametrize("shape", SHAPES)
def test_only_models_to_talk_to_are_listed_as_translated(shape: str) -> None:
    """Nobody reaches a model of vectors or speech through another vendor's dialect."""
    own = {"openai": "text-embedding-9", "anthropic": "claude-embed-9", "gemini": "gemini-embedding-9"}
    services = FakeServices()
    services.add("codex:k", kind=CredentialKind.API_KEY, models=("gpt-9", own["openai"], "whisper-9", "gpt-audio-9"))
    services.add("claude:a", kind=CredentialKind.API_KEY, models=("claude-9", own["anthropic"]))
    services.add("gemini:a", kind=CredentialKind.API_KEY, models=("gemini-9", own["gemini"], "gemini-9-tts"))
    path, headers, listed, ident = SHAPES[shape]
    rows = ask("GET", path, services=services, **headers)[1][listed]
    names = {row[ident].removeprefix("models/") for row in rows}
    native = {"openai": {"whisper-9", "gpt-audio-9"}, "anthropic": set(), "gemini": {"gemini-9-tts", "gpt-audio-9"}}
    assert names == {"gpt-9", "claude-9", "gemini-9", own[shape]} | native[shape]
    for other in set(own.values()) - {own[shape]}:
        assert ask("GET", f"{path}/{other}", services=services, **headers)[0] == 404


def test_what_an_endpoint_lists_is_listed_to_clients_of_any_dialect() -> None:
    """An endpoint of somebody's own may have any vendor's model: its own list is the only word on it."""
    services = FakeServices()
    services.add("openai:e", kind=CredentialKind.API_KEY, base_url="https://e.example/v1", dialects=(Dialect.CHAT,))
    services.answers["sk-x"] = HttpAnswer(200, {}, b'{"data":[{"id":"gpt-9"},{"id":"claude-9"},{"id":"house"}]}')
    for version in ({}, {"anthropic_version": "x"}):
        asked = ask("GET", "/v1/models", services=services, **version)[1]["data"]
        assert {row["id"] for row in asked} == {"gpt-9", "claude-9", "house"}


def test_a_users_limits_hold_for_the_lists() -> None:
    services = mixed()
    services.own_limits = Limits(providers=["claude"])
    assert [row["id"] for row in ask("GET", "/v1/models", services=services)[1]["data"]] == ["claude-next"]
    services.own_limits = Limits(models=["Local-*"])
    assert [row["id"] for row in ask("GET", "/v1/models", services=services)[1]["data"]] == ["local-model"]
    assert ask("GET", "/v1/models/claude-next", services=services)[0] == 404


def test_one_model() -> None:
    assert ask("GET", "/v1/models/local-model", services=mixed())[1]["object"] == "model"
    assert ask("GET", "/v1/models/claude-next", services=mixed(), anthropic_version="x")[1]["type"] == "model"
    assert ask("GET", "/v1/models/other", services=mixed())[0] == 404


def test_patterns_are_no_models_but_choose_among_the_endpoints_own() -> None:
    services = mixed()
    services.add("openai:p", kind=CredentialKind.API_KEY, base_url="https://p.example/v1", models=("GLM-*", "kimi-k2"))
    rows = [{"id": name} for name in ("glm-5", "glm-4.5:free", "vendor/qwen3:8b", "kimi-k2")]
    services.answers["sk-x"] = HttpAnswer(200, {}, json.dumps({"data": rows}).encode())
    ids = [row["id"] for row in ask("GET", "/openai/v1/models", services=services)[1]["data"]]
    assert sorted(ids) == ["glm-4.5:free", "glm-5", "kimi-k2", "local-model"]
    services.add("openai:q", kind=CredentialKind.API_KEY, base_url="https://p.example/v1", models=("vendor/*",))
    ids = [row["id"] for row in ask("GET", "/openai/v1/models", services=services)[1]["data"]]
    assert sorted(ids) == ["glm-4.5:free", "glm-5", "kimi-k2", "local-model", "vendor/qwen3:8b"]
    for path in ("vendor/qwen3:8b", "vendor%2Fqwen3%3A8b", "vendor/qwen3%3a8b", "glm-4.5:free"):
        status, body = ask("GET", f"/openai/v1/models/{path}", services=services)
        assert status == 200 and body["id"] in ("vendor/qwen3:8b", "glm-4.5:free")
    status, body = ask("GET", "/openai/v1/models/glm-*", services=services)
    assert status == 404 and "/v1/models lists what does" in body["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1beta/models", "/v1alpha/models"])
def test_googles_clients_get_googles_list(path: str) -> None:
    services = FakeServices()
    services.add("gemini:k", kind=CredentialKind.API_KEY)
    for headers in ({"x_goog_api_key": "k"}, {"x_goog_api_client": "google-genai-sdk/3"}):
        names = [row["name"] for row in ask("GET", path, services=services, **headers)[1]["models"]]
        assert "models/gemini-2.5-pro" in names


def test_codexs_base_url_without_the_cli_is_an_openai_list() -> None:
    body = ask("GET", "/backend-api/codex/models", services=mixed())[1]
    assert body["object"] == "list" and all("id" in row for row in body["data"])


@pytest.mark.parametrize(
    ("path", "headers", "base"),
    [
        ("/v1/nonsense", {}, "http://127.0.0.1:8989/v1 "),
        ("/v1/nonsense", {"anthropic_version": "x"}, "http://127.0.0.1:8989 "),
        ("/v1/nonsense", {"x_goog_api_key": "x"}, "http://127.0.0.1:8989 "),
        ("/v1/messages/nonsense", {}, "http://127.0.0.1:8989 "),
        ("/backend-api/codex/nonsense", {}, "http://127.0.0.1:8989/backend-api/codex "),
        ("/claude/nonsense", {}, "http://127.0.0.1:8989/claude "),
        ("/openai/nonsense", {}, "http://127.0.0.1:8989/openai/v1 "),
        ("/v1beta/nonsense", {}, "http://127.0.0.1:8989 "),
    ],
)
def test_an_unknown_call_is_told_its_base_url(path: str, headers: dict[str, Any], base: str) -> None:
    status, body = ask("GET", path, **headers)
    assert status == 404 and base in body["error"]["message"]


def test_gemini_models_have_a_shipped_fallback() -> None:
    services = FakeServices()
    services.add("gemini:a")
    names = [row["name"] for row in ask("GET", "/v1beta/models", services=services)[1]["models"]]
    assert "models/gemini-2.5-pro" in names
    assert ask("GET", "/v1beta/models/gemini-2.5-pro", services=services)[1]["name"] == "models/gemini-2.5-pro"
    assert ask("GET", "/v1beta/models", services=FakeServices())[1] == {"models": []}


def test_a_provider_that_does_not_answer_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_server.gateway.emulation.catalogue.WAIT_S", 0.02)

    async def run() -> None:
        services = mixed()
        never = asyncio.Event()

        async def hang(request: HttpRequest) -> HttpAnswer:
            await never.wait()
            return HttpAnswer(0, {})

        desk = Desk(services)
        desk.local.catalogue._send = hang
        body = json.loads((await desk.ask("GET", "/v1/models")).body)
        assert "claude-sonnet-4-5" in {row["id"] for row in body["data"]}
        never.set()
        await asyncio.sleep(0.01)

    asyncio.run(run())


def listed(path: str, services: FakeServices, *, translate: bool, **headers: Any) -> set[str]:
    desk = Desk(services, models=Models(translate=translate))
    body = json.loads(asyncio.run(desk.ask("GET", path, **headers)).body)
    return {row.get("id") or row["name"].removeprefix("models/") for row in body.get("data", body.get("models"))}


@pytest.mark.parametrize(
    ("path", "headers", "alone"),
    [
        ("/v1/models", {}, {"local-model"}),
        ("/v1/models", {"anthropic_version": "x"}, {"claude-next"}),
        ("/v1beta/models", {}, {"gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"}),
        ("/claude/v1/models", {}, {"claude-next"}),
    ],
)
def test_a_list_holds_what_its_client_can_call(path: str, headers: dict[str, str], alone: set[str]) -> None:
    services = mixed()
    services.add("gemini:a", kind=CredentialKind.API_KEY, dialects=(Dialect.GEMINI,))
    services.credentials["openai:a"] = msgspec.structs.replace(
        services.credentials["openai:a"], dialects=(Dialect.CHAT,)
    )
    assert listed(path, services, translate=False, **headers) == alone
    every = listed(path, services, translate=True, **headers)
    assert every == alone if path.startswith("/claude") else every > {"local-model", "claude-next"}
