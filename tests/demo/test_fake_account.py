"""Fake accounts are credentials the pool takes, and tell their quota so that the pool reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import CredentialKind, Provider
from pool_server.core.models import HttpAnswer
from pool_server.demo.fake_account import DAY, FIVE_HOURS, WEEK, FakeAccount, Window
from pool_server.providers import SPECS, provider_module

OWN = [provider for provider, spec in SPECS.items() if spec.keys.fields and not spec.preset]
NOW = 1_800_000_000.0


def fake(provider: Provider, kind: CredentialKind = CredentialKind.OAUTH, **more: Any) -> FakeAccount:
    return FakeAccount(provider, "work", now=NOW, kind=kind, **more)


@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        *((provider, CredentialKind.API_KEY) for provider in OWN),
        *((provider, CredentialKind.OAUTH) for provider in OWN if provider is not Provider.OPENAI),
    ],
)
def test_its_file_is_a_credential(provider: Provider, kind: CredentialKind, tmp_path: Path) -> None:
    one = fake(provider, kind)
    path = one.write(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    cred = provider_module(provider).parse(json.loads(path.read_text()), one.id, now=NOW)
    assert cred.kind is kind and cred.secret == one.access
    assert cred.can_refresh == (kind is CredentialKind.OAUTH)


def test_a_setup_token_cannot_be_refreshed() -> None:
    one = fake(Provider.CLAUDE, CredentialKind.SETUP_TOKEN)
    cred = provider_module(Provider.CLAUDE).parse(one.file(), one.id, now=NOW)
    assert cred.kind is CredentialKind.SETUP_TOKEN and not cred.can_refresh


@pytest.mark.parametrize("provider", [Provider.CODEX, Provider.CLAUDE, Provider.GEMINI, Provider.QWEN])
def test_a_refresh_token_works_once(provider: Provider) -> None:
    one = fake(provider)
    module = provider_module(provider)
    cred = module.parse(one.file(), one.id, now=NOW)
    one.revoke()
    old = one.refresh
    answer = HttpAnswer(200, {}, json.dumps(one.renew(old, now=NOW)).encode())
    fresh = module.refresh_answer(cred, answer, now=NOW).credential
    assert fresh.access_token == one.access != cred.access_token
    with pytest.raises(KeyError):
        one.renew("rt-nobody", now=NOW)
    if provider is not Provider.GEMINI:  # Google keeps the refresh token
        with pytest.raises(KeyError):
            one.renew(old, now=NOW)


@pytest.mark.parametrize("provider", [Provider.CODEX, Provider.CLAUDE])
def test_quota_headers_are_read_as_they_were_meant(provider: Provider) -> None:
    windows = {FIVE_HOURS: Window(25, NOW + 600), WEEK: Window(40, NOW + 9000)}
    one = fake(provider, windows=windows)
    seen = provider_module(provider).quota_headers(one.quota_headers(), now=NOW, model="m")
    told = {window.seconds: (window.used_percent, window.resets_at) for window in seen if window.seconds}
    assert told == {FIVE_HOURS: (25, NOW + 600), WEEK: (40, NOW + 9000)}


@pytest.mark.parametrize(("provider", "seconds"), [(Provider.CODEX, WEEK), (Provider.CLAUDE, FIVE_HOURS)])
def test_the_usage_endpoint_says_the_same(provider: Provider, seconds: int) -> None:
    one = fake(provider, windows={seconds: Window(25, NOW + 600)})
    module = provider_module(provider)
    cred = module.parse(one.file(), one.id, now=NOW)
    answer = module.usage_answer(cred, HttpAnswer(200, {}, json.dumps(one.usage(now=NOW)).encode()), now=NOW)
    told = {window.seconds: window.used_percent for window in answer.windows if window.seconds == seconds}
    assert told == {seconds: 25}


def test_spending_fills_windows_by_their_length_and_resets_empty_them() -> None:
    one = fake(Provider.CODEX, windows={FIVE_HOURS: Window(99, NOW + 10), WEEK: Window(50, NOW + DAY)})
    one.spend(10, now=NOW)
    assert one.windows[FIVE_HOURS].used_percent == 100
    assert 50 < one.windows[WEEK].used_percent < 51
    one.spend(10, now=NOW + 11)
    assert one.windows[FIVE_HOURS].used_percent == 10
    assert one.windows[FIVE_HOURS].resets_at == NOW + 11 + FIVE_HOURS
