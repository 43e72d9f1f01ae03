"""A Google service account at Vertex AI. Its files are the JSON that the Google Cloud console makes, with a region.

Source: docs.cloud.google.com/vertex-ai; anthropic-sdk-python `lib/vertex` (the Claude models' path and body).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from pool_server.core.enums import ApiFamily, CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpAnswer, HttpRequest, UpstreamRequest
from pool_server.core.settings import Settings
from pool_server.language import lazy
from pool_server.providers import keys
from pool_server.providers.base import ProviderModule, ProviderSpec, Refreshed
from pool_server.providers.credential import (
    Credential,
    CredentialRejectedError,
    Fields,
    KeyAuth,
    lifetime_end,
    model_listed,
)
from pool_server.providers.keys import KeySpec
from pool_server.providers.keys.reading import refuse_unread
from pool_server.providers.oauth import lead_seconds
from pool_server.providers.presets.data import PLACE_VALUE
from pool_server.providers.requests import bearer, join, own_post, upstream_headers
from pool_server.providers.routing import family_of
from pool_server.providers.times import HOUR, MINUTE
from pool_server.providers.vertex import faults, grant

LEAD = 5 * MINUTE
GLOBAL = "global"
CLAUDE_VERSION = "vertex-2023-10-16"
_AREAS = ("us", "eu")  # several regions at one host
_FIXED = ("api_key", "base_url", "auth", "dialects", "resource")
_PROJECT = re.compile(r"[a-z0-9](?:[a-z0-9.:-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}")
_GOOGLE_PATH = re.compile(r"(?:/v\d[a-z0-9]*)?/models/([^/:]+):(\w+)")
_DATED = re.compile(r"(.+)-(20\d{6})")
_OPERATIONS = {
    Dialect.MESSAGES: (Provider.CLAUDE, (Operation.MESSAGES, Operation.COUNT_TOKENS)),
    Dialect.GEMINI: (Provider.GEMINI, (Operation.GENERATE, Operation.COUNT_TOKENS)),
}


class Vertex(ProviderModule):
    spec = ProviderSpec(
        Provider.VERTEX,
        "Google Vertex AI",
        Dialect.GEMINI,
        KeySpec((), KeyAuth.NONE, (Dialect.GEMINI, Dialect.MESSAGES), lambda settings: host(GLOBAL, settings)),
        missing="a service account (client_email, private_key, project_id)",
        family=ApiFamily.GOOGLE,
        traced_as="gcp.vertex_ai",
        shipped=(
            "gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite",
            "claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5",
        ),
        owned=("access_token", "expiry_date"),
        small_model="gemini-2.5-flash-lite",
        foreign_errors=True,
    )  # fmt: skip

    def parse(self, data: object, account: str, *, now: float) -> Credential:
        fields = Fields(data)
        if fields.text("type") != "service_account":
            other = keys.belongs_to(fields.data, account.partition(":")[2])
            raise CredentialRejectedError(other or keys.missing(self.spec.missing))
        for name in _FIXED:
            if fields.given(name):
                raise CredentialRejectedError(
                    lazy("{name} cannot be given here: a service account goes to Google alone", name=name)
                )
        refuse_unread(fields)
        if fields.text("token_uri") not in ("", grant.AUDIENCE):
            raise CredentialRejectedError(
                lazy("token_uri must be {audience}: its signed assertion goes there", audience=grant.AUDIENCE)
            )
        address = _checked(fields, "client_email", _ADDRESS)
        pem = fields.data.get("private_key")
        if not isinstance(pem, str) or len(pem) > 16_384:
            raise CredentialRejectedError(lazy("private_key must be a text"))
        grant.signing_key(pem)
        access = fields.token("access_token")
        return Credential(
            Provider.VERTEX,
            account,
            CredentialKind.SERVICE_ACCOUNT,
            access_token=access,
            private_key=pem,
            key_id=fields.token("private_key_id"),
            expires_at=fields.when("expiry_date") if access else 0.0,
            project=_checked(fields, "project_id", _PROJECT),
            places=(("region", _checked(fields, "region", PLACE_VALUE, GLOBAL)),),
            models=fields.texts("models"),
            plan=fields.text("plan_type").lower() or "api",
            user_id=address,
        )

    def identity(self, cred: Credential) -> str:
        """Each project and region has quotas of its own."""
        return f"{cred.user_id}/{cred.project}/{_region(cred)}"

    def sign_in_addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        return (host(_region(cred), settings), settings.token_urls.vertex)

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
        return grant.request(cred, settings.token_urls.vertex, now=now) if cred.can_refresh else None

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        token, life = grant.answer(answer, now=now)
        ends = lifetime_end(life, now=now, default=HOUR)
        fresh = msgspec.structs.replace(cred, access_token=token, expires_at=ends, issued_at=now)
        return Refreshed({"access_token": token, "expiry_date": int(ends * 1000)}, fresh)

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh or cred.expires_at is None:
            return None
        return cred.expires_at - lead_seconds(cred.expires_at, cred.issued_at, longest=LEAD, unknown=LEAD)

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        if call.dialect is Dialect.MESSAGES:
            return self._messages(cred, call, settings)
        named = _GOOGLE_PATH.fullmatch(call.path)
        model, method = (named[1], named[2]) if named is not None else (call.model, "generateContent")
        return self._at(cred, call, settings, f"google/models/{model}:{method}")

    def _messages(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        """A Claude model's: named in the path and, but for a count, not in the body."""
        name, patch = claude_name(call.model), {"anthropic_version": CLAUDE_VERSION}
        if call.operation is Operation.COUNT_TOKENS:
            patch["model"] = name
            return self._at(cred, call, settings, "anthropic/models/count-tokens:rawPredict", patch)
        method = "streamRawPredict" if call.stream else "rawPredict"
        path = f"anthropic/models/{quote(name, safe='@')}:{method}"
        return self._at(cred, call, settings, path, patch, ("model",))

    def _at(
        self,
        cred: Credential,
        call: ClientCall,
        settings: Settings,
        publisher: str,
        patch: dict[str, str] | None = None,
        drop: tuple[str, ...] = (),
    ) -> UpstreamRequest:
        path = f"/v1/projects/{cred.project}/locations/{_region(cred)}/publishers/{publisher}"
        url = join(host(_region(cred), settings), path, call.query)
        headers = upstream_headers(call.headers, [bearer(cred.access_token)])
        return UpstreamRequest("POST", url, headers, patch, drop=drop)

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        family, operations = _OPERATIONS.get(dialect, (None, ()))
        known = not model or family_of(model) is family
        return operation in operations and known and model_listed(cred, model)

    def model_family(self, model: str) -> str:
        return model.lower().removeprefix("models/")

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return faults.of_vertex(status, headers, body, now=now, model=model)

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        """A count of tokens: it is paid by nobody."""
        model = self.spec.small_model
        path = f"/v1/projects/{cred.project}/locations/{_region(cred)}/publishers/google/models/{model}:countTokens"
        body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
        return own_post(join(host(_region(cred), settings), path), body, bearer(cred.access_token))

    def models_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        return None


