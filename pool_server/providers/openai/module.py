"""Any OpenAI-compatible endpoint with an API key."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pool_server.core.enums import CredentialKind, Dialect, FaultKind, FaultScope, Operation, Provider
from pool_server.core.models import ClientCall, Fault, HttpRequest, UpstreamRequest, WindowObservation
from pool_server.core.settings import Settings
from pool_server.providers.base import ProviderModule
from pool_server.providers.codex import faults
from pool_server.providers.codex.module import model_listed
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields
from pool_server.providers.requests import (
    bearer,
    join,
    own_get,
    strip_prefixes,
    upstream_headers,
    versioned,
    websocket_url,
)
from pool_server.providers.windows import rate_windows

_OPERATIONS = frozenset((Operation.CHAT, Operation.RESPONSES, Operation.RESPONSES_COMPACT, Operation.OTHER))
_QWEN_NAMES = ("qwen", "qwq", "qvq", "coder-model", "vision-model")


def qwen_model(model: str) -> bool:
    """Is this one of Qwen's own model names? (`vendor/model` names belong to routers of many vendors.)"""
    return model.lower().startswith(_QWEN_NAMES) and "/" not in model


class OpenAI(ProviderModule):
    provider = Provider.OPENAI

    def parse(self, data: object, account: str, *, now: float) -> Credential:
        fields = Fields(data)
        key = fields.token("api_key", "OPENAI_API_KEY")
        if not key:
            raise CredentialRejectedError("no usable credential: api_key is missing")
        return Credential(
            Provider.OPENAI,
            account,
            CredentialKind.API_KEY,
            api_key=key,
            base_url=fields.url("base_url", scheme="https"),
            models=fields.texts("models"),
            plan=fields.text("plan_type").lower() or "api",
        )

    def prepare(self, cred: Credential, upcall: ClientCall, settings: Settings) -> UpstreamRequest:
        url = join(self._base(cred, settings), strip_prefixes(upcall.path, ("/v1",)), upcall.query)
        if upcall.websocket:
            url = websocket_url(url)
        return UpstreamRequest(upcall.method, url, upstream_headers(upcall.headers, [bearer(cred.secret)]))

    def _base(self, cred: Credential, settings: Settings) -> str:
        return versioned(cred.base_url or settings.upstreams.openai)

    def quota_headers(self, headers: Mapping[str, str], *, now: float, model: str) -> list[WindowObservation]:
        return rate_windows(headers, now=now, scope=self.model_family(model))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
        fault = faults.classify(status, headers, body, now=now, model=model)
        if fault.kind is FaultKind.RATE and model:  # a key's rate limits are per model
            windows = tuple(self.quota_headers(headers, now=now, model=model))
            return msgspec.structs.replace(fault, scope=FaultScope.MODEL, model=model, windows=windows)
        return fault

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        return own_get(join(self._base(cred, settings), "/models"), bearer(cred.secret))

    def serves(self, cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
        if dialect not in (Dialect.CHAT, Dialect.RESPONSES) or operation not in _OPERATIONS:
            return False
        if qwen_model(model) and not cred.models and not cred.base_url:
            return False  # api.openai.com has no Qwen models
        return model_listed(cred, model)

    def websocket(self, cred: Credential) -> bool:
        return not cred.base_url
