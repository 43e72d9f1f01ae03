"""A server's note is believed while its process runs, and only then."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pool_server.app import run_file
from pool_server.core import processes

URL = "http://127.0.0.1:8989"


def note(folder: Path, **fields: Any) -> None:
    (folder / run_file.NOTE).write_text(json.dumps({"pid": os.getpid(), "url": URL, **fields}), encoding="utf-8")


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_note_is_found_and_taken_away_by_who_wrote_it(tmp_path: Path) -> None:
    own = run_file.Note(tmp_path, "http://0.0.0.0:8989")
    own.write()
    assert run_file.find(tmp_path) == URL
    other = run_file.Note(tmp_path, URL)  # of another process, for all that the first one knows
    other.write()
    own.remove()
    assert run_file.find(tmp_path) == URL
    other.remove()
    assert run_file.find(tmp_path) is None


def test_a_full_disk_takes_no_server_away_from_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote before stays; another's note, which may name the server before, does not."""
    own, other = run_file.Note(tmp_path, URL), run_file.Note(tmp_path, "http://127.0.0.1:1")
    own.write()

    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        own.write(upgrade="starting")
        assert run_file.find(tmp_path) == URL
        other.write()
        assert run_file.find(tmp_path) is None
        other.keep()  # the disk is full still
        own.keep()
        assert list(tmp_path.iterdir()) == []
    other.keep()
    assert run_file.find(tmp_path) == "http://127.0.0.1:1"
    own.keep()
    assert run_file.find(tmp_path) == URL


def test_a_note_that_somebody_removed_is_written_again(tmp_path: Path) -> None:
    """As the disk did not take it, but a folder that stands in the place of the server's own gets none."""
    place = tmp_path / "data"
    place.mkdir()
    own = run_file.Note(place, URL)
    own.write(upgrade="failed: why")
    (place / run_file.NOTE).unlink()
    own.keep()
    assert run_file.find(place) == URL
    assert run_file.read(place)["upgrade"] == "failed: why"
    (tmp_path / "swapped").mkdir()
    shutil.rmtree(place)
    own.keep()
    assert not place.exists()
    (tmp_path / "swapped").rename(place)
    own.keep()
    assert list(place.iterdir()) == []


def test_the_note_in_a_copy_of_the_folder_is_another_servers(tmp_path: Path) -> None:
    """Else a command for the copy would act on the pool that serves."""
    place = tmp_path / "data"
    place.mkdir()
    run_file.Note(place, URL).write()
    shutil.copytree(place, tmp_path / "copy")
    assert run_file.find(tmp_path / "copy") is None
    place.rename(tmp_path / "moved")
    assert run_file.find(tmp_path / "moved") == URL
    note(tmp_path, process=processes.name())  # of a version that did not name its folder
    assert run_file.find(tmp_path) == URL


def test_a_number_that_another_process_has_by_now_is_not_believed(tmp_path: Path) -> None:
    pid, started, boot, chance = processes.name().split(".")
    note(tmp_path, process=".".join((pid, started, boot, chance)))
    assert run_file.find(tmp_path) == URL
    for name in (
        f"{pid}.{int(started) - 1}.{boot}.{chance}",  # an earlier process of the same number
        f"{pid}.{started}.{boot}-1.{chance}",  # of another container
        f"{ended()}.{started}.{boot}.{chance}",
        "", "1", "-1", "..", "no name",
    ):  # fmt: skip
        note(tmp_path, process=name)
        assert run_file.find(tmp_path) is None, name


@pytest.mark.parametrize("told", ["00000000", "", "7e00e054"])
def test_a_server_that_is_told_another_life_of_the_machine_is_found(tmp_path: Path, told: str) -> None:
    """As in a container that covers the machine's word of it, which a hardened unit there sees through."""
    pid, started, boot, chance = processes.name().split(".")
    _, mark, counted = boot.partition("-")
    note(tmp_path, process=f"{pid}.{started}.{told}{mark}{counted}.{chance}")
    assert run_file.find(tmp_path) == URL
    note(tmp_path, process=f"{pid}.{int(started) + 1}.{told}{mark}{counted}.{chance}")
    assert run_file.find(tmp_path) is None


@pytest.mark.parametrize("pid", [0, -1, -2, 10**9, 10**30, 1.5, "7", None, [1]])
def test_what_is_no_number_of_a_process_is_no_server(tmp_path: Path, pid: Any) -> None:
    note(tmp_path, pid=pid)
    assert run_file.find(tmp_path) is None
    if pid is not None:
        assert not processes.alive(f"{pid}...")


def test_a_note_of_a_program_of_before_is_believed_by_its_number(tmp_path: Path) -> None:
    note(tmp_path)
    assert run_file.find(tmp_path) == URL
    note(tmp_path, pid=ended())
    assert run_file.find(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"pid": 1}', '{"url": "x"}', '{"pid": 1, "url": 5}', "\xff"])
def test_what_cannot_be_read_is_no_server(tmp_path: Path, text: str) -> None:
    (tmp_path / run_file.NOTE).write_bytes(text.encode("latin-1"))
    assert run_file.find(tmp_path) is None
