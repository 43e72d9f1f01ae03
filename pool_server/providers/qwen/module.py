"""Qwen: OAuth accounts of the portal and DashScope API keys. Source: the open source of the vendor's CLI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

import msgspec

from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpAnswer, HttpRequest, UpstreamRequest, WindowObservation
from pool_server.core.origins import registrable
from pool_server.core.settings import Settings
from pool_server.language import lazy
from pool_server.providers import keys
from pool_server.providers.base import PromptCache, ProviderModule, ProviderSpec, Refreshed, RefreshRejectedError
from pool_server.providers.credential import (
    Credential,
    Fields,
    KeyAuth,
    google_login,
    lifetime_end,
    model_listed,
    usable_url,
)
from pool_server.providers.keys import KeySpec
from pool_server.providers.keys.operations import DASHSCOPE
from pool_server.providers.oauth import lead_seconds, token_answer
from pool_server.providers.qwen.faults import of_qwen
from pool_server.providers.qwen.own_models import qwen_model
from pool_server.providers.requests import (
    bearer,
    join,
    own_get,
    own_post,
    strip_prefixes,
    upstream_headers,
    versioned,
    without,
)
from pool_server.providers.times import HOUR, MINUTE
from pool_server.providers.windows import rate_windows

CLIENT_ID = "f0304373b74a44d2b584a3fb70ca9e56"  # public, of the vendor's CLI
LEAD = 20 * MINUTE
LIFE_UNKNOWN = 6 * HOUR

# Where the vendor says an account's endpoint is. On aliyuncs.com customers have names too.
_OWN_DOMAINS = ("qwen.ai",)
_OWN_HOST = re.compile(r"(?:[a-z0-9-]+\.)?dashscope(?:-[a-z]+)?\.aliyuncs\.com")

_AUTH_TYPE = ("X-DashScope-AuthType", "qwen-oauth")  # tells the service what kind of token it is given


class Qwen(ProviderModule):
    spec = ProviderSpec(
        Provider.QWEN,
        "Qwen",
        Dialect.CHAT,
        KeySpec(
            ("api_key", "DASHSCOPE_API_KEY"), KeyAuth.BEARER, (Dialect.CHAT,), lambda settings: settings.upstreams.qwen
        ),
        missing="access_token or api_key",
        shipped=("qwen3-coder-plus", "qwen3-coder-flash"),
        owned=("access_token", "refresh_token", "expiry_date", "resource_url"),
        small_model="qwen3-coder-flash",
        cache=PromptCache(0.2, 300.0),  # help.aliyun.com, "Context Cache": implicit, at least 5 minutes
        consent="Qwen ended this sign-in on 2026-04-15; a plan's key or an API key is the way that stays.",
        notice="Qwen ended its free sign-in on 2026-04-15; use an API key or a coding plan's key",
    )

    def sign_in(self, fields: Fields, account: str) -> Credential | None:
        cred = google_login(Provider.QWEN, account, fields)
        if cred is None:
            return None
        resource = fields.url("resource_url", scheme="https")
        return msgspec.structs.replace(cred, resource_url=resource, plan=fields.text("plan_type").lower())

    def sign_in_addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        return (cred.resource_url or settings.upstreams.qwen, settings.token_urls.qwen)

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
        if not cred.can_refresh:
            return None
        form = {"grant_type": "refresh_token", "refresh_token": cred.refresh_token, "client_id": CLIENT_ID}
        return own_post(settings.token_urls.qwen, urlencode(form).encode())

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        data = token_answer(answer, now=now, dead_statuses=frozenset((400, 401)))
        if not data.get("access_token"):
            raise RefreshRejectedError(lazy("the token endpoint answered no token"))
        expires_at = lifetime_end(data.get("expires_in"), now=now, default=LIFE_UNKNOWN)
        fresh = {name: data[name] for name in ("access_token", "refresh_token") if data.get(name)}
        updates = {**fresh, "expiry_date": int(expires_at * 1000)}
        resource, warning = _with_scheme(data.get("resource_url") or "").rstrip("/"), ""
        if resource and resource != cred.resource_url:
            if _vendors_own(resource, cred.resource_url):
                updates["resource_url"] = data["resource_url"]
                fresh["resource_url"] = resource
            else:
                warning = "the refresh answered another host than the provider's as its address; the old one is kept"
        credential = msgspec.structs.replace(cred, expires_at=expires_at, issued_at=now, **fresh)
        return Refreshed(updates, credential, warning)

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh or cred.expires_at is None:
            return None
        return cred.expires_at - lead_seconds(cred.expires_at, cred.issued_at, longest=LEAD, unknown=LEAD)

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        client = without(call.headers, _AUTH_TYPE[0].lower())
        if cred.kind is CredentialKind.API_KEY:
            call = msgspec.structs.replace(call, headers=client)
            return keys.prepare(cred, call, settings.upstreams.qwen)
        url = join(self._base(cred, settings), strip_prefixes(call.path, ("/v1",)), call.query)
        own = [bearer(cred.access_token), _AUTH_TYPE]
        return UpstreamRequest(call.method, url, upstream_headers(client, own))

    def _base(self, cred: Credential, settings: Settings) -> str:
        return versioned(cred.resource_url or settings.upstreams.qwen)

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        return rate_windows(headers, now=now, scope=self.model_family(model))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return of_qwen(status, headers, body, now=now, model=model)

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        if cred.kind is CredentialKind.API_KEY:
            return keys.test_request(cred, settings.upstreams.qwen)
        return own_get(join(self._base(cred, settings), "/models"), bearer(cred.access_token))

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        if model and not qwen_model(model) and not cred.models and not cred.base_url:
            return False  # other vendors' models are served only where the file says so
        if operation not in DASHSCOPE and not cred.base_url:
            return False
        if cred.kind is CredentialKind.API_KEY:
            return keys.serves(cred, operation, dialect, model)
        return dialect is Dialect.CHAT and operation in DASHSCOPE and model_listed(cred, model)


def _vendors_own(resource: str, before: str) -> bool:
    """May the token go to this address from the wire? Over TLS, to the vendor or whoever owns the present address."""
    if not usable_url(resource) or not resource.startswith("https://"):
        return False
    host = urlsplit(resource).hostname or ""
    if any(host == own or host.endswith(f".{own}") for own in _OWN_DOMAINS) or _OWN_HOST.fullmatch(host):
        return True
    return bool(before) and registrable(host) == registrable(urlsplit(before).hostname or "")


def _with_scheme(url: str) -> str:
    return url if not url or "://" in url else f"https://{url}"
