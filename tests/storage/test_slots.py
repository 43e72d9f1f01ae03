"""What is under way is found again after the process was killed, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.storage import slots as module
from pool_server.storage.slots import MOST_BYTES, PREFIX, SLOT, Slots, left_under_way

KILLED = (
    "import sys, os, signal, pathlib; from pool_server.storage.slots import Slots\n"
    "slots = Slots(pathlib.Path(sys.argv[1]))\n"
    "for n in range(700): slots.put(f'k{n}', b'first %d' % n)\n"
    "for n in range(0, 700, 2): slots.drop(f'k{n}')\n"
    "slots.put('k1', b'told more')\n"
    "os.kill(os.getpid(), signal.SIGKILL)"
)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def test_what_was_under_way_in_a_killed_process_is_found_once(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    assert [path.stat().st_mode & 0o777 for path in files(tmp_path)] == [0o600, 0o600]
    found = {entry for entries in left_under_way(tmp_path) for entry in entries}
    assert found == {b"first %d" % n for n in range(3, 700, 2)} | {b"told more"}
    assert files(tmp_path) == [] and list(left_under_way(tmp_path)) == []


@pytest.mark.slow
@given(ops=st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=60)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_last_word_of_each_that_has_not_ended_is_found(
    ops: list[tuple[int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("slots")
    slots, wanted = Slots(folder), dict[int, bytes]()
    for key, content in ops:
        if content:
            assert slots.put(str(key), content)
            wanted[key] = content
        else:
            slots.drop(str(key))
            wanted.pop(key, None)
    assert len(slots) == len(wanted) and all(str(key) in slots for key in wanted)
    assert list(left_under_way(folder)) == [], "its process lives"
    assert len(files(folder)) <= 1
    raw = b"".join(copy.read_bytes() for copy in files(folder))
    slots.close()
    assert sorted(module._entries(raw)) == sorted(wanted.values())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 1, SLOT // 2, SLOT - 1])
def test_what_was_cut_off_or_spoilt_is_none(tmp_path: Path, cut: int) -> None:
    slots = Slots(tmp_path)
    for number in range(3):
        slots.put(str(number), b"entry %d" % number)
    raw = bytearray(files(tmp_path)[0].read_bytes())
    slots.close()
    at = len(raw) - 2 * SLOT  # the second that was taken
    raw[at + 10] ^= 0xFF
    assert sorted(module._entries(bytes(raw))) == [b"entry 0", b"entry 2"]
    assert module._entries(bytes(raw[:cut])) == []


def test_there_is_an_end_of_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 1)
    slots = Slots(tmp_path)
    assert not slots.put("large", b"x" * (MOST_BYTES + 1))
    assert all(slots.put(str(number), b"x" * MOST_BYTES) for number in range(module.SLOTS))
    assert not slots.put("one more", b"x") and "one more" not in slots
    slots.drop("3")
    assert slots.put("one more", b"x")
    slots.close()


def test_a_full_disk_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def full(fd: int, data: bytes, at: int) -> int:
        tried.append(at)
        raise OSError(28, "No space left on device")

    slots = Slots(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert not slots.put("a", b"x") and not slots.put("b", b"x")
    assert tried == [0] and files(tmp_path) == []
    assert "No space left" in caplog.text
    monkeypatch.setattr(slots, "_no_room_until", 0.0)
    assert slots.put("a", b"x")
    slots.close()


def test_its_room_is_taken_before_it_is_mapped(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    slots.put("a", b"x")
    seen = os.stat(files(tmp_path)[0])
    assert seen.st_blocks * 512 >= seen.st_size == SLOT * module.SLOTS
    slots.close()
