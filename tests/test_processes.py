"""Names of processes: those of another machine, or of another container on this one, are not taken for ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pool_server.core import processes

MACHINE = "pid:[4026531836]"


def in_count(monkeypatch: pytest.MonkeyPatch, folder: Path, numbers: str) -> None:
    """From now on processes are counted there."""
    link = folder / numbers
    if not link.is_symlink():
        link.symlink_to(numbers)
    monkeypatch.setattr(processes, "_NUMBERS", link)


def test_one_of_this_machine_is_known_to_run_and_to_have_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for numbers in (MACHINE, "pid:[4026532187]"):
        in_count(monkeypatch, tmp_path, numbers)
        name = processes.name()
        assert processes.alive(name) and not processes.ended(name)
        gone = ".".join([str(2**22 + 5), *name.split(".")[1:]])
        assert processes.ended(gone) and not processes.alive(gone)


@pytest.mark.parametrize(("one", "other"), [(MACHINE, "pid:[4026532187]"), ("pid:[4026532187]", "pid:[4026532301]")])
def test_one_of_another_container_is_not_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one: str, other: str
) -> None:
    in_count(monkeypatch, tmp_path, one)
    name = processes.name()
    in_count(monkeypatch, tmp_path, other)
    assert not processes.ended(name) and not processes.alive(name)


def test_where_the_system_does_not_say_nothing_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "_NUMBERS", tmp_path / "nowhere")
    assert processes.epoch() == "" and processes.alive(processes.name())
    monkeypatch.setattr(processes, "_NUMBERS", Path("/proc/self/ns/pid"))
    if Path("/proc/self/ns/pid").is_symlink() and os.readlink("/proc/self/ns/pid") == MACHINE:
        assert "-" not in processes.epoch()