def host(region: str, settings: Settings) -> str:
    """The address of a region, or the one that stands for all of them."""
    if moved := settings.upstreams.presets.get(Provider.VERTEX.value, ""):
        return moved
    if region == GLOBAL:
        return "https://aiplatform.googleapis.com"
    return f"https://aiplatform.{region}.rep.googleapis.com" if region in _AREAS else _regional(region)


def _regional(region: str) -> str:
    return f"https://{region}-aiplatform.googleapis.com"


def claude_name(model: str) -> str:
    """Vertex's name of a Claude model: its date, or "default", stands behind an @.

    >>> claude_name("claude-sonnet-4-5-20250929"), claude_name("anthropic/claude-sonnet-5")
    ('claude-sonnet-4-5@20250929', 'claude-sonnet-5@default')
    """
    name = model.rpartition("/")[2]
    if "@" in name:
        return name
    dated = _DATED.fullmatch(name)
    return f"{dated[1]}@{dated[2]}" if dated is not None else f"{name}@default"


def _region(cred: Credential) -> str:
    return dict(cred.places)["region"]


def _checked(fields: Fields, name: str, form: re.Pattern[str], default: str = "") -> str:
    value = fields.text(name) or default
    if not form.fullmatch(value):
        raise CredentialRejectedError(
            lazy("{name} is not a usable value", name=name) if value else lazy("{name} is missing", name=name)
        )
    return value
