"""What becomes of a credential file that somebody changes while its token is renewed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.credentials.store import CredentialStore
from pool_server.core.models import HttpAnswer, HttpRequest
from tests.accounts.kit import NOW, Pool, claude, token_answer
from tests.accounts.test_refresh import NEW, OLD, on_disk, pool


def during_a_refresh(p: Pool, change: Callable[[], object], token: str = NEW) -> None:
    """One refresh, with `change` between the question and the answer."""

    async def run() -> None:
        async def slow(_: HttpRequest) -> HttpAnswer:
            changing = change()
            if inspect.isawaitable(changing):
                await changing
            return token_answer(token)

        p.line.answer = slow
        await p.accounts.refresh("claude:a", OLD)

    asyncio.run(run())


@pytest.mark.parametrize("option", [{"priority": 5}, {"disabled": True}, {"models": ["claude-haiku-4-5"]}])
def test_what_a_file_says_anew_during_a_refresh_counts(tmp_path: Path, option: dict[str, Any]) -> None:
    p = pool(tmp_path)
    during_a_refresh(p, lambda: p.write("claude_a.json", claude(OLD, **option)))
    item = p.accounts._registry.credentials.items["claude:a"]
    (name,), (value,) = option.keys(), option.values()
    assert list(item.credential.models) == value if name == "models" else getattr(item.options, name) == value
    assert item.credential.secret == NEW and on_disk(p) == NEW
    assert not p.reload().changed
    account = p.accounts._registry.account("claude:a")
    assert account.options == item.options and account.credential == item.credential


def test_what_another_worker_sets_during_a_refresh_counts(tmp_path: Path) -> None:
    p = pool(tmp_path, workers=2)
    other = p.worker(leader=False)
    during_a_refresh(p, lambda: other.change("claude:a", {"models": ["claude-haiku-4-5"], "priority": 7}))
    other.describe_all()  # follows the others
    for worker in (p.accounts, other):
        item = worker._registry.credentials.items["claude:a"]
        assert (item.credential.models, item.options.priority) == (("claude-haiku-4-5",), 7)
        assert item.credential.secret == NEW


def test_a_sign_in_that_comes_right_after_the_write_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path)
    rotate = CredentialStore.rotate

    def and_then_somebody_signs_in(*said: Any) -> str:
        digest = rotate(*said)
        p.write("claude_a.json", claude("sk-ant-oat01-somebody"))
        return digest

    monkeypatch.setattr(CredentialStore, "rotate", and_then_somebody_signs_in)
    during_a_refresh(p, lambda: None)
    assert p.accounts.credential("claude:a").secret == "sk-ant-oat01-somebody"
    assert not p.reload().changed


def test_the_time_of_issue_that_the_file_does_not_keep_stays(tmp_path: Path) -> None:
    p = pool(tmp_path)
    during_a_refresh(p, lambda: None)
    assert p.accounts.credential("claude:a").issued_at == NOW
