"""What the pool knows of each vendor's wire: credentials, refresh, request preparation, quota, faults. Pure."""

from __future__ import annotations

from pool_server.config import Settings
from pool_server.providers.base import (
    Credits,
    ProviderModule,
    Refreshed,
    RefreshFault,
    SetupDone,
    SetupFault,
    SetupStage,
    SetupStep,
    UsageAnswer,
)
from pool_server.providers.claude import Claude
from pool_server.providers.codex import Codex
from pool_server.providers.credential import Credential, Rejected, fingerprint
from pool_server.providers.faults import network_fault
from pool_server.providers.gemini import Gemini
from pool_server.providers.openai import OpenAI
from pool_server.providers.qwen import Qwen
from pool_server.providers.redact import HIDDEN, redact, short
from pool_server.providers.routing import providers_for
from pool_server.providers.wire import client_headers
from pool_server.records import HttpRequest
from pool_server.words import Provider

_CODEX = Codex()
_MODULES: dict[Provider, ProviderModule] = {
    Provider.CODEX: _CODEX,
    Provider.CLAUDE: Claude(),
    Provider.GEMINI: Gemini(),
    Provider.QWEN: Qwen(),
    Provider.OPENAI: OpenAI(),
}


def provider_module(provider: Provider) -> ProviderModule:
    """The module of one vendor."""
    return _MODULES[provider]


def catalogue_request(cred: Credential, settings: Settings, client_version: str) -> HttpRequest:
    """Codex: the model catalogue as a CLI of `client_version` would get it with this credential."""
    return _CODEX.catalogue_request(cred, settings, client_version)


__all__ = [
    "HIDDEN",
    "Credential",
    "Credits",
    "ProviderModule",
    "RefreshFault",
    "Refreshed",
    "Rejected",
    "SetupDone",
    "SetupFault",
    "SetupStage",
    "SetupStep",
    "UsageAnswer",
    "catalogue_request",
    "client_headers",
    "fingerprint",
    "network_fault",
    "provider_module",
    "providers_for",
    "redact",
    "short",
]
