"""Anthropic: Claude Code sign-ins, setup tokens and API keys. Source: genuine traffic of the vendor's CLI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpAnswer, HttpRequest, UpstreamRequest, WindowObservation
from pool_server.core.settings import Settings
from pool_server.providers.base import ProviderModule, Refreshed, RefreshRejectedError, UsageAnswer
from pool_server.providers.claude import quota
from pool_server.providers.codex.module import model_listed
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields, lifetime_end
from pool_server.providers.oauth import lead_seconds, token_answer
from pool_server.providers.requests import bearer, join, own_get, own_post, upstream_headers
from pool_server.providers.times import HOUR, MINUTE
from pool_server.providers.usage_endpoint import usage_object

CLIENT_ID = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"  # public, of the vendor's CLI
SCOPES = "user:profile user:inference user:sessions:claude_code user:mcp_servers user:file_upload"
OAUTH_BETA = "oauth-2025-04-20"
VERSION = "2023-06-01"

LEAD = HOUR  # tokens live about 8 hours
LEAD_UNKNOWN = 30 * MINUTE
LIFE_UNKNOWN = HOUR
RATE_CAP = 5 * MINUTE  # the token endpoint's own 429 is a wall against clients, not a real rate
USAGE_BACK_OFF = 15 * MINUTE
USAGE_LIMITED = 2 * HOUR  # the usage endpoint stays limited for hours once it is

_REFUSED = frozenset((400, 401))
_OPERATIONS = frozenset((Operation.MESSAGES, Operation.COUNT_TOKENS, Operation.OTHER))


class Claude(ProviderModule):
    provider = Provider.CLAUDE

    def parse(self, data: object, account: str, *, now: float) -> Credential:
        fields = Fields(data)
        plan = fields.text("plan_type").lower()
        login = fields.inner("claudeAiOauth")
        if login is not None:
            access, refresh = login.token("accessToken"), login.token("refreshToken")
            if access or refresh:
                return Credential(
                    Provider.CLAUDE,
                    account,
                    CredentialKind.OAUTH if refresh else CredentialKind.SETUP_TOKEN,
                    access_token=access,
                    refresh_token=refresh,
                    expires_at=login.when("expiresAt") if access else 0.0,
                    scopes=login.texts("scopes"),
                    plan=plan or login.text("subscriptionType").lower(),
                    tier=login.text("rateLimitTier"),
                )
        key = fields.token("api_key", "ANTHROPIC_API_KEY")
        if not key:
            raise CredentialRejectedError("no usable credential: claudeAiOauth.accessToken or api_key is missing")
        if key.startswith("sk-ant-oat"):
            raise CredentialRejectedError("api_key holds an OAuth token; write it as claudeAiOauth.accessToken")
        models = fields.texts("models")
        return Credential(
            Provider.CLAUDE, account, CredentialKind.API_KEY, api_key=key, plan=plan or "api", models=models
        )

    def refresh_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if not cred.can_refresh:
            return None
        body = {
            "client_id": CLIENT_ID,
            "grant_type": "refresh_token",
            "refresh_token": cred.refresh_token,
            "scope": " ".join(cred.scopes) or SCOPES,
        }
        return own_post(settings.token_urls.claude, body)

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        data = token_answer(answer, now=now, dead_statuses=_REFUSED, rate_cap=RATE_CAP)
        access = data.get("access_token")
        if not access:
            raise RefreshRejectedError("the token endpoint answered no token")
        expires_at = lifetime_end(data.get("expires_in"), now=now, default=LIFE_UNKNOWN)
        login: dict[str, Any] = {"accessToken": access, "expiresAt": int(expires_at * 1000)}
        refresh = data.get("refresh_token") or cred.refresh_token
        if data.get("refresh_token"):
            login["refreshToken"] = refresh
        scopes = tuple((data.get("scope") or "").split()) or cred.scopes
        if scopes != cred.scopes:
            login["scopes"] = list(scopes)
        credential = msgspec.structs.replace(
            cred, access_token=access, refresh_token=refresh, expires_at=expires_at, issued_at=now, scopes=scopes
        )
        return Refreshed({"claudeAiOauth": login}, credential)

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh or cred.expires_at is None:
            return None
        return cred.expires_at - lead_seconds(cred.expires_at, cred.issued_at, longest=LEAD, unknown=LEAD_UNKNOWN)

    def prepare(self, cred: Credential, upcall: ClientCall, settings: Settings) -> UpstreamRequest:
        path = upcall.path if upcall.path.startswith(("/v1/", "/api/")) else "/v1" + upcall.path
        url = join(settings.upstreams.claude, path, upcall.query)
        client = upcall.headers
        names = [name.lower() for name, _ in client]
        if cred.kind is not CredentialKind.API_KEY:
            client = with_beta(client, names, OAUTH_BETA)
        own = self._auth(cred)
        if "anthropic-version" not in names:
            own.append(("anthropic-version", VERSION))
        return UpstreamRequest(upcall.method, url, upstream_headers(client, own))

    def _auth(self, cred: Credential) -> list[tuple[str, str]]:
        return [("x-api-key", cred.api_key)] if cred.kind is CredentialKind.API_KEY else [bearer(cred.access_token)]

    def _own(self, cred: Credential) -> list[tuple[str, str]]:
        """Headers of the pool's own calls."""
        headers = [*self._auth(cred), ("anthropic-version", VERSION)]
        return headers if cred.kind is CredentialKind.API_KEY else [*headers, ("anthropic-beta", OAUTH_BETA)]

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        return quota.from_headers(headers, now=now, scope=self.model_family(model))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return quota.classify(status, headers, body, now=now, model=model)

    def usage_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if cred.kind is not CredentialKind.OAUTH or (cred.scopes and "user:profile" not in cred.scopes):
            return None  # the endpoint answers 403 without the profile scope
        return own_get(join(settings.upstreams.claude, "/api/oauth/usage"), *self._own(cred))

    def usage_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> UsageAnswer:
        def classify(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
            return self.classify(status, headers, body, now=now, model="")

        data = usage_object(answer, classify, now=now, back_off=USAGE_BACK_OFF, limited_back_off=USAGE_LIMITED)
        return data if isinstance(data, UsageAnswer) else quota.from_usage(data, now=now)

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        return own_get(join(settings.upstreams.claude, "/v1/models", "limit=1"), *self._own(cred))

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        return dialect is Dialect.MESSAGES and operation in _OPERATIONS and model_listed(cred, model)

    def plan_fits(self, cred: Credential, model: str) -> bool:
        return cred.kind is CredentialKind.API_KEY or cred.plan != "free"  # Claude's free plan has no API

    def model_family(self, model: str) -> str:
        return quota.family(model)


def with_beta(headers: list[tuple[str, str]], names: list[str], flag: str) -> list[tuple[str, str]]:
    """`headers` with `flag` in `anthropic-beta`: once, behind the client's own flags, whose order stays. `names` are
    theirs in lower case."""
    places = [at for at, name in enumerate(names) if name == "anthropic-beta"]
    if any(flag in headers[at][1] and flag in map(str.strip, headers[at][1].split(",")) for at in places):
        return headers
    if not places:
        return [*headers, ("anthropic-beta", flag)]
    last = places[-1]
    name, value = headers[last]
    merged = f"{value},{flag}" if value.strip() else flag
    return [*headers[:last], (name, merged), *headers[last + 1 :]]
