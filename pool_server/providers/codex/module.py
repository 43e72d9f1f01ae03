"""OpenAI Codex: ChatGPT sign-ins and OpenAI API keys behind the Responses dialect.

Source: the open source of the vendor's CLI.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

import msgspec

from pool_server import __version__
from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
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
from pool_server.providers.codex import quota
from pool_server.providers.codex.faults import of_codex
from pool_server.providers.codex.serving import openai_serves
from pool_server.providers.credential import (
    Credential,
    Fields,
    KeyAuth,
    jwt_claims,
    lifetime_end,
    model_listed,
)
from pool_server.providers.json_fields import as_object
from pool_server.providers.keys import KeySpec
from pool_server.providers.keys.operations import CHATGPT_BACKEND
from pool_server.providers.oauth import lead_seconds, token_answer
from pool_server.providers.requests import (
    bearer,
    join,
    own_get,
    own_post,
    strip_prefixes,
    upstream_headers,
    websocket_url,
)
from pool_server.providers.times import DAY, HOUR, MINUTE, moment, rfc3339
from pool_server.providers.usage_endpoint import usage_object

CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"  # public, of the vendor's CLI
CLAIMS = "https://api.openai.com/auth"
PROFILE = "https://api.openai.com/profile"

LEAD = DAY  # at most half the token's life
LEAD_UNKNOWN = 30 * MINUTE
OLDEST_REFRESH = 8 * DAY  # the vendor's CLI refreshes a login older than this
LIFE_UNKNOWN = HOUR
USAGE_BACK_OFF = 5 * MINUTE
USAGE_LIMITED = 15 * MINUTE

_BACKEND = "/backend-api"
_CODEX_PREFIXES = ("/backend-api/codex", "/v1", "/api/codex")

# (model pattern, plans that have it); a plan that is not known fits. The vendor opens and closes models at will:
# only what was announced for certain plans stands here, everything else is learnt from faults.
_PLANS: tuple[tuple[str, frozenset[str]], ...] = (
    ("*-spark", frozenset(("pro", "prolite", "business", "enterprise", "hc", "enterprise_cbp_usage_based"))),
)


class Codex(ProviderModule):
    spec = ProviderSpec(
        Provider.CODEX,
        "Codex",
        Dialect.RESPONSES,
        KeySpec(
            ("OPENAI_API_KEY", "api_key"),
            KeyAuth.BEARER,
            (Dialect.RESPONSES, Dialect.CHAT),
            lambda settings: settings.upstreams.openai,
        ),
        missing="tokens.access_token or OPENAI_API_KEY",
        shipped=("gpt-5.1-codex", "gpt-5.1-codex-mini", "gpt-5.1"),
        owned=("tokens.id_token", "tokens.access_token", "tokens.refresh_token", "last_refresh"),
        unnamed=True,
        traced_as="openai",
        small_model="gpt-5.1-codex-mini",
        cache=PromptCache(0.1, 600.0, sealed=True),  # platform.openai.com, "Prompt caching": 5 to 10 minutes idle
        page_sign_in=True,
        consent="Own use in other tools is tolerated by OpenAI today; lending the sign-in to friends breaks its "
        "account rule, and OpenAI may close the account.",
    )

    def sign_in(self, fields: Fields, account: str) -> Credential | None:
        tokens = fields.inner("tokens")
        wants_key = fields.text("auth_mode").lower() in ("apikey", "api_key")
        if tokens is None or (wants_key and fields.token(*self.spec.keys.fields)):
            return None
        return _from_tokens(fields, tokens, account)

    def sign_in_addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        return (settings.upstreams.codex, settings.upstreams.chatgpt, settings.token_urls.codex)

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
        if not cred.can_refresh:
            return None
        body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": cred.refresh_token}
        return own_post(settings.token_urls.codex, body)

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        data = token_answer(answer, now=now, dead_statuses=frozenset((401,)))
        fresh = {name: data[name] for name in ("id_token", "access_token", "refresh_token") if data.get(name)}
        if "access_token" not in fresh and "id_token" not in fresh:
            raise RefreshRejectedError(lazy("the token endpoint answered no token"))
        access = fresh.get("access_token", cred.access_token)
        claims = jwt_claims(access)
        expires_at = moment(claims.get("exp"))
        if expires_at is None:
            new = "access_token" in fresh
            expires_at = lifetime_end(data.get("expires_in"), now=now, default=LIFE_UNKNOWN) if new else cred.expires_at
        identity = identity_of(fresh.get("id_token", ""), access)
        credential = msgspec.structs.replace(
            cred,
            access_token=access,
            refresh_token=fresh.get("refresh_token", cred.refresh_token),
            expires_at=expires_at,
            issued_at=moment(claims.get("iat")) or now,
            last_refresh=now,
            plan=identity.plan or cred.plan,
            fedramp=identity.fedramp or cred.fedramp,
        )
        return Refreshed({"tokens": fresh, "last_refresh": rfc3339(now)}, credential)

    def revoke_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if not cred.can_refresh:
            return None
        body = {"token": cred.refresh_token, "token_type_hint": "refresh_token", "client_id": CLIENT_ID}
        return own_post(f"{settings.token_urls.codex.rpartition('/')[0]}/revoke", body)

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh:
            return None
        if cred.expires_at is None:
            return None if cred.last_refresh is None else cred.last_refresh + OLDEST_REFRESH
        issued = cred.issued_at or cred.last_refresh
        return cred.expires_at - lead_seconds(cred.expires_at, issued, longest=LEAD, unknown=LEAD_UNKNOWN)

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        if cred.kind is CredentialKind.API_KEY:
            return keys.prepare(cred, call, settings.upstreams.openai)
        url = _chatgpt_url(call, settings)
        if call.websocket:
            url = websocket_url(url)
        return UpstreamRequest(call.method, url, upstream_headers(call.headers, self._auth(cred)))

    def _auth(self, cred: Credential) -> list[tuple[str, str]]:
        headers = [bearer(cred.access_token)]
        if cred.account_id:
            headers.append(("ChatGPT-Account-ID", cred.account_id))
        if cred.fedramp:
            headers.append(("X-OpenAI-Fedramp", "true"))
        return headers

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        return quota.from_headers(headers, now=now, scope=self.model_family(model) if model else "")

    def quota_event(self, raw: bytes, *, now: float, model: str) -> list[WindowObservation]:
        return quota.from_event(raw, now=now)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return of_codex(status, headers, body, now=now, model=model)

    def usage_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if cred.kind is CredentialKind.API_KEY:
            return None
        return own_get(join(settings.upstreams.chatgpt, "/wham/usage"), *self._auth(cred))

    def usage_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> UsageAnswer:
        data = usage_object(answer, self.classify, now=now, back_off=USAGE_BACK_OFF, limited_back_off=USAGE_LIMITED)
        return data if isinstance(data, UsageAnswer) else quota.from_usage(data, now=now)

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        usage = self.usage_request(cred, settings)
        return usage or keys.test_request(cred, settings.upstreams.openai)

    def catalogue_request(self, cred: Credential, settings: Settings, client_version: str) -> HttpRequest:
        """The model catalogue as the vendor's CLI of `client_version` would get it; an API key has the plain
        list."""
        if cred.kind is CredentialKind.API_KEY:
            return self.test_request(cred, settings)
        version = f"client_version={quote(client_version, safe='')}"
        return own_get(join(settings.upstreams.codex, "/models", version), *self._auth(cred))

    def models_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        return self.catalogue_request(cred, settings, __version__)

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        if cred.kind is CredentialKind.API_KEY:
            return openai_serves(cred, operation, dialect, model)
        return dialect is Dialect.RESPONSES and operation in CHATGPT_BACKEND and model_listed(cred, model)

    def plan_fits(self, cred: Credential, model: str) -> bool:
        if cred.kind is CredentialKind.API_KEY or not cred.plan:
            return True
        return all(cred.plan in plans for pattern, plans in _PLANS if fnmatchcase(model.lower(), pattern))

    def model_family(self, model: str) -> str:
        return quota.family(model)

    def websocket(self, cred: Credential) -> bool:
        return cred.kind is not CredentialKind.API_KEY or (not cred.base_url and Dialect.RESPONSES in cred.dialects)


def _chatgpt_url(call: ClientCall, settings: Settings) -> str:
    path = call.path
    # How the CLI names the backend's calls when its base lacks /backend-api; its model calls keep their names.
    if path.startswith("/api/codex/") and not path.startswith("/api/codex/responses"):
        return join(settings.upstreams.chatgpt, "/wham" + path.removeprefix("/api/codex"), call.query)
    rest = strip_prefixes(path, _CODEX_PREFIXES)
    if rest.startswith(_BACKEND + "/"):
        return join(settings.upstreams.chatgpt, rest.removeprefix(_BACKEND), call.query)
    return join(settings.upstreams.codex, rest, call.query)


class CodexIdentity(msgspec.Struct, frozen=True):
    plan: str = ""
    account_id: str = ""
    user_id: str = ""
    email: str = ""
    fedramp: bool = False


def identity_of(id_token: str, access_token: str) -> CodexIdentity:
    """Who the tokens speak of; the id token first, the access token carries the same claims."""
    plan = account = user = email = ""
    fedramp = False
    for claims in (jwt_claims(id_token), jwt_claims(access_token)):
        auth, profile = as_object(claims.get(CLAIMS)), as_object(claims.get(PROFILE))
        plan = plan or _claim(auth, "chatgpt_plan_type").lower()
        account = account or _claim(auth, "chatgpt_account_id")
        user = user or _claim(auth, "chatgpt_user_id") or _claim(auth, "user_id") or _claim(claims, "sub")
        email = email or _claim(claims, "email") or _claim(profile, "email")
        fedramp = fedramp or auth.get("chatgpt_account_is_fedramp") is True
    return CodexIdentity(plan, account, user, email, fedramp)


def _claim(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) and value.isascii() and value.isprintable() and len(value) <= 256 else ""


def _from_tokens(fields: Fields, tokens: Fields, account: str) -> Credential | None:
    access, refresh = tokens.token("access_token"), tokens.token("refresh_token")
    if not access and not refresh:
        return None
    identity = identity_of(tokens.token("id_token"), access)
    claims = jwt_claims(access)
    last_refresh = fields.when("last_refresh")
    return Credential(
        Provider.CODEX,
        account,
        CredentialKind.OAUTH if refresh else CredentialKind.SETUP_TOKEN,
        access_token=access,
        refresh_token=refresh,
        expires_at=moment(claims.get("exp")) if access else 0.0,
        issued_at=moment(claims.get("iat")),
        last_refresh=last_refresh,
        plan=fields.text("plan_type").lower() or identity.plan,
        account_id=tokens.token("account_id") or identity.account_id,
        user_id=identity.user_id,
        email=identity.email,
        fedramp=identity.fedramp,
    )
