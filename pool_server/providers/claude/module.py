"""Anthropic: Claude Code sign-ins, setup tokens and API keys. Source: genuine traffic of the vendor's CLI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.enums import ApiFamily, CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpAnswer, HttpRequest, UpstreamRequest, WindowObservation
from pool_server.core.settings import Settings
from pool_server.language import lazy
from pool_server.providers import keys
from pool_server.providers.base import (
    PromptCache,
    ProviderModule,
    ProviderSpec,
    Refreshed,
    RefreshRejectedError,
    UsageAnswer,
)
from pool_server.providers.claude import quota
from pool_server.providers.claude.faults import of_claude
from pool_server.providers.credential import (
    Credential,
    CredentialRejectedError,
    Fields,
    KeyAuth,
    lifetime_end,
    model_listed,
)
from pool_server.providers.json_fields import as_object, as_text, decode
from pool_server.providers.keys import KeySpec
from pool_server.providers.keys.endpoint import ANTHROPIC_VERSION
from pool_server.providers.keys.operations import ANTHROPIC_API
from pool_server.providers.oauth import lead_seconds, token_answer
from pool_server.providers.requests import bearer, join, own_get, own_post, upstream_headers
from pool_server.providers.times import DAY, HOUR, MINUTE
from pool_server.providers.usage_endpoint import usage_object

CLIENT_ID = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"  # public, of the vendor's CLI
SCOPES = "user:profile user:inference user:sessions:claude_code user:mcp_servers user:file_upload"
OAUTH_BETA = "oauth-2025-04-20"

LEAD = HOUR  # tokens live about 8 hours
LEAD_UNKNOWN = 30 * MINUTE
LIFE_UNKNOWN = HOUR
RATE_CAP = 5 * MINUTE  # the token endpoint's own 429 is a wall against clients, not a real rate
USAGE_BACK_OFF = 15 * MINUTE
USAGE_LIMITED = 2 * HOUR  # the usage endpoint stays limited for hours once it is

_REFUSED = frozenset((400, 401))


LOGIN_UNKNOWN = 30 * DAY  # what the vendor's CLI takes for a sign-in whose end it is told in no usable way


class Claude(ProviderModule):
    spec = ProviderSpec(
        Provider.CLAUDE,
        "Claude",
        Dialect.MESSAGES,
        KeySpec(
            ("api_key", "ANTHROPIC_API_KEY"),
            KeyAuth.X_API_KEY,
            (Dialect.MESSAGES,),
            lambda settings: settings.upstreams.claude,
        ),
        missing="claudeAiOauth.accessToken or api_key",
        family=ApiFamily.ANTHROPIC,
        traced_as="anthropic",
        shipped=("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"),
        owned=(
            "claudeAiOauth.accessToken",
            "claudeAiOauth.refreshToken",
            "claudeAiOauth.expiresAt",
            "claudeAiOauth.scopes",
            "claudeAiOauth.refreshTokenExpiresAt",
        ),
        small_model="claude-haiku-4-5",
        cache=PromptCache(0.1, 300.0),  # docs.anthropic.com, "Prompt caching": 5 minutes, each use anew
        consent="Anthropic's terms do not allow it, not even for your own account in another product: the account may "
        "be banned without notice. An API key is the way they allow.",
        usage_least_s=15 * MINUTE,  # it answers 429 for hours when it is asked more often
    )

    def sign_in(self, fields: Fields, account: str) -> Credential | None:
        login = fields.inner("claudeAiOauth")
        access, refresh = (login.token("accessToken"), login.token("refreshToken")) if login is not None else ("", "")
        if login is None or not (access or refresh):
            if fields.token(*self.spec.keys.fields).startswith("sk-ant-oat"):
                raise CredentialRejectedError(
                    lazy("api_key holds an OAuth token; write it as claudeAiOauth.accessToken")
                )
            return None
        return Credential(
            Provider.CLAUDE,
            account,
            CredentialKind.OAUTH if refresh else CredentialKind.SETUP_TOKEN,
            access_token=access,
            refresh_token=refresh,
            expires_at=login.when("expiresAt") if access else 0.0,
            login_ends=login.when("refreshTokenExpiresAt"),
            scopes=login.texts("scopes"),
            plan=fields.text("plan_type").lower() or login.text("subscriptionType").lower(),
            tier=login.text("rateLimitTier"),
            account_id=login.text("organizationUuid"),
            user_id=login.text("accountUuid"),
        )

    def profile_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if self.identity(cred) or self.usage_request(cred, settings) is None:
            return None  # known already, or without the scope that tells it
        return own_get(join(settings.upstreams.claude, "/api/oauth/profile"), *_own_headers(cred))

    def profile_updates(self, cred: Credential, answer: HttpAnswer) -> dict[str, Any]:
        data = decode(answer.body) if answer.status == 200 else {}
        told = {
            "accountUuid": as_text(as_object(data.get("account")).get("uuid")),
            "organizationUuid": as_text(as_object(data.get("organization")).get("uuid")),
        }
        kept = {name: value for name, value in told.items() if value and len(value) <= 100 and value.isprintable()}
        return {"claudeAiOauth": kept} if kept else {}

    def revoke_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if not cred.can_refresh:
            return None
        body = {"token": cred.refresh_token, "token_type_hint": "refresh_token", "client_id": CLIENT_ID}
        return own_post(f"{settings.token_urls.claude.rstrip('/')}/revoke", body)

    def sign_in_addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        return (settings.upstreams.claude, settings.token_urls.claude)

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
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
            raise RefreshRejectedError(lazy("the token endpoint answered no token"))
        expires_at = lifetime_end(data.get("expires_in"), now=now, default=LIFE_UNKNOWN)
        login: dict[str, Any] = {"accessToken": access, "expiresAt": int(expires_at * 1000)}
        refresh = data.get("refresh_token") or cred.refresh_token
        if data.get("refresh_token"):
            login["refreshToken"] = refresh
        scopes = tuple((data.get("scope") or "").split()) or cred.scopes
        if scopes != cred.scopes:
            login["scopes"] = list(scopes)
        ends = cred.login_ends
        if ends is None and data.get("refresh_token_expires_in"):
            ends = lifetime_end(data["refresh_token_expires_in"], now=now, default=LOGIN_UNKNOWN)
            login["refreshTokenExpiresAt"] = int(ends * 1000)
        credential = msgspec.structs.replace(
            cred,
            access_token=access,
            refresh_token=refresh,
            expires_at=expires_at,
            issued_at=now,
            scopes=scopes,
            login_ends=ends,
        )
        return Refreshed({"claudeAiOauth": login}, credential)

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh or cred.expires_at is None:
            return None
        return cred.expires_at - lead_seconds(cred.expires_at, cred.issued_at, longest=LEAD, unknown=LEAD_UNKNOWN)

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        if cred.kind is CredentialKind.API_KEY:
            return keys.prepare(cred, call, settings.upstreams.claude)
        path = call.path if call.path.startswith(("/v1/", "/api/")) else "/v1" + call.path
        url = join(settings.upstreams.claude, path, call.query)
        names = [name.lower() for name, _ in call.headers]
        client = with_beta(call.headers, names, OAUTH_BETA)
        own = [bearer(cred.access_token)]
        if "anthropic-version" not in names:
            own.append(ANTHROPIC_VERSION)
        return UpstreamRequest(call.method, url, upstream_headers(client, own))

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        return quota.from_headers(headers, now=now, scope=self.model_family(model))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return of_claude(status, headers, body, now=now, model=model)

    def usage_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if cred.kind is not CredentialKind.OAUTH or (cred.scopes and "user:profile" not in cred.scopes):
            return None  # the endpoint answers 403 without the profile scope
        return own_get(join(settings.upstreams.claude, "/api/oauth/usage"), *_own_headers(cred))

    def usage_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> UsageAnswer:
        data = usage_object(answer, self.classify, now=now, back_off=USAGE_BACK_OFF, limited_back_off=USAGE_LIMITED)
        return data if isinstance(data, UsageAnswer) else quota.from_usage(data, now=now)

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        if cred.kind is CredentialKind.API_KEY:
            return keys.test_request(cred, settings.upstreams.claude)
        return own_get(join(settings.upstreams.claude, "/v1/models", "limit=1"), *_own_headers(cred))

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        if cred.kind is CredentialKind.API_KEY:
            return keys.serves(cred, operation, dialect, model)
        return dialect is Dialect.MESSAGES and operation in ANTHROPIC_API and model_listed(cred, model)

    def plan_fits(self, cred: Credential, model: str) -> bool:
        return cred.kind is CredentialKind.API_KEY or cred.plan != "free"  # Claude's free plan has no API

    def model_family(self, model: str) -> str:
        return quota.family(model)


def _own_headers(cred: Credential) -> list[tuple[str, str]]:
    """Headers of the pool's own calls with a sign-in."""
    return [bearer(cred.access_token), ANTHROPIC_VERSION, ("anthropic-beta", OAUTH_BETA)]


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
