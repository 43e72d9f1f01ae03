"""Whose own endpoint an account's calls go to: what the table of translation tells apart by vendor."""

from __future__ import annotations

import pytest

from pool_server.accounts import vendor_of
from pool_server.core.enums import CredentialKind, Provider
from pool_server.dialects.translation.conformance import VENDORS
from pool_server.providers import Credential

ADDRESSES = {
    "https://api.openai.com/v1": "openai",
    "https://API.OpenAI.com:443/v1/": "openai",
    "https://api.groq.com/openai/v1": "groq",
    "https://api.mistral.ai/v1": "mistral",
    "https://api.openai.com.evil.example/v1": "",
    "https://api.openai.com@evil.example/v1": "",
    "https://evil.example/api.openai.com": "",
    "https://evil.example/?api.groq.com": "",
    "https://openai.com/v1": "",
    "http://127.0.0.1:11434/v1": "",
    "https:///v1": "",
    "api.openai.com": "",
}


def key(provider: Provider, base_url: str = "", kind: CredentialKind = CredentialKind.API_KEY) -> Credential:
    return Credential(provider, f"{provider}:a", kind, api_key="sk-x", base_url=base_url)


@pytest.mark.parametrize(("address", "vendor"), ADDRESSES.items())
def test_an_address_tells_its_vendor_by_its_host_alone(address: str, vendor: str) -> None:
    for provider in (Provider.OPENAI, Provider.CLAUDE, Provider.GROQ):
        assert vendor_of(key(provider, address)) == vendor


@pytest.mark.parametrize("provider", Provider)
def test_without_an_address_it_is_the_provider_s_own(provider: Provider) -> None:
    expected = "openai" if provider in (Provider.OPENAI, Provider.CODEX) else provider.value
    assert vendor_of(key(provider)) == expected
    assert vendor_of(key(provider, kind=CredentialKind.OAUTH)) == expected


def test_every_vendor_the_table_tells_apart_can_be_met() -> None:
    met = {vendor_of(key(provider)) for provider in Provider}
    assert {vendor for vendor, _ in VENDORS} <= met & set(ADDRESSES.values())
