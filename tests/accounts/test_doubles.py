"""One sign-in in two files: its refresh token is shown by one account alone, and the other file says whose it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.credentials.look import doubles
from pool_server.core.enums import CredentialKind, Provider
from pool_server.providers import Credential
from tests.accounts.kit import HOUR, NOW, Line, Pool, claude, key, token_answer

OLD, NEW = "sk-ant-oat01-old11", "sk-ant-oat01-new22"


def accounts(p: Pool) -> list[str]:
    return [row.id for row in p.accounts.describe_all()]


def rejected(p: Pool) -> dict[str, str]:
    return {row["file"]: row["reason"] for row in p.accounts.rejected()}


def google(refresh: str) -> dict[str, Any]:
    return {"access_token": "ya29.x", "refresh_token": refresh, "expiry_date": int((NOW + HOUR) * 1000)}


@pytest.mark.parametrize(
    ("data", "first", "second"),
    [
        (claude(OLD), "claude_work.json", "claude_work-backup.json"),
        (claude(OLD), "claude_work.json", "claude/work (conflicted copy).json"),
        ({"claudeAiOauth": {"accessToken": OLD}}, "claude_a.json", "claude_bb.json"),
        (google("1//rt"), "gemini_a.json", "gemini_old.json"),
        (google("1//rt"), "qwen_a.json", "qwen/copy.json"),
        (
            {"tokens": {"access_token": "a.b.c", "refresh_token": "rt_1"}, "last_refresh": "2026-11-01T00:00:00Z"},
            "work.json",
            "codex_work-old.json",
        ),
    ],
)
def test_a_copy_is_told_whose_it_is(tmp_path: Path, data: dict[str, Any], first: str, second: str) -> None:
    p = Pool(tmp_path, {first: data, second: data})
    assert len(accounts(p)) == 1 and rejected(p) == {second: f"the same sign-in as {first}"}
    (p.folder / first).unlink()
    assert p.reload().rejected == [] and len(accounts(p)) == 1  # then the copy is the account


def test_the_account_that_is_known_keeps_its_sign_in(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"claude_with-a-long-name.json": claude(OLD)})
    p.write("claude_a.json", claude(OLD))
    report = p.reload()
    assert (report.added, report.removed) == ([], []) and accounts(p) == ["claude:with-a-long-name"]
    assert rejected(p) == {"claude_a.json": "the same sign-in as claude_with-a-long-name.json"}


@pytest.mark.parametrize("restart", [False, True])
def test_an_old_copy_stays_one_when_the_token_has_moved_on(tmp_path: Path, restart: bool) -> None:
    line = Line(lambda _: token_answer(NEW))
    p = Pool(tmp_path, {"claude_work.json": claude(OLD), "claude_work-2.json": claude(OLD)}, line=line)
    asyncio.run(p.accounts.refresh("claude:work", OLD))
    assert "new22" in (p.folder / "claude_work.json").read_text()
    if restart:
        p.again()
    p.write("claude_work-2.json", claude(OLD, label="touched"))
    p.reload()
    assert accounts(p) == ["claude:work"] and "claude_work-2.json" in rejected(p)
    assert p.accounts.credential("claude:work").secret == NEW and len(line.sent) == 1


def test_a_new_sign_in_in_the_copy_is_an_account_of_its_own(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"claude_a.json": claude(OLD), "claude_b.json": claude(OLD)})
    p.write("claude_b.json", claude(NEW))
    assert p.reload().added == ["claude:b"] and rejected(p) == {}


def test_one_api_key_in_two_files_is_no_sign_in(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"claude_a.json": key(), "claude_b.json": key(label="for the night")})
    assert len(accounts(p)) == 2 and rejected(p) == {}


@pytest.mark.parametrize(
    ("lives", "apart"),
    [((86_400.0, 86_400.0), True), ((30.0, 30.0), False), ((86_400.0, 30.0), False), ((-1.0, 86_400.0), False)],
)
def test_two_live_tokens_of_one_sign_in_are_both_used_until_one_must_be_refreshed(
    lives: tuple[float, float], apart: bool
) -> None:
    now = 1_790_000_000.0
    files = [
        (
            f"claude:{name}",
            f"claude_{name}.json",
            Credential(
                Provider.CLAUDE,
                f"claude:{name}",
                CredentialKind.OAUTH,
                access_token=f"token-{name}",
                refresh_token="the-same",
                expires_at=now + life,
            ),
        )
        for name, life in zip("ab", lives, strict=True)
    ]
    assert doubles(files, now) == ({} if apart else {"claude:b": "claude_a.json"})
