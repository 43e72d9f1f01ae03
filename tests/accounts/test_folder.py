"""The pool folder when it cannot be read, in part or at all: what is known stays, and says so."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.accounts import background, registry
from pool_server.accounts.credentials import files
from tests.accounts.kit import Pool, ask, claude, key

ONE, TWO = "claude_one.json", "claude/two.json"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look follows the first without a pause."""
    monkeypatch.setattr(registry, "DOUBT_S", 0.0)


def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path, {ONE: claude("sk-ant-oat01-one11"), TWO: key()})


def accounts(p: Pool) -> list[str]:
    return [row.id for row in p.accounts.describe_all()]


def stays(p: Pool, *names: str) -> dict[str, str]:
    """Both accounts are there and serve, and the report names `names` as unread; returns the reasons."""
    report = p.reload()
    assert not report.added and not report.removed and report.unchanged == 2
    assert accounts(p) == ["claude:one", "claude:two"] and p.accounts.select(ask()).account is not None
    reasons = {row.file: row.reason for row in report.unread}
    assert sorted(reasons) == sorted(names)
    assert set(report.unread) <= set(report.rejected) and reasons.items() <= p.trouble().items()
    return reasons


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    gc.disable()  # nothing closes a descriptor meanwhile
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 64, hard))
    try:
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_every_account_stays(tmp_path: Path) -> None:
    p = pool(tmp_path)
    with no_descriptors_left():
        look = p.accounts._registry.credentials.look(p.clock())
    report = p.accounts._registry.take(look)
    assert report.unchanged == 2 and accounts(p) == ["claude:one", "claude:two"]
    assert p.accounts.rejected() == [
        {"file": "pool/", "reason": "cannot be read: Too many open files; its 2 accounts stay as they were"}
    ]
    assert p.reload().rejected == [] and p.accounts.folder_trouble() == {}


def refusing(name: str, code: int) -> Callable[..., Any]:
    """An `os.open` that fails for what ends with `name`."""
    plain = os.open

    def opened(path: Any, *args: Any, **more: Any) -> int:
        if str(path).rstrip("/").endswith(name):
            raise OSError(code, os.strerror(code))
        return plain(path, *args, **more)

    return opened


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN])
@pytest.mark.parametrize(("refused", "told"), [("pool", "pool/"), ("claude", "claude/"), ("two.json", TWO)])
def test_what_cannot_be_opened_leaves_its_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, refused: str, told: str
) -> None:
    p = pool(tmp_path)
    p.write(TWO, key(priority=3))  # a file that is unchanged is not opened at all
    monkeypatch.setattr(os, "open", refusing(refused, code))
    assert os.strerror(code) in stays(p, told)[told]
    monkeypatch.undo()
    monkeypatch.setattr(registry, "DOUBT_S", 0.0)
    assert p.reload().changed == ["claude:two"] and p.accounts.folder_trouble() == {}


@pytest.mark.parametrize("inside", ["", "claude/"])
def test_a_symlink_loop_is_one_bad_entry(tmp_path: Path, inside: str) -> None:
    p = pool(tmp_path)
    (p.folder / inside / "loop.json").symlink_to("loop.json")
    (p.folder / "gemini").symlink_to("gemini")
    (p.folder / "other").symlink_to("other")
    report = p.reload()
    assert report.unchanged == 2
    reasons = {row.file: row.reason for row in report.rejected}
    assert set(reasons) == {f"{inside}loop.json", "gemini/"}
    assert all("Too many levels of symbolic links" in reason for reason in reasons.values())
    assert p.accounts.folder_trouble() == {}  # nothing known is missing
    assert p.again() and accounts(p) == ["claude:one", "claude:two"]  # a start is not stopped either


def test_a_known_file_that_becomes_a_loop_or_dangles_stays(tmp_path: Path) -> None:
    p = pool(tmp_path)
    for target in ("one.json", "/nowhere/at/all.json"):
        (p.folder / ONE).unlink()
        (p.folder / ONE).symlink_to(ONE if target == "one.json" else target)
        assert stays(p, ONE)[ONE].endswith("; claude:one stays as it was")


