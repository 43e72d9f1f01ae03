"""The calls around the model traffic: answered by the pool, in each client's own shape."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from pool_server.accounts.describe import PooledWindow
from pool_server.core.enums import AccountState, CredentialKind, Denial, Dialect, Provider
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Limits, Settings
from pool_server.gateway.emulation.answers import LocalAnswer, LocalAnswers, LocalRequest
from pool_server.gateway.routes import match
from pool_server.providers import Credential
from pool_server.users import Denied, LimitStanding, Principal

NOW = 1_800_000_000.0
ANN = Principal("u_ann", "Ann", "key-1")
KEYS = {"key-of-ann": ANN, "second-key-of-ann": Principal("u_ann", "Ann", "key-2")}

SPOKEN = {Provider.GEMINI: (Dialect.GEMINI,), Provider.CLAUDE: (Dialect.MESSAGES,), Provider.QWEN: (Dialect.CHAT,)}


class FakeServices:
    """Accounts and users as the local answers see them, and what was sent upstream."""

    def __init__(self) -> None:
        self.credentials: dict[str, Credential] = {}
        self.states: dict[str, str] = {}
        self.windows: dict[Provider, list[PooledWindow]] = {}
        self.sent: list[HttpRequest] = []
        self.answers: dict[str, HttpAnswer] = {}
        self.limits = self
        self.own_limits = Limits()
        self.used: dict[str, float] = {}

    def add(self, ident: str, plan: str = "", kind: CredentialKind = CredentialKind.OAUTH, **fields: Any) -> None:
        provider = Provider(ident.split(":")[0])
        if kind is CredentialKind.API_KEY:
            fields = {"api_key": "sk-x", "dialects": SPOKEN.get(provider, (Dialect.CHAT, Dialect.RESPONSES)), **fields}
        else:
            fields |= {"access_token": f"token-{ident}"}
        self.credentials[ident] = Credential(provider, ident, kind, plan=plan, **fields)
        self.states[ident] = "ready"

    # accounts
    def samples(self, provider: Provider) -> list[tuple[str, AccountState]]:
        return [
            (ident, AccountState(self.states[ident]))
            for ident, cred in self.credentials.items()
            if cred.provider is provider
        ]

    def credential(self, ident: str) -> Credential:
        return self.credentials[ident]

    def bounded(self, ident: str, request: HttpRequest) -> HttpRequest:
        return request

    def models(self) -> dict[Provider, list[str]]:
        declared: dict[Provider, list[str]] = {}
        for cred in self.credentials.values():
            declared.setdefault(cred.provider, []).extend(cred.models)
        return declared

    def glance(self, provider: Provider) -> tuple[float | None, list[PooledWindow]]:
        return None, self.windows.get(provider, [])

    # users
    def authenticate(self, token: str | None) -> Principal | Denied:
        return KEYS.get(token or "", Denied(Denial.BAD_KEY, "no", 401))

    def of_caller(self, user: str, key: str) -> list[LimitStanding]:
        return [LimitStanding(self.own_limits, self.used, dict.fromkeys(self.used, NOW + 60))]

    def allowed(self, user: str, key: str) -> list[Limits]:
        return [self.own_limits]

    async def send(self, request: HttpRequest) -> HttpAnswer:
        self.sent.append(request)
        token = dict(request.headers).get("Authorization", "").removeprefix("Bearer ")
        return self.answers.get(token, HttpAnswer(0, {}, error="no answer in time"))


class Desk:
    """The local answers with their fakes and a clock that stands still."""

    def __init__(self, services: FakeServices, **settings: Any) -> None:
        self.services = services
        self.now = NOW
        fakes: Any = services
        self.local = LocalAnswers(
            Settings(**settings),
            accounts=fakes,
            users=fakes,
            ledger=fakes,
            send=services.send,
            clock=lambda: self.now,
        )

    async def ask(
        self, method: str, path: str, body: Any = None, *, principal: Principal | None = ANN, **headers: str
    ) -> LocalAnswer:
        path, _, query = path.partition("?")
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        route = match(method, path, HTTPHeaders(sent))
        assert route is not None
        return await self.local.answer(
            LocalRequest(
                method,
                route.path,
                query,
                sent,
                body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode(),
                principal,
                route.forced,
                "http://127.0.0.1:8989",
                route.dialect,
            )
        )


def ask(
    method: str, path: str, body: Any = None, *, services: FakeServices | None = None, **more: Any
) -> tuple[int, Any]:
    found = asyncio.run(Desk(services or FakeServices()).ask(method, path, body, **more))
    return found.status, json.loads(found.body) if found.body else None


def catalogue(*slugs: str, etag: str = "") -> HttpAnswer:
    rows = [{"slug": slug, "priority": rank, "display_name": slug} for rank, slug in enumerate(slugs)]
    return HttpAnswer(200, {"etag": etag} if etag else {}, json.dumps({"models": rows}).encode())


# ---------------------------------------------------------------- which calls are whose


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/models"),
        ("GET", "/backend-api/codex/models"),
        ("GET", "/v1beta/models"),
        ("GET", "/backend-api/wham/usage"),
        ("GET", "/api/codex/usage"),
        ("GET", "/backend-api/wham/rate-limit-reset-credits"),
        ("GET", "/backend-api/wham/accounts/check"),
        ("GET", "/api/codex/accounts/check"),
        ("GET", "/backend-api/wham/settings/user"),
        ("GET", "/api/codex/settings/user"),
        ("GET", "/backend-api/ps/plugins/installed"),
        ("GET", "/backend-api/ps/plugins/suggested/codex"),
        ("POST", "/backend-api/ps/mcp"),
        ("POST", "/backend-api/codex/analytics-events/events"),
        ("HEAD", "/api/hello"),
        ("HEAD", "/"),
        ("GET", "/api/oauth/profile"),
        ("GET", "/api/oauth/usage"),
        ("GET", "/api/claude_cli/bootstrap"),
        ("POST", "/api/event_logging/v2/batch"),
        ("POST", "/api/eval/sdk-abc"),
        ("POST", "/v1internal:loadCodeAssist"),
        ("POST", "/v1internal:onboardUser"),
        ("POST", "/v1internal:retrieveUserQuota"),
        ("POST", "/v1internal:listExperiments"),
        ("POST", "/v1internal:fetchAdminControls"),
        ("POST", "/v1internal:recordCodeAssistMetrics"),
        ("GET", "/v1internal/operations/pool-server"),
        ("POST", "/oauth/token"),
    ],
)
def test_known_calls_are_handled(method: str, path: str) -> None:
    assert Desk(FakeServices()).local.handles(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/models"), ("GET", "/v1internal:loadCodeAssist"), ("GET", "/v1/nonsense"), ("GET", "/")],
)
def test_other_calls_are_not(method: str, path: str) -> None:
    assert not Desk(FakeServices()).local.handles(method, path)


def test_only_the_handshakes_are_open_to_all() -> None:
    local = Desk(FakeServices()).local
    assert local.open_to_all("POST", "/backend-api/ps/mcp")
    assert local.open_to_all("HEAD", "/") and local.open_to_all("HEAD", "/api/hello")
    assert local.open_to_all("POST", "/oauth/token")
    for path in (
        "/backend-api/wham/usage",
        "/v1/models",
        "/api/oauth/profile",
        "/backend-api/ps/plugins/installed",
    ):
        assert not local.open_to_all("GET", path)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/backend-api/wham/nonsense", "code"),
        ("/backend-api/ps/plugins/nonsense", "code"),
        ("/v1/nonsense", "code"),
        ("/v1beta/nonsense", "status"),
        ("/v1internal:nonsense", "status"),
        ("/claude/nonsense", "type"),
        ("/api/oauth/nonsense", "type"),
    ],
)
def test_unknown_paths_are_404_in_the_dialect(path: str, shape: str) -> None:
    status, body = ask("GET", path)
    assert status == 404 and shape in body["error"]
    assert (body.get("type") == "error") == (shape == "type")


# ---------------------------------------------------------------- Codex


def test_accounts_check_names_the_pool_and_nothing_else() -> None:
    async def run(public_url: str) -> Any:
        desk = Desk(FakeServices(), public_url=public_url)
        found = await desk.ask("GET", "/backend-api/wham/accounts/check", chatgpt_account_id="acct-7")
        return json.loads(found.body)["accounts"]

    (account,) = asyncio.run(run("https://pool.example/x"))
    assert account["id"] == "acct-7" and account["workspace_backend_origin"] == "https://pool.example"
    (account,) = asyncio.run(run(""))
    assert account["workspace_backend_origin"] == "https://127.0.0.1:8989"
    assert ask("GET", "/backend-api/wham/accounts/check")[1] == {"accounts": []}


def test_mcp_shakes_hands_without_a_key() -> None:
    start = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-03-26"}}
    status, body = ask("POST", "/backend-api/ps/mcp", start, principal=None)
    assert status == 200 and body["id"] == 0 and body["result"]["protocolVersion"] == "2025-03-26"
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert ask("POST", "/backend-api/ps/mcp", note) == (202, None)
    listed = ask("POST", "/backend-api/ps/mcp", {"jsonrpc": "2.0", "id": "a", "method": "tools/list"})
    assert listed[1]["result"] == {"tools": []} and listed[1]["id"] == "a"
    assert ask("POST", "/backend-api/ps/mcp", {"id": 1, "method": "tools/call"})[1]["error"]["code"] == -32601
    assert ask("POST", "/backend-api/ps/mcp", [note, {**start, "id": 3}])[1][0]["id"] == 3
    assert ask("POST", "/backend-api/ps/mcp", b"\xff not json")[1]["error"]["code"] == -32600
    assert ask("GET", "/backend-api/ps/mcp")[0] == 405


def test_codex_has_no_plugins_and_no_settings() -> None:
    assert ask("GET", "/backend-api/ps/plugins/installed?limit=200")[1]["plugins"] == []
    assert ask("GET", "/backend-api/ps/plugins/suggested/codex?scope=GLOBAL")[1] == {"enabled": False, "plugins": []}
    assert ask("GET", "/backend-api/wham/settings/user") == (200, {})


def test_reset_credits_cannot_be_spent() -> None:
    assert ask("GET", "/backend-api/wham/rate-limit-reset-credits")[1]["available_count"] == 0
    assert ask("POST", "/backend-api/wham/rate-limit-reset-credits/consume", {})[1]["code"] == "no_credit"


def test_telemetry_is_swallowed() -> None:
    for path in ("/backend-api/codex/analytics-events/events", "/api/event_logging/v2/batch", "/api/eval/sdk-1"):
        assert ask("POST", path, b"\x00" * 1000)[0] == 200


def test_codex_usage_shows_the_tighter_of_own_limit_and_pool() -> None:
    services = FakeServices()
    services.windows[Provider.CODEX] = [
        PooledWindow("5h", 18000, 1, 30.0, NOW + 100),
        PooledWindow("7d", 604800, 1, 55.4, NOW + 900),
    ]
    services.own_limits, services.used = Limits(tokens_5h=1000), {"tokens_5h": 800}
    body = ask("GET", "/backend-api/wham/usage", services=services)[1]["rate_limit"]
    assert body["primary_window"] == {
        "used_percent": 80,
        "limit_window_seconds": 18000,
        "reset_after_seconds": 60,
        "reset_at": int(NOW + 60),
    }
    assert body["secondary_window"]["used_percent"] == 55 and body["allowed"] and not body["limit_reached"]
    services.used = {"tokens_5h": 1000}
    assert ask("GET", "/api/codex/usage", services=services)[1]["rate_limit"]["limit_reached"] is True


def test_usage_of_an_empty_pool_has_no_windows() -> None:
    limit = ask("GET", "/backend-api/wham/usage")[1]["rate_limit"]
    assert limit["primary_window"] is None and limit["secondary_window"] is None
    assert ask("GET", "/api/oauth/usage")[1]["five_hour"] is None


# ---------------------------------------------------------------- token refresh


def test_a_key_refreshes_to_itself_only() -> None:
    body = {"grant_type": "refresh_token", "refresh_token": "key-of-ann"}
    status, tokens = ask("POST", "/oauth/token", body, principal=None)
    assert status == 200 and tokens["access_token"] == tokens["refresh_token"] == "key-of-ann"
    assert ask("POST", "/oauth/token", b"grant_type=refresh_token&refresh_token=key-of-ann", principal=None)[0] == 200


@pytest.mark.parametrize(
    "body", [{}, {"refresh_token": "sk-somebody"}, {"refresh_token": 7}, {"refresh_token": ""}, [], b"\xff", b"{"]
)
def test_nothing_else_refreshes(body: Any) -> None:
    assert ask("POST", "/oauth/token", body, principal=None)[0] == 401


def test_another_key_of_the_same_user_does_not_refresh() -> None:
    assert ask("POST", "/oauth/token", {"refresh_token": "second-key-of-ann"}, principal=ANN)[0] == 401


# ---------------------------------------------------------------- Claude and Google


def test_the_profile_is_the_friends_own() -> None:
    one, other = (
        ask("GET", "/api/oauth/profile")[1],
        ask("GET", "/api/oauth/profile", principal=Principal("b", "B"))[1],
    )
    assert one["account"]["display_name"] == "Ann" and one["account"]["uuid"] != other["account"]["uuid"]
    assert one["organization"] == other["organization"]


def test_claude_usage_is_percent_and_rfc3339() -> None:
    services = FakeServices()
    services.windows[Provider.CLAUDE] = [PooledWindow("5h", 18000, 1, 12.34, 1_800_000_000)]
    body = ask("GET", "/api/oauth/usage", services=services)[1]
    assert body["five_hour"] == {"utilization": 12.3, "resets_at": "2027-01-15T08:00:00+00:00"}
    assert body["seven_day"] is None


def test_code_assist_tells_one_project_throughout() -> None:
    load = ask("POST", "/v1internal:loadCodeAssist", {"cloudaicompanionProject": "mine"})[1]
    assert load["cloudaicompanionProject"] == "pool-server" and load["currentTier"]["id"] == "standard-tier"
    onboard = ask("POST", "/v1internal:onboardUser", {"tierId": "free-tier"})[1]
    assert onboard["done"] and onboard["response"]["cloudaicompanionProject"]["id"] == "pool-server"
    later = ask("GET", f"/v1internal/{onboard['name']}")[1]
    assert later["response"] == onboard["response"]
    assert ask("POST", "/v1internal:listExperiments", {})[1] == {"experimentIds": [], "flags": []}


def test_code_assist_quota_is_the_pools() -> None:
    services = FakeServices()
    services.add("gemini:a")
    services.windows[Provider.GEMINI] = [PooledWindow("1d", 86400, 1, 25.0, 1_800_000_000)]
    buckets = ask("POST", "/v1internal:retrieveUserQuota", {}, services=services)[1]["buckets"]
    assert {"remainingFraction": 0.75, "resetTime": "2027-01-15T08:00:00Z"}.items() <= buckets[0].items()
    assert "gemini-2.5-pro" in {bucket["modelId"] for bucket in buckets}
    assert services.sent == []
