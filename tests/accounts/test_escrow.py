"""A rotated token outlives whatever happens between the endpoint's answer and the credential file."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import RefreshError
from pool_server.accounts.credentials import escrow, files
from pool_server.accounts.credentials.escrow import Escrow
from pool_server.core import disk
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import UsagePolling
from tests.accounts.kit import HOUR, NOW, Line, Pool, claude, token_answer

OLD, NEW, LAST = "sk-ant-oat01-first", "sk-ant-oat01-second", "sk-ant-oat01-third"
ID, FILE = "claude:a", "claude_a.json"
STEPS = ("open", "fsync", "rename", "replace", "unlink")
KILLED = 9


def pool(folder: Path, answer: Any = None, **more: Any) -> Pool:
    line = Line((lambda _: answer) if isinstance(answer, HttpAnswer) else answer)
    return Pool(folder, {FILE: claude(OLD)}, line=line, usage_polling=UsagePolling(0), **more)


def restarted(folder: Path, answer: Any = None) -> Pool:
    line = Line((lambda _: answer) if isinstance(answer, HttpAnswer) else answer)
    return Pool(folder, {}, line=line, usage_polling=UsagePolling(0))


def on_disk(p: Pool) -> tuple[str, str]:
    login = json.loads((p.folder / FILE).read_text())["claudeAiOauth"]
    return login["accessToken"], login["refreshToken"]


def entries(folder: Path) -> list[Path]:
    place = folder / escrow.FOLDER
    return sorted(place.iterdir()) if place.is_dir() else []


def unwritable(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    patch.setattr(files, "_replace", refuse)


def refresh(p: Pool, token: str = OLD) -> str:
    return asyncio.run(p.accounts.refresh(ID, token)).secret


# -- killed at each step of the disk


def dies_at(folder: Path, step: int) -> None:
    """A process that gets a rotated token and is killed at the given call that changes the disk."""
    count = 0

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if armed and (name != "open" or args[1] & os.O_CREAT):
                count += 1
                if count == step:
                    os._exit(KILLED)
            return real(*args, **kwargs)

        return call

    armed = False
    for name in STEPS:
        setattr(os, name, counted(name, getattr(os, name)))

    def answer(_: HttpRequest) -> HttpAnswer:
        nonlocal armed
        armed = True
        return token_answer(NEW)

    refresh(pool(folder, answer))
    armed = False
    (folder / "survived").write_text(str(count))


def run_to(folder: Path, step: int) -> bool:
    """False when the process had no such step."""
    child = multiprocessing.get_context("spawn").Process(target=dies_at, args=(folder, step))
    child.start()
    child.join(60)
    assert child.exitcode in (0, KILLED)
    return child.exitcode == KILLED


def test_a_kill_at_any_step_loses_no_token_that_was_written_down(tmp_path: Path) -> None:
    step, kept = 1, 0
    while run_to(folder := tmp_path / str(step), step):
        p = restarted(folder)
        token = p.accounts.credential(ID).secret
        if step > 2:  # the entry was made and flushed
            assert token == NEW, f"killed at step {step}"
            kept += 1
        asyncio.run(p.accounts._background.saver.timed(ID))
        assert on_disk(p)[0] == token
        assert p.accounts.describe(ID).unsaved is False
        step += 1
    assert kept >= 5
    assert entries(folder) == []


# -- a file that cannot be written


def test_the_token_is_durable_before_the_file_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path, token_answer(NEW))
    seen: list[bytes] = []
    real = files._replace

    def look(*args: Any) -> None:
        (entry,) = entries(tmp_path)
        assert entry.stat().st_mode & 0o777 == 0o600
        assert entry.parent.stat().st_mode & 0o777 == 0o700
        seen.append(entry.read_bytes())
        real(*args)

    monkeypatch.setattr(files, "_replace", look)
    assert refresh(p) == NEW
    assert NEW.encode() in seen[0]
    assert entries(tmp_path) == [], "and gone when the file has it"


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_a_folder_that_is_read_only_needs_no_new_login_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotations: int
) -> None:
    unwritable(monkeypatch)
    tokens = [OLD, NEW, LAST, "sk-ant-oat01-fourth"]
    p = pool(tmp_path)
    for before, after in itertools.pairwise(tokens[: rotations + 1]):
        p.line.answer = lambda _, after=after: token_answer(after)
        assert refresh(p, before) == after
        assert p.again().credential(ID).secret == after
        assert (p.state(ID), p.accounts.describe(ID).unsaved) == ("ready", True)
    assert on_disk(p)[0] == OLD and len(entries(tmp_path)) == rotations
    monkeypatch.undo()
    assert asyncio.run(p.accounts._background.saver.timed(ID)) is None
    assert on_disk(p)[0] == tokens[rotations]
    assert entries(tmp_path) == []


def test_another_worker_does_not_present_the_spent_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unwritable(monkeypatch)
    p = pool(tmp_path, token_answer(NEW), workers=2)
    other = p.worker(leader=False)
    assert refresh(p) == NEW
    assert asyncio.run(other.refresh(ID, OLD)).secret == NEW
    assert len(p.line.sent) == 1
    monkeypatch.undo()
    assert asyncio.run(p.accounts._background.saver.timed(ID)) is None
    assert asyncio.run(other._background.saver.timed(ID)) is None, "the other's debt is paid as well"
    assert (on_disk(p)[0], entries(tmp_path)) == (NEW, [])


def test_a_renamed_file_is_told_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unwritable(monkeypatch)
    p = pool(tmp_path, token_answer(NEW))
    refresh(p)
    (tmp_path / "pool" / FILE).rename(tmp_path / "pool" / "claude_b.json")
    assert p.again().credential("claude:b").secret == NEW


def test_a_new_login_is_not_overwritten_by_what_was_kept_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(monkeypatch)
    p = pool(tmp_path, token_answer(NEW))
    refresh(p)
    monkeypatch.undo()
    p.write(FILE, claude(LAST))
    p.again()
    assert p.accounts.credential(ID).secret == LAST and p.accounts.describe(ID).unsaved is False


def test_neither_place_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unwritable(monkeypatch)
    (tmp_path / escrow.FOLDER).write_text("in the way")
    p = pool(tmp_path, token_answer(NEW))
    assert refresh(p) == NEW
    assert "could not be kept" in caplog.text and NEW not in caplog.text
    monkeypatch.undo()
    assert asyncio.run(p.accounts._background.saver.timed(ID)) is None
    assert on_disk(p)[0] == NEW


FOREIGN = b'{"account": "a", "updates": {"claudeAiOauth": 7}}'


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"account": 1}', FOREIGN])
def test_an_entry_that_cannot_be_read_stops_nothing(tmp_path: Path, raw: bytes) -> None:
    p = pool(tmp_path)
    place = Escrow(tmp_path)
    place.keep(p.accounts.credential(ID), {})
    entries(tmp_path)[0].write_bytes(raw)
    assert p.again().credential(ID).secret == OLD


def test_old_entries_are_swept(tmp_path: Path) -> None:
    p, place = pool(tmp_path), Escrow(tmp_path)
    place.sweep(NOW)  # there is no folder yet
    place.keep(p.accounts.credential(ID), {})
    (entry,) = entries(tmp_path)
    place.sweep(entry.stat().st_mtime - 1)
    assert entries(tmp_path) == [entry]
    (tmp_path / escrow.FOLDER / f".x{disk.DRAFT}").write_text("half")
    place.sweep(entry.stat().st_mtime + 60)
    assert entries(tmp_path) == []


def test_the_same_spent_token_twice_keeps_the_later_one(tmp_path: Path) -> None:
    p, place = pool(tmp_path), Escrow(tmp_path)
    spent = p.accounts.credential(ID)
    for token in (NEW, LAST):
        place.keep(spent, token_updates(token))
    assert p.again().credential(ID).secret == LAST
    assert len(entries(tmp_path)) == 1
    assert "sk-ant" not in repr(place.find(spent)) + entries(tmp_path)[0].name + repr(
        p.accounts._registry.credentials.owed
    )


# -- what was left beside the file


def leave(p: Pool, token: str, *, name: str = FILE, cut: int | None = None, age: float = -60.0) -> Path:
    """A rewrite of a file that was broken off before the rename; `age` in seconds, less than 0: newer than the file."""
    target = p.folder / name
    left = target.with_name(f".{target.name}.0123456789ab{files.TEMPORARY}")
    left.write_text(json.dumps(claude(token))[:cut])
    changed = target.stat().st_ctime
    os.utime(left, (changed - age, changed - age))
    return left


def test_a_write_that_was_broken_off_is_finished_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    p = pool(tmp_path)
    left = leave(p, NEW)
    p.again()
    assert p.accounts.credential(ID).secret == on_disk(p)[0] == NEW
    assert not left.exists()
    assert f"{ID}: a write that was broken off was finished" in caplog.text and NEW not in caplog.text


def test_in_a_sub_folder_and_through_a_link_too(tmp_path: Path) -> None:
    p = pool(tmp_path)
    p.write("claude/sub.json", claude("sk-ant-oat01-sub-1"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "real.json").write_text(json.dumps(claude("sk-ant-oat01-link1")))
    (p.folder / "claude_link.json").symlink_to(outside / "real.json")
    leave(p, "sk-ant-oat01-sub-2", name="claude/sub.json")
    left = leave(p, "sk-ant-oat01-link2", name="claude_link.json")
    left.rename(outside / f".real.json.0123456789ab{files.TEMPORARY}")
    p.again()
    assert p.accounts.credential("claude:sub").secret == "sk-ant-oat01-sub-2"
    assert p.accounts.credential("claude:link").secret == "sk-ant-oat01-link2"
    assert (p.folder / "claude_link.json").is_symlink()


@pytest.mark.parametrize(("token", "cut", "age"), [(NEW, None, 60.0), (NEW, 40, -60.0), (OLD, None, -60.0)])
def test_what_is_older_cut_off_or_the_same_is_not_taken(
    tmp_path: Path, token: str, cut: int | None, age: float
) -> None:
    p = pool(tmp_path)
    before = (p.folder / FILE).read_bytes()
    leave(p, token, cut=cut, age=age)
    p.again()
    assert (p.folder / FILE).read_bytes() == before and p.accounts.credential(ID).secret == OLD


def test_a_leftover_of_a_file_that_was_removed_brings_no_account_back(tmp_path: Path) -> None:
    p = pool(tmp_path)
    leave(p, NEW)
    (p.folder / FILE).unlink()
    assert p.again().describe_all() == []


def test_an_older_leftover_is_tried_before_a_sign_in_counts_as_lost(tmp_path: Path) -> None:
    dead = HttpAnswer(400, {}, b'{"error": "invalid_grant"}')
    p = pool(tmp_path, dead)
    leave(p, NEW, age=60.0)
    assert refresh(p) == NEW
    assert p.state(ID) == "ready" and on_disk(p)[0] == NEW
    with pytest.raises(RefreshError) as caught:
        refresh(p, NEW)
    assert caught.value.permanent and p.state(ID) == "needs_login"


def test_an_entry_of_the_escrow_is_tried_before_a_sign_in_counts_as_lost(tmp_path: Path) -> None:
    p = pool(tmp_path)
    spent = p.accounts.credential(ID)

    def dead(_: HttpRequest) -> HttpAnswer:
        Escrow(tmp_path).keep(spent, token_updates(NEW))  # another worker's, in this very moment
        return HttpAnswer(400, {}, b'{"error": "invalid_grant"}')

    p.line.answer = dead
    assert refresh(p) == NEW and p.state(ID) == "ready"


def token_updates(token: str) -> dict[str, Any]:
    login = claude(token)["claudeAiOauth"]
    return {"claudeAiOauth": {name: login[name] for name in ("accessToken", "refreshToken", "expiresAt")}}


# -- a new sign-in while the old one is being refreshed


@pytest.mark.parametrize("heard", [False, True])
def test_a_new_login_put_in_during_a_refresh_stays(tmp_path: Path, heard: bool) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def slow(_: HttpRequest) -> HttpAnswer:
            await gate.wait()
            return token_answer(NEW)

        p = pool(tmp_path, slow)
        waiting = asyncio.create_task(p.accounts.refresh(ID, OLD))
        while not p.line.sent:
            await asyncio.sleep(0)
        p.write(FILE, claude(LAST, label="mine"))
        if heard:
            await p.accounts.reload()
        gate.set()
        assert (await waiting).secret == LAST
        assert on_disk(p)[0] == p.accounts.credential(ID).secret == LAST
        assert p.accounts.describe(ID).label == "mine" and p.accounts.describe(ID).unsaved is False
        assert p.again().credential(ID).secret == LAST

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_new_login_during_a_refresh_that_fails_is_not_made_to_wait(tmp_path: Path) -> None:
    p = pool(tmp_path)

    def busy(_: HttpRequest) -> HttpAnswer:
        p.write(FILE, claude(LAST))
        return HttpAnswer(429, {"retry-after": "600"}, b"{}")

    p.line.answer = busy
    assert refresh(p) == LAST
    assert p.accounts._registry.account(ID).refresh_retry_at == 0.0


def test_a_file_removed_during_a_refresh_stays_removed(tmp_path: Path) -> None:
    p = pool(tmp_path)

    def gone(_: HttpRequest) -> HttpAnswer:
        (p.folder / FILE).unlink()
        return token_answer(NEW)

    p.line.answer = gone
    refresh(p)
    assert not (p.folder / FILE).exists()
    p.write(FILE, claude(OLD))  # moved away and back, by an editor
    assert p.again().credential(ID).secret == NEW


def test_another_accounts_project_is_not_written_into_a_new_login(tmp_path: Path) -> None:
    def login(token: str, **more: Any) -> dict[str, Any]:
        return {"access_token": token, "refresh_token": f"1//{token}", "expiry_date": int((NOW + HOUR) * 1000), **more}

    p = Pool(tmp_path, {"gemini_g.json": login("ya29.one")}, usage_polling=UsagePolling(0))

    def found(request: HttpRequest) -> HttpAnswer:
        first = "ya29.one" in str(request.headers)
        if first:
            p.write("gemini_g.json", login("ya29.two"))
        loaded = {"currentTier": {"id": "free-tier"}, "cloudaicompanionProject": "one" if first else "two"}
        return HttpAnswer(200, {}, json.dumps(loaded).encode())

    p.line.answer = found
    assert asyncio.run(p.accounts.complete("gemini:g")).project == "two"
    assert json.loads((p.folder / "gemini_g.json").read_text()) == login(
        "ya29.two", project_id="two", tier_id="free-tier"
    )


@pytest.mark.parametrize(("kept_ends", "serves"), [(2 * HOUR, "ya29.kept"), (0.5 * HOUR, "ya29.file")])
def test_of_a_token_that_does_not_rotate_the_later_one_serves(tmp_path: Path, kept_ends: float, serves: str) -> None:
    login = {"access_token": "ya29.file", "refresh_token": "1//r", "expiry_date": int((NOW + HOUR) * 1000)}
    p = Pool(tmp_path, {"gemini_g.json": login}, usage_polling=UsagePolling(0))
    kept = {"access_token": "ya29.kept", "expiry_date": int((NOW + kept_ends) * 1000)}
    Escrow(tmp_path).keep(p.accounts.credential("gemini:g"), kept)
    assert p.again().credential("gemini:g").secret == serves


def test_keys_tell_nothing_and_need_a_refresh_token(tmp_path: Path) -> None:
    p = pool(tmp_path)
    p.write("claude_key.json", {"api_key": "sk-ant-api03-key"})
    p.reload()
    key = p.accounts.credential(ID).grant_key
    assert len(key) == 32 and int(key, 16)
    assert p.accounts.credential("claude:key").grant_key == ""
    assert Escrow(tmp_path).find(p.accounts.credential("claude:key")) is None
    shutil.rmtree(tmp_path / escrow.FOLDER, ignore_errors=True)


# -- said before it matters


@pytest.mark.parametrize("reason", ["Read-only file system", "Permission denied", "No space left on device"])
def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    p = pool(tmp_path)
    broken = {p.folder}
    monkeypatch.setattr(disk, "unwritable", lambda folder: reason if folder in broken else "")
    background = p.accounts._background
    background.look_whether_writable()
    background.look_whether_writable()
    told = f"cannot be written ({reason}): new tokens of a sign-in are kept in {tmp_path}/escrow/"
    assert p.accounts.unwritable() == told
    assert p.trouble() == {"pool/": told}
    assert caplog.text.count(told) == 1, "once, not with every look"
    broken.add(tmp_path)
    background.look_whether_writable()
    assert "are lost at the next restart" in p.accounts.unwritable()
    broken.clear()
    background.look_whether_writable()
    assert p.accounts.unwritable() == "" and p.accounts.folder_trouble() == {}


def test_a_folder_of_keys_alone_need_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "unwritable", lambda folder: "Read-only file system")
    p = Pool(tmp_path, {"claude_key.json": {"api_key": "sk-ant-api03-key"}})
    p.accounts._background.look_whether_writable()
    assert p.accounts.unwritable() == ""


def test_a_file_that_cannot_be_written_in_a_folder_that_can_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(monkeypatch)
    p = pool(tmp_path, token_answer(NEW))
    refresh(p)
    p.accounts._background.look_whether_writable()
    told = f"has a file that cannot be written: its new tokens are kept in {tmp_path}/escrow/"
    assert p.accounts.unwritable() == told


def test_what_keeps_a_folder_from_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk.unwritable(tmp_path) == ""
    assert disk.unwritable(tmp_path / "none") == "No such file or directory"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert disk.unwritable(tmp_path) == "Permission denied"

    class Volume:
        f_flag, f_blocks, f_bavail = os.ST_RDONLY, 10, 10

    monkeypatch.setattr(os, "statvfs", lambda _: Volume)
    assert disk.unwritable(tmp_path) == "Read-only file system"
    monkeypatch.setattr(os, "access", lambda *_: True)
    Volume.f_flag, Volume.f_bavail = 0, 0
    assert disk.unwritable(tmp_path) == "No space left on device"