@pytest.mark.parametrize("where", ["", "claude"])
def test_an_empty_folder_in_place_of_the_old_one_is_not_an_empty_pool(tmp_path: Path, where: str) -> None:
    p = pool(tmp_path)
    if where:
        (p.folder / ONE).rename(p.folder / where / "one.json")
        assert p.reload().unchanged == 2
    away = tmp_path / "away"
    (p.folder / where).rename(away)
    (p.folder / where / "lost+found").mkdir(parents=True)
    named = f"{where or 'pool'}/"
    for _ in range(3):
        assert "another, empty folder" in stays(p, named)[named]
    shutil.rmtree(p.folder / where)
    away.rename(p.folder / where)
    assert p.reload().rejected == []


def test_a_pool_folder_that_is_gone_is_not_an_empty_pool(tmp_path: Path) -> None:
    p = pool(tmp_path)
    p.folder.rename(tmp_path / "away")
    assert "No such file" in stays(p, "pool/")["pool/"]


def test_another_folder_with_files_is_believed(tmp_path: Path) -> None:
    p = pool(tmp_path)
    p.folder.rename(tmp_path / "away")
    p.write("claude_three.json", key())
    report = p.reload()
    assert (report.added, sorted(report.removed)) == (["claude:three"], ["claude:one", "claude:two"])


def test_a_file_is_gone_when_its_folder_was_read_and_lacks_it(tmp_path: Path) -> None:
    p = pool(tmp_path)
    (p.folder / ONE).unlink()
    assert p.reload().removed == ["claude:one"]
    shutil.rmtree(p.folder / "claude")
    p.write("claude_one.json", key())
    assert p.reload().removed == ["claude:two"] and p.accounts.folder_trouble() == {}


def test_an_emptied_folder_is_asked_twice_and_told(tmp_path: Path) -> None:
    p = pool(tmp_path)
    registry = p.accounts._registry
    (p.folder / TWO).unlink()
    first = registry.credentials.look(p.clock())
    assert set(first.items) == {"claude:one", "claude:two"} and set(first.doubts) == {"claude/"}
    report = p.reload()
    assert report.removed == ["claude:two"] and not report.unread
    assert p.trouble() == {"claude/": "was emptied; claude:two left the pool"}
    p.reload()
    assert p.trouble() == {"claude/": "was emptied; claude:two left the pool"}
    p.write(TWO, key())
    assert p.reload().added == ["claude:two"] and p.accounts.folder_trouble() == {}
    (p.folder / TWO).unlink()
    p.reload()
    assert p.accounts.folder_trouble()
    (p.folder / "claude").rmdir()  # it was meant
    assert p.reload().rejected == [] and p.accounts.folder_trouble() == {}


def test_a_folder_that_was_empty_for_a_moment_lost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path)
    away = tmp_path / "away.json"
    (p.folder / TWO).rename(away)

    async def moment(_: float) -> None:
        if away.exists():
            away.rename(p.folder / TWO)

    monkeypatch.setattr(asyncio, "sleep", moment)
    assert p.reload().unchanged == 2


def test_a_file_that_somebody_is_writing_is_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path)
    whole = (p.folder / ONE).read_text()
    (p.folder / ONE).write_text(whole[:40])
    assert "looked at again" in str(p.accounts._registry.credentials.look(p.clock()).unread[ONE])
    sleep = asyncio.sleep

    async def moment(seconds: float) -> None:
        (p.folder / ONE).write_text(whole)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", moment)
    assert p.reload().unchanged == 2
    monkeypatch.setattr(asyncio, "sleep", sleep)
    (p.folder / ONE).write_text("")
    report = p.reload()
    assert report.removed == ["claude:one"]
    assert [(row.file, row.reason) for row in report.rejected] == [(ONE, "empty")]


