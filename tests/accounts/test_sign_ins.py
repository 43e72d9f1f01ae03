"""A traded refresh token is remembered: whatever copy of it turns up, it is presented once, by one account."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.credentials import files as files_module
from pool_server.accounts.replication import SPENT, SPENT_S
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import UsagePolling
from tests.accounts.kit import HOUR, NOW, Line, Pool, claude, token_answer

OLD, NEW = "sk-ant-oat01-first", "sk-ant-oat01-second"


def pool(folder: Path, files: dict[str, Any], answer: HttpAnswer | None = None) -> Pool:
    return Pool(folder, files, line=Line(lambda _: answer or token_answer(NEW)), usage_polling=UsagePolling(0))


def accounts(p: Pool) -> list[str]:
    return [row.id for row in p.accounts.describe_all()]


def test_an_older_copy_of_several_rotations_ago(tmp_path: Path) -> None:
    p = pool(tmp_path, {"claude_work.json": claude(OLD)})
    tokens = [OLD, NEW, "sk-ant-oat01-third", "sk-ant-oat01-fourth"]
    for before, after in itertools.pairwise(tokens):
        p.line.answer = lambda _, after=after: token_answer(after)
        asyncio.run(p.accounts.refresh("claude:work", before))
    for number, token in enumerate(tokens[:-1]):
        p.write(f"claude_copy{number}.json", claude(token))
    assert [one.reason for one in p.reload().rejected] == ["the same sign-in as claude_work.json"] * 3
    assert len(p.line.sent) == 3


def test_an_older_file_in_its_own_place_is_no_copy(tmp_path: Path) -> None:
    p = pool(tmp_path, {"claude_work.json": claude(OLD)})
    asyncio.run(p.accounts.refresh("claude:work", OLD))
    p.write("claude_work.json", claude(OLD))
    assert p.reload().rejected == [] and accounts(p) == ["claude:work"]


def test_the_spent_token_of_an_account_that_is_gone_is_nobodys(tmp_path: Path) -> None:
    p = pool(tmp_path, {"claude_work.json": claude(OLD)})
    asyncio.run(p.accounts.refresh("claude:work", OLD))
    (p.folder / "claude_work.json").unlink()
    p.write("claude_other.json", claude(OLD))
    p.reload()
    assert accounts(p) == ["claude:other"]


def test_one_token_is_presented_once(tmp_path: Path) -> None:
    """At the provider a second use ends the whole sign-in."""
    seen: list[str] = []

    def once(request: HttpRequest) -> HttpAnswer:
        spent = json.loads(request.body)["refresh_token"] if request.body else ""
        if spent in seen:
            return HttpAnswer(400, {}, b'{"error": "refresh_token_reused"}')
        seen.append(spent)
        return token_answer(f"sk-ant-oat01-n{len(seen):04}")

    files = {f"claude_{name}.json": claude(OLD, ends=NOW + HOUR) for name in ("work", "work-2", "a-copy")}
    p = Pool(tmp_path, files, line=Line(once), usage_polling=UsagePolling(0))

    async def run() -> None:
        p.clock.now += 2 * HOUR
        await p.accounts.start()
        while not seen:
            await asyncio.sleep(0.005)
        await p.accounts.reload()
        await p.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert len(seen) == 1 and accounts(p) == ["claude:work"] and p.state("claude:work") == "ready"


def test_old_tokens_are_forgotten(tmp_path: Path) -> None:
    p = pool(tmp_path, {"claude_work.json": claude(OLD)})
    asyncio.run(p.accounts.refresh("claude:work", OLD))
    shared = p.accounts._registry.shared
    shared.sweep(NOW + SPENT_S - 1)
    with p.store.read() as reader:
        assert reader.count(SPENT) == 1
    shared.sweep(NOW + SPENT_S + 1)
    with p.store.read() as reader:
        assert reader.count(SPENT) == 0


def test_a_copy_is_not_told_what_came_after_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the new token is kept for the original's file, the copy is looked at."""
    p = pool(tmp_path, {"claude_work.json": claude(OLD), "claude_a-copy.json": claude(OLD)})
    looks = []

    def look_first(*_: Any) -> None:
        looks.append(p.accounts._registry.credentials.look(NOW))
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files_module, "_replace", look_first)
    asyncio.run(p.accounts.refresh("claude:work", OLD))
    assert len(looks) == 1
    p.accounts._registry.take(looks[0])
    assert accounts(p) == ["claude:work"] and p.accounts.credential("claude:work").secret == NEW
    p.reload()
    p.again()
    assert accounts(p) == ["claude:work"] and p.accounts.credential("claude:work").secret == NEW
