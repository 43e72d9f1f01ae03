"""A pool folder with fake credentials, and settings that lead to the fake providers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from pool_server.core.enums import CredentialKind, Provider
from pool_server.core.settings import Settings, UsagePolling
from pool_server.demo.fake_account import FIVE_HOURS, WEEK, FakeAccount, Window
from pool_server.demo.fake_upstream import FakeUpstream


def account(
    ident: str,
    *,
    kind: CredentialKind = CredentialKind.OAUTH,
    plan: str = "",
    used_5h: float | None = None,
    used_7d: float | None = None,
    life_s: float = 28_800.0,
    now: float | None = None,
    **extra: Any,
) -> FakeAccount:
    """A fake account by its pool id ("claude:work"); `extra` goes into its file (priority, owner, base_url …)."""
    provider, stem = ident.split(":", 1)
    now = time.time() if now is None else now
    windows = {
        seconds: Window(used, now + seconds / 2)
        for seconds, used in ((FIVE_HOURS, used_5h), (WEEK, used_7d))
        if used is not None
    }
    return FakeAccount(
        Provider(provider), stem, now=now, kind=kind, plan=plan, windows=windows, life_s=life_s, extra=extra
    )


def key_account(ident: str, **more: Any) -> FakeAccount:
    """A fake account with an API key."""
    return account(ident, kind=CredentialKind.API_KEY, **more)


def write_pool(folder: Path, accounts: Iterable[FakeAccount]) -> Path:
    """Writes each account's file (0600) into `folder`, which is made; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in accounts:
        one.write(folder)
    return folder


def fake_settings(folder: Path, fakes: FakeUpstream, **changes: Any) -> Settings:
    """Settings with `pool/` and `data/` under `folder` and every upstream at `fakes`; polling is off.

    The fakes must have been started. Other fields are set by name.
    """
    write_pool(folder / "pool", fakes.accounts.values())
    base = Settings(
        listen_addr="127.0.0.1:0",
        pool_dir=str(folder / "pool"),
        data_dir=str(folder / "data"),
        upstreams=fakes.upstreams(),
        token_urls=fakes.token_urls(),
        usage_polling=UsagePolling(interval_s=0),
        gemini_client_id="fake-client-id",
        gemini_client_secret="fake-client-secret",
    )
    return msgspec.structs.replace(base, **changes)