def test_a_file_without_a_credential_is_believed_at_once(tmp_path: Path) -> None:
    p = pool(tmp_path)
    p.write(ONE, {"api_key": ""})
    assert p.reload().removed == ["claude:one"]


def test_whatever_a_file_makes_of_the_reader_the_others_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path)
    plain = files.options

    def options(data: dict[str, Any]) -> files.Options:
        if "boom" in data:
            raise ZeroDivisionError(data["api_key"])
        return plain(data)

    monkeypatch.setattr(files, "options", options)
    p.write("claude_bad.json", key(boom=1))
    report = p.reload()
    assert report.unchanged == 2
    assert [row.reason for row in report.rejected] == ["could not be judged (ZeroDivisionError)"]


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.lists(NAMES, max_size=8), st.binary(max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_entries_stop_no_others(tmp_path_factory: pytest.TempPathFactory, names: list[str], odd: bytes) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    p = pool(tmp_path)
    raw = os.fsencode(p.folder)
    for number, name in enumerate([*map(os.fsencode, names), odd.replace(b"/", b"").replace(b"\0", b"")]):
        for path in (os.path.join(raw, name + b".json"), os.path.join(raw, name)):
            if name.strip(b".") and len(name) < 200 and not os.path.lexists(path):
                (os.symlink if number % 2 else os.mkdir)(*((path, path) if number % 2 else (path,)))
    report = p.reload()
    assert report.unchanged == 2 and not report.removed
    for row in (*report.rejected, *report.unread):
        assert row.file.encode() and row.file.isprintable() and row.reason.isprintable()


def running(p: Pool, act: Callable[[Callable[[Callable[[], Any]], Any]], Any]) -> None:
    """Run the pool's background while `act` does things and waits for what follows."""

    async def until(true: Callable[[], Any]) -> None:
        while not true():
            await asyncio.sleep(0.02)

    async def run() -> None:
        await p.accounts.start()
        await act(until)
        await p.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 300))


def test_what_could_not_be_read_is_looked_at_again_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = pool(tmp_path)
    plain = os.open

    async def act(until: Callable[..., Any]) -> None:
        await until(lambda: p.accounts._background._pause > 1)  # the first look is over
        monkeypatch.setattr(os, "open", refusing("two.json", errno.EMFILE))
        p.write(TWO, key(priority=9))
        await until(p.accounts.folder_trouble)
        monkeypatch.setattr(os, "open", plain)
        await until(lambda: not p.accounts.folder_trouble())
        assert p.accounts.describe("claude:two").priority == 9

    running(p, act)


def test_a_folder_that_comes_back_is_watched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path)
    away = tmp_path / "away"

    async def act(until: Callable[..., Any]) -> None:
        await until(lambda: p.accounts._background._pause > 1)
        p.folder.rename(away)
        p.folder.mkdir()
        await until(p.accounts.folder_trouble)
        assert accounts(p) == ["claude:one", "claude:two"]
        p.folder.rmdir()
        away.rename(p.folder)
        await until(lambda: not p.accounts.folder_trouble())
        p.write("claude_three.json", key())
        await until(lambda: "claude:three" in accounts(p))

    running(p, act)


def test_why_a_folder_cannot_be_watched_is_said() -> None:
    behind = OSError(errno.EMFILE, "Too many open files")
    for error in (behind, ExceptionGroup("tasks", [behind]), ExceptionGroup("a", [ExceptionGroup("b", [behind])])):
        assert background._cause(error) == "cannot be read: Too many open files"
    assert background._cause(ExceptionGroup("a", [ValueError("no UTF-8")])) == "ValueError: no UTF-8"


def test_a_folder_that_cannot_be_watched_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = pool(tmp_path)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "no inotify watch is left")

    monkeypatch.setattr(background, "_load_awatch", lambda: refuse)

    async def act(until: Callable[..., Any]) -> None:
        for name in ("three", "four"):
            p.write(f"claude_{name}.json", key())
            await until(lambda name=name: f"claude:{name}" in accounts(p))

    running(p, act)
