"""A rotated token that cannot be written to its file at once."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.credentials import files, write_back
from pool_server.accounts.credentials.write_back import FIRST_S, LONGEST_S
from pool_server.core.models import HttpAnswer
from pool_server.core.settings import UsagePolling
from tests.accounts.kit import HOUR, NOW, Line, Pool, claude, token_answer

OLD, NEW = "sk-ant-oat01-first", "sk-ant-oat01-second"
ID = "claude:a"


class Disk:
    """Lets the next `left` writes of credential files fail; counts all of them."""

    def __init__(self, patch: pytest.MonkeyPatch, left: int) -> None:
        self.left, self.tried = left, 0
        self._write = files.write_back
        patch.setattr(files, "write_back", self.write_back)

    def write_back(self, path: Path, updates: dict[str, Any], check: Any = None) -> str:
        self.tried += 1
        if self.left:
            self.left -= 1
            raise OSError(28, "No space left on device")
        return self._write(path, updates, check)


def pool(tmp_path: Path, **more: Any) -> Pool:
    return Pool(tmp_path, {"claude_a.json": claude(OLD)}, line=Line(lambda _: token_answer(NEW)), **more)


def on_disk(p: Pool) -> tuple[str, str]:
    login = json.loads((p.folder / "claude_a.json").read_text())["claudeAiOauth"]
    return login["accessToken"], login["refreshToken"]


def refresh(p: Pool) -> str:
    return asyncio.run(p.accounts.refresh(ID, OLD)).secret


def test_it_is_written_when_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    p, disk = pool(tmp_path), Disk(monkeypatch, 3)
    assert refresh(p) == NEW and on_disk(p)[0] == OLD
    assert p.accounts.credential(ID).secret == NEW and p.state(ID) == "ready"
    assert p.accounts.describe(ID).unsaved is True
    saver = p.accounts._background.saver
    assert asyncio.run(saver.timed(ID)) == NOW + 2 * FIRST_S
    assert asyncio.run(saver.timed(ID)) == NOW + 4 * FIRST_S
    assert p.accounts.describe(ID).unsaved is True
    assert asyncio.run(saver.timed(ID)) is None
    assert disk.tried == 4
    assert on_disk(p) == (NEW, "sk-ant-ort01-econd")
    assert p.accounts.describe(ID).unsaved is False
    assert p.reload().unchanged == 1
    said = [r for r in caplog.records if "file" in r.getMessage()]
    assert [r.levelno for r in said] == [logging.ERROR, logging.INFO]
    assert not any(token in caplog.text for token in (OLD, NEW, "sk-ant-ort01"))


def test_the_waits_grow_to_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, _ = pool(tmp_path), Disk(monkeypatch, 99)
    refresh(p)
    waits = [asyncio.run(p.accounts._background.saver.timed(ID)) for _ in range(8)]
    assert waits == sorted(w for w in waits if w is not None)
    assert waits[-1] == NOW + LONGEST_S


def test_the_background_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_back, "FIRST_S", 0.0)
    p, disk = pool(tmp_path), Disk(monkeypatch, 3)

    async def run() -> None:
        await p.accounts.start()
        await p.accounts.refresh(ID, OLD)
        while p.accounts.describe(ID).unsaved:
            await asyncio.sleep(0.005)
        await p.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert on_disk(p)[0] == NEW
    assert disk.tried == 4


@pytest.mark.parametrize("failures", [1, 2])
def test_closing_tries_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failures: int
) -> None:
    p, disk = pool(tmp_path), Disk(monkeypatch, failures)

    async def run() -> None:
        await p.accounts.refresh(ID, OLD)
        await p.accounts.close()

    asyncio.run(run())
    assert disk.tried == 2
    assert on_disk(p)[0] == (NEW if failures == 1 else OLD)
    assert ("the next start has the new token" in caplog.text) is (failures == 2)
    assert p.again().credential(ID).secret == NEW


def test_the_operators_word_does_not_bring_the_old_token_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, _ = pool(tmp_path), Disk(monkeypatch, 1)
    refresh(p)
    asyncio.run(p.accounts.set_priority(ID, 7))
    assert p.accounts.credential(ID).secret == NEW == on_disk(p)[0]
    assert p.accounts.describe(ID).unsaved is False and p.accounts.describe(ID).priority == 7


def test_another_field_written_by_somebody_else_does_not_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, _ = pool(tmp_path), Disk(monkeypatch, 1)
    refresh(p)
    p.write("claude_a.json", claude(OLD, label="mine"))
    p.reload()
    assert p.accounts.credential(ID).secret == NEW and p.accounts.describe(ID).label == "mine"
    assert asyncio.run(p.accounts._background.saver.timed(ID)) is None
    assert on_disk(p)[0] == NEW


def test_a_new_sign_in_is_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, disk = pool(tmp_path), Disk(monkeypatch, 1)
    refresh(p)
    p.write("claude_a.json", claude("sk-ant-oat01-third"))
    assert asyncio.run(p.accounts._background.saver.timed(ID)) is None
    assert p.accounts.credential(ID).secret == on_disk(p)[0] == "sk-ant-oat01-third"
    assert disk.tried == 1 and p.accounts.describe(ID).unsaved is False


def test_a_second_rotation_before_the_first_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, _ = pool(tmp_path), Disk(monkeypatch, 2)
    refresh(p)
    p.line.answer = lambda _: token_answer("sk-ant-oat01-third")
    asyncio.run(p.accounts.refresh(ID, NEW))
    assert on_disk(p)[0] == OLD
    assert asyncio.run(p.accounts._background.saver.timed(ID)) is None
    assert on_disk(p) == ("sk-ant-oat01-third", "sk-ant-ort01-third")


@pytest.mark.slow
def test_a_file_that_went_away_and_came_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, _ = pool(tmp_path), Disk(monkeypatch, 1)
    refresh(p)
    p.write("claude_a.json", "{ half")
    p.reload()
    assert asyncio.run(p.accounts._background.saver.timed(ID)) is None
    p.write("claude_a.json", claude(OLD))
    p.reload()
    assert p.accounts.credential(ID).secret == NEW
    assert p.accounts._background.saver.due(ID) is not None


def test_a_found_project_serves_from_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = {"currentTier": {"id": "free-tier"}, "cloudaicompanionProject": "great-oak-7"}
    login = {"access_token": "ya29.x", "refresh_token": "1//r", "expiry_date": int((NOW + HOUR) * 1000)}
    line = Line(lambda _: HttpAnswer(200, {}, json.dumps(loaded).encode()))
    p = Pool(tmp_path, {"gemini_g.json": login}, line=line, usage_polling=UsagePolling(0))
    Disk(monkeypatch, 1)
    assert asyncio.run(p.accounts.complete("gemini:g")).project == "great-oak-7"
    assert p.accounts.describe("gemini:g").unsaved is True
    assert asyncio.run(p.accounts._background.saver.timed("gemini:g")) is None
    assert json.loads((p.folder / "gemini_g.json").read_text())["project_id"] == "great-oak-7"


def test_nothing_secret_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, _ = pool(tmp_path), Disk(monkeypatch, 1)
    refresh(p)
    assert "sk-ant" not in repr(p.accounts._registry.credentials.owed)


def test_own_names_of_models_stay_while_a_token_is_owed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, _ = pool(tmp_path), Disk(monkeypatch, 99)
    p.write("claude_a.json", claude(OLD, renames={"claude-sonnet-4-5": "theirs"}))
    p.reload()
    assert refresh(p) == NEW
    assert p.accounts.credential(ID).own_name("claude-sonnet-4-5") == "theirs"
    p.write("claude_a.json", claude(OLD, renames={"claude-sonnet-4-5": "newer"}))
    p.reload()
    assert p.accounts.credential(ID).secret == NEW
    assert p.accounts.credential(ID).own_name("claude-sonnet-4-5") == "newer"
