"""Any OpenAI-compatible endpoint with an API key."""

from __future__ import annotations

from collections.abc import Mapping

from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpRequest, UpstreamRequest, WindowObservation
from pool_server.core.settings import Settings
from pool_server.providers import keys
from pool_server.providers.base import ProviderModule, ProviderSpec
from pool_server.providers.codex.serving import openai_serves
from pool_server.providers.credential import Credential, KeyAuth
from pool_server.providers.keys import KeySpec
from pool_server.providers.openai.faults import of_key
from pool_server.providers.windows import rate_windows


class OpenAI(ProviderModule):
    spec = ProviderSpec(
        Provider.OPENAI,
        "OpenAI-compatible",
        Dialect.CHAT,
        KeySpec(
            ("api_key", "OPENAI_API_KEY"),
            KeyAuth.BEARER,
            (Dialect.CHAT, Dialect.RESPONSES),
            lambda settings: settings.upstreams.openai,
        ),
        missing="api_key",
        small_model="gpt-5-mini",
        traced_as="openai",
    )

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        return keys.prepare(cred, call, settings.upstreams.openai)

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        return rate_windows(headers, now=now, scope=self.model_family(model))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        return of_key(status, headers, body, now=now, model=model)

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        return keys.test_request(cred, settings.upstreams.openai)

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        return openai_serves(cred, operation, dialect, model)

    def websocket(self, cred: Credential) -> bool:
        return not cred.base_url and Dialect.RESPONSES in cred.dialects
