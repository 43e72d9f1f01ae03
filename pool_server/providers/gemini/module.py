"""Google: Code Assist sign-ins (wrapped dialect) and Gemini API keys (plain dialect)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec

from pool_server.core.enums import ApiFamily, CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpAnswer, HttpRequest, UpstreamRequest
from pool_server.core.settings import Settings
from pool_server.language import lazy
from pool_server.providers import keys
from pool_server.providers.base import (
    ProviderModule,
    ProviderSpec,
    Refreshed,
    RefreshRejectedError,
    SetupDone,
    SetupStep,
    UsageAnswer,
)
from pool_server.providers.credential import (
    Credential,
    Fields,
    KeyAuth,
    google_login,
    jwt_claims,
    lifetime_end,
    model_listed,
)
from pool_server.providers.gemini import faults, onboarding
from pool_server.providers.keys import KeySpec
from pool_server.providers.keys.operations import CODE_ASSIST
from pool_server.providers.oauth import lead_seconds, token_answer
from pool_server.providers.requests import bearer, join, own_post, upstream_headers
from pool_server.providers.times import HOUR, MINUTE
from pool_server.providers.usage_endpoint import usage_object

LEAD = 5 * MINUTE
LIFE_UNKNOWN = HOUR
USAGE_BACK_OFF = 5 * MINUTE
USAGE_LIMITED = 15 * MINUTE

# The methods whose body names the project; the others refuse a field they do not know.
_PROJECT_METHODS = frozenset(("generateContent", "streamGenerateContent", "retrieveUserQuota", "listExperiments"))
_INTERNAL = "/v1internal"


class Gemini(ProviderModule):
    spec = ProviderSpec(
        Provider.GEMINI,
        "Gemini",
        Dialect.GEMINI,
        KeySpec(
            ("api_key", "GEMINI_API_KEY"), KeyAuth.GOOGLE, (Dialect.GEMINI,), lambda settings: settings.upstreams.gemini
        ),
        missing="access_token or api_key",
        family=ApiFamily.GOOGLE,
        traced_as="gcp.gemini",
        models_path="/v1beta/models",
        shipped=("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"),
        owned=("access_token", "expiry_date", "project_id", "tier_id"),
        small_model="gemini-2.5-flash-lite",
        consent="Google does not allow it: the Google account itself may be suspended. An AI Studio or Vertex key is "
        "the way it allows.",
        refresh_needs=("GEMINI_OAUTH_CLIENT_ID", "GEMINI_OAUTH_CLIENT_SECRET"),
        notice="Google ended this sign-in on 2026-06-18 for free accounts, AI Pro and AI Ultra; Code Assist Standard "
        "and Enterprise licences go on",
    )

    def sign_in(self, fields: Fields, account: str) -> Credential | None:
        cred = google_login(Provider.GEMINI, account, fields)
        if cred is None:
            return None
        return msgspec.structs.replace(
            cred,
            project=fields.token("project_id", "project"),
            scopes=fields.texts("scope"),
            plan=fields.text("plan_type").lower() or fields.text("tier_id").lower(),
            email=fields.text("email"),
            user_id=str(jwt_claims(fields.text("id_token")).get("sub") or ""),
        )

    def identity(self, cred: Credential) -> str:
        return cred.user_id  # a Google account has no workspaces

    def sign_in_addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        return (settings.upstreams.code_assist, settings.token_urls.gemini)

    def refreshable(self, cred: Credential, settings: Settings) -> bool:
        return cred.can_refresh and bool(settings.gemini_client_id and settings.gemini_client_secret)

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
        if not self.refreshable(cred, settings):
            return None
        form = {
            "client_id": settings.gemini_client_id,
            "client_secret": settings.gemini_client_secret,
            "grant_type": "refresh_token",
            "refresh_token": cred.refresh_token,
        }
        return own_post(settings.token_urls.gemini, urlencode(form).encode())

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        data = token_answer(answer, now=now, dead_statuses=frozenset())
        if not data.get("access_token"):
            raise RefreshRejectedError(lazy("the token endpoint answered no token"))
        expires_at = lifetime_end(data.get("expires_in"), now=now, default=LIFE_UNKNOWN)
        fresh = {name: data[name] for name in ("access_token", "refresh_token") if data.get(name)}
        updates = {**fresh, "expiry_date": int(expires_at * 1000)}
        if data.get("id_token"):
            updates["id_token"] = data["id_token"]
        return Refreshed(updates, msgspec.structs.replace(cred, expires_at=expires_at, issued_at=now, **fresh))

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh or cred.expires_at is None:
            return None
        return cred.expires_at - lead_seconds(cred.expires_at, cred.issued_at, longest=LEAD, unknown=LEAD)

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        if cred.kind is CredentialKind.API_KEY:
            return keys.prepare(cred, call, settings.upstreams.gemini)
        url = join(settings.upstreams.code_assist, call.path, call.query)
        method = call.path.rpartition(":")[2] if call.path.startswith(_INTERNAL + ":") else ""
        # An empty project is what an account without one sends; the client's belongs to another account.
        patch = {"project": cred.project} if method in _PROJECT_METHODS else None
        return UpstreamRequest(call.method, url, upstream_headers(call.headers, [bearer(cred.access_token)]), patch)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return faults.of_gemini(status, headers, body, now=now, model=model)

    def usage_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if cred.kind is CredentialKind.API_KEY or not cred.project:
            return None
        url = join(settings.upstreams.code_assist, _INTERNAL + ":retrieveUserQuota")
        return own_post(url, {"project": cred.project}, bearer(cred.access_token))

    def usage_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> UsageAnswer:
        data = usage_object(answer, self.classify, now=now, back_off=USAGE_BACK_OFF, limited_back_off=USAGE_LIMITED)
        return data if isinstance(data, UsageAnswer) else faults.from_usage(data, now=now)

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        if cred.kind is CredentialKind.API_KEY:
            return keys.test_request(cred, settings.upstreams.gemini)
        return onboarding.load_request(cred, settings)

    def models_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        return self.test_request(cred, settings) if cred.kind is CredentialKind.API_KEY else None

    def setup_request(self, cred: Credential, settings: Settings) -> SetupStep | None:
        if cred.kind is CredentialKind.API_KEY or cred.project:
            return None
        return SetupStep(onboarding.load_request(cred, settings))

    def setup_answer(
        self, cred: Credential, step: SetupStep, answer: HttpAnswer, settings: Settings, *, now: float
    ) -> SetupStep | SetupDone:
        return onboarding.answer(cred, step, answer, settings, now=now)

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        name = self.model_family(model)
        if cred.kind is CredentialKind.API_KEY:
            return keys.serves(cred, operation, dialect, name)
        return dialect is Dialect.CODE_ASSIST and operation in CODE_ASSIST and model_listed(cred, name)

    def model_family(self, model: str) -> str:
        return model.lower().removeprefix("models/")
