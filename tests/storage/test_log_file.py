"""The log: what was appended is found again, whatever cut it off, and nothing else is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.storage.lmdb.log_file import LEAST, SIZE, LogFile, orphans, read

CONTENTS = st.lists(st.binary(max_size=300), max_size=12)


def path_of(folder: Path) -> Path:
    (path,) = folder.glob("journal-*")
    return path


@pytest.mark.slow
@given(batches=st.lists(CONTENTS, max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_was_appended_is_found_in_its_order(
    batches: list[list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    file = LogFile(folder, size=1 << 16)
    assert read(path_of(folder)) == []
    for batch in batches:
        assert file.append(batch)
    assert read(path_of(folder)) == [content for batch in batches for content in batch]
    file.close()
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@given(old=CONTENTS, new=CONTENTS)
@settings(max_examples=60, deadline=None)
def test_what_lay_there_before_it_began_anew_is_not_taken_for_news(
    old: list[bytes], new: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    file = LogFile(folder, size=1 << 14)
    file.append(old)
    file.begin_anew()
    file.append(new)
    assert read(path_of(folder)) == (new or old)
    file.close()


def test_a_frame_that_was_cut_off_or_changed_ends_the_log(tmp_path: Path) -> None:
    file = LogFile(tmp_path, size=1 << 12)
    file.append([b"one", b"two", b"three"])
    path, whole = path_of(tmp_path), path_of(tmp_path).read_bytes()
    used = 3 * 16 + len(b"onetwothree")
    ends = [0, 19, 38, used]
    copy = tmp_path / "copy"
    for cut in range(used):
        kept = sum(end <= cut for end in ends[1:])
        copy.write_bytes(whole[:cut])
        assert read(copy) == [b"one", b"two", b"three"][:kept]
        spoilt = bytearray(whole)
        spoilt[cut] ^= 0x40
        copy.write_bytes(spoilt)
        assert read(copy) == [b"one", b"two", b"three"][:kept]
    assert path.read_bytes() == whole
    file.close()


def test_a_full_log_takes_nothing_until_it_begins_anew(tmp_path: Path) -> None:
    file = LogFile(tmp_path, size=1 << 12)
    size = os.path.getsize(path_of(tmp_path))
    assert file.append([b"x" * 2000])
    assert not file.append([b"y" * 1000, b"z" * 1100])
    assert read(path_of(tmp_path)) == [b"x" * 2000], "all or none"
    file.begin_anew()
    assert file.append([b"y" * 1000, b"z" * 1100])
    assert os.path.getsize(path_of(tmp_path)) == size
    file.close()


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(tmp_path, size=1 << 12)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:5], at))
    assert file.append([b"a longer content than five bytes"])
    assert read(path_of(tmp_path)) == [b"a longer content than five bytes"]
    file.close()


def test_a_log_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        LogFile(tmp_path)
    assert list(tmp_path.iterdir()) == []


DIES = """
import os, sys
from pathlib import Path
from pool_server.storage.lmdb.log_file import LogFile
log = LogFile(Path(sys.argv[1]))
log.append([b"promised"])
if sys.argv[2] == "dies":
    os.kill(os.getpid(), 9)
print("ready", flush=True)
sys.stdin.read()
"""


def start(folder: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DIES, str(folder), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_the_logs_of_the_dead_are_taken_over_once_and_those_of_the_living_left(tmp_path: Path) -> None:
    living = start(tmp_path, "lives")
    assert living.stdout is not None
    assert living.stdout.readline() == "ready\n"
    alive = path_of(tmp_path)
    start(tmp_path, "dies").communicate()
    assert len(list(tmp_path.glob("journal-*"))) == 2
    ours = LogFile(tmp_path)
    ours.append([b"ours"])
    found = []
    for contents in orphans(tmp_path):
        assert list(orphans(tmp_path)) == [], "held while it is looked at"
        found.append(contents)
    assert found == [[b"promised"]]
    ours.close()
    assert list(tmp_path.glob("journal-*")) == [alive]
    living.communicate("")
    assert list(orphans(tmp_path)) == [[b"promised"]]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [SIZE // 2, SIZE // 3, LEAST])
def test_a_disk_with_little_room_gets_a_small_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    real = os.pwrite

    def nearly_full(fd: int, data: bytes, at: int) -> int:
        if at + len(data) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", nearly_full)
    file = LogFile(tmp_path)
    assert LEAST <= path_of(tmp_path).stat().st_size <= room
    assert file.append([b"x" * 1000])
    assert file.contents == [b"x" * 1000]
    file.close()


@pytest.mark.slow
@given(old=CONTENTS, new=CONTENTS)
@settings(max_examples=40, deadline=None)
def test_the_log_of_a_dead_process_is_gone_on_with(
    old: list[bytes], new: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    first = LogFile(folder, size=1 << 14)
    first.append([b"before"])
    first.begin_anew()
    first.append(old)
    assert LogFile.adopt(folder) is None, "its process lives"
    first.close(keep=True)
    found = LogFile.adopt(folder)
    assert found is not None
    file, contents = found
    assert contents == (old or [b"before"])
    assert file.append(new)
    assert file.contents == contents + new
    assert list(orphans(folder)) == [], "and no other process makes up for it"
    file.begin_anew()
    file.append([b"after"])
    assert file.contents == [b"after"]
    file.close()
    assert list(folder.iterdir()) == []


def test_a_log_that_may_not_be_read_is_told_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    LogFile(tmp_path, size=1 << 12).close(keep=True)
    real = os.open

    def refuse(path: Path, *args: int, **kwargs: int) -> int:
        if "journal-" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    assert list(orphans(tmp_path)) == []
    assert "Permission denied" in caplog.text
    assert path_of(tmp_path).exists()
