"""What the pool knows of each vendor's wire: credentials, refresh, request preparation, quota, faults. Pure."""

from __future__ import annotations

from pool_server.core.enums import Provider
from pool_server.core.models import HttpRequest
from pool_server.core.settings import Settings
from pool_server.providers import usage_report
from pool_server.providers.base import (
    Credits,
    OnboardingRejectedError,
    ProviderModule,
    ProviderSpec,
    Refreshed,
    RefreshRejectedError,
    SetupDone,
    SetupStage,
    SetupStep,
    UsageAnswer,
)
from pool_server.providers.bedrock.module import Bedrock
from pool_server.providers.claude.module import Claude
from pool_server.providers.codex import sign_in as page_sign_in
from pool_server.providers.codex.module import Codex
from pool_server.providers.codex.sign_in import SignInRefusedError
from pool_server.providers.credential import Credential, CredentialRejectedError, fingerprint
from pool_server.providers.evidence.rules import UNUSABLE, network_fault, unusable_answer
from pool_server.providers.gemini.module import Gemini
from pool_server.providers.keys import base_for, refuse_unnamed
from pool_server.providers.keys.reading import vendor_of
from pool_server.providers.kimi.module import Kimi
from pool_server.providers.minimal import answers as minimal_answers
from pool_server.providers.minimal import requests as minimal_requests
from pool_server.providers.openai.module import OpenAI
from pool_server.providers.presets.data import PRESETS
from pool_server.providers.presets.module import PresetModule
from pool_server.providers.qwen.module import Qwen
from pool_server.providers.redact import HIDDEN, redact, short
from pool_server.providers.requests import client_headers
from pool_server.providers.routing import Knowledge, family_of, has_model, providers_for
from pool_server.providers.shield import Shield
from pool_server.providers.vertex.module import Vertex

_CODEX = Codex()
_MODULES: dict[Provider, ProviderModule] = {
    module.spec.provider: module for module in (_CODEX, Claude(), Gemini(), Qwen(), OpenAI(), Vertex())
}
_MODULES |= {provider: PresetModule(provider, preset) for provider, preset in PRESETS.items()}
_MODULES[Provider.BEDROCK] = Bedrock(Provider.BEDROCK, PRESETS[Provider.BEDROCK])
_MODULES[Provider.KIMI] = Kimi(Provider.KIMI, PRESETS[Provider.KIMI])
SPECS: dict[Provider, ProviderSpec] = {provider: module.spec for provider, module in _MODULES.items()}


def provider_module(provider: Provider) -> ProviderModule:
    """The module of one vendor."""
    return _MODULES[provider]


def catalogue_request(cred: Credential, settings: Settings, client_version: str) -> HttpRequest:
    """Codex: the model catalogue as a CLI of `client_version` would get it with this credential."""
    return _CODEX.catalogue_request(cred, settings, client_version)


__all__ = [
    "HIDDEN",
    "SPECS",
    "UNUSABLE",
    "Credential",
    "CredentialRejectedError",
    "Credits",
    "Knowledge",
    "OnboardingRejectedError",
    "ProviderModule",
    "ProviderSpec",
    "RefreshRejectedError",
    "Refreshed",
    "SetupDone",
    "SetupStage",
    "SetupStep",
    "Shield",
    "SignInRefusedError",
    "UsageAnswer",
    "base_for",
    "catalogue_request",
    "client_headers",
    "family_of",
    "fingerprint",
    "has_model",
    "minimal_answers",
    "minimal_requests",
    "network_fault",
    "page_sign_in",
    "provider_module",
    "providers_for",
    "redact",
    "refuse_unnamed",
    "short",
    "unusable_answer",
    "usage_report",
    "vendor_of",
]
