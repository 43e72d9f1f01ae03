"""Every page that is in use is looked at, and a file that is damaged is told and not believed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb
import pytest

from pool_server.storage import Store, StoreDamagedError
from pool_server.storage.lmdb.integrity import DATA_FILE, read_all, read_pages, verify

PAGE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A store with branches, leaves, values in pages of their own, and free pages."""
    store = Store.open(tmp_path / "s", tables=("rows", "large"), durable=False)
    store.write(lambda txn: txn.put_many("rows", [(b"%06d" % n, b"v" * 40) for n in range(5_000)]))
    store.write(lambda txn: txn.put_many("large", [(b"%d" % n, b"x" * 20_000) for n in range(4)]))
    store.write(lambda txn: [txn.delete("rows", b"%06d" % n) for n in range(0, 5_000, 3)])
    store.close()
    yield tmp_path / "s"


def state(folder: Path) -> tuple[int, int]:
    """The number of the last transaction, and how many pages it left in use."""
    with lmdb.open(str(folder), readonly=True, lock=False, max_dbs=8) as env, env.begin() as txn:
        number = txn.id()
    with (folder / DATA_FILE).open("rb") as file:
        return number, read_pages(file.fileno(), PAGE, number)


def test_all_keys_and_pages_are_read(folder: Path) -> None:
    number, pages = state(folder)
    assert pages > 60, "leaves, branches, and five pages of each large value"
    assert read_all(folder) >= 3_333 + 4
    assert verify(folder) == read_all(folder)
    with (folder / DATA_FILE).open("rb") as file:
        assert read_pages(file.fileno(), PAGE, number + 5) == 0, "others write: these trees may be gone"


def test_a_table_that_says_more_than_it_holds_is_told(folder: Path) -> None:
    data = folder / DATA_FILE
    number, _ = state(folder)
    whole = bytearray(data.read_bytes())
    told = 0
    for at in range(2 * PAGE, len(whole) - 8, 2):
        if whole[at : at + 8] == (3_333).to_bytes(8, sys.byteorder):
            whole[at] ^= 1
            data.write_bytes(whole)
            with data.open("rb") as file, suppress(ValueError):
                read_pages(file.fileno(), PAGE, number)
                told -= 1
            told += 1
            whole[at] ^= 1
    assert told >= 1


def test_a_page_whose_nodes_lie_outside_of_it_is_told(folder: Path) -> None:
    """The engine would read past the page."""
    data = folder / DATA_FILE
    number, _ = state(folder)
    whole = data.read_bytes()
    found = 0
    for page in range(2, len(whole) // PAGE):
        broken = bytearray(whole)
        broken[page * PAGE + 16 : page * PAGE + 18] = (PAGE + 2).to_bytes(2, sys.byteorder)
        data.write_bytes(broken)
        with data.open("rb") as file:
            try:
                read_pages(file.fileno(), PAGE, number)
            except ValueError as why:
                assert str(why) == f"page {page} has no whole nodes"
                found += 1
    assert found > 40


def test_numbers_of_another_size_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, _ = state(folder)
    monkeypatch.setattr(sys, "maxsize", (1 << 31) - 1)
    with (folder / DATA_FILE).open("rb") as file:
        assert read_pages(file.fileno(), PAGE, number) == 0


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_told(folder: Path, share: float) -> None:
    data = folder / DATA_FILE
    number, _ = state(folder)
    data.write_bytes(data.read_bytes()[: int(data.stat().st_size * share)])
    with data.open("rb") as file, pytest.raises(ValueError, match="is cut off"):
        read_pages(file.fileno(), PAGE, number)


@pytest.mark.slow
def test_each_page_that_is_in_use_is_looked_at(folder: Path) -> None:
    """Overwritten one after another, as many are told as are in use."""
    data = folder / DATA_FILE
    number, pages = state(folder)
    whole = data.read_bytes()
    found = 0
    for page in range(2, len(whole) // PAGE):
        with data.open("r+b") as file:
            file.seek(page * PAGE)
            file.write(b"\xa5" * 16)
            file.flush()
            try:
                read_pages(file.fileno(), PAGE, number)
            except ValueError as told:
                assert f"page {page} holds something else" in str(told)
                found += 1
            file.seek(page * PAGE)
            file.write(whole[page * PAGE : page * PAGE + 16])
    assert found == pages - 4 * 4, "of a value over several pages the first one has a head"


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (subprocess.TimeoutExpired("python", 600), "could not be read within"),
        (subprocess.CompletedProcess([], 1, "", "x\nlmdb.CorruptedError: bad\n"), "damaged: lmdb.CorruptedError: bad"),
        (subprocess.CompletedProcess([], -11, "", ""), "reading it ended with -11"),
        (subprocess.CompletedProcess([], 0, "no number", ""), "reading it ended with 0"),
    ],
)
def test_a_child_that_dies_of_damage_is_an_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, done: Any, says: str
) -> None:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(StoreDamagedError, match=says) as told:
        verify(folder)
    assert "\n" not in str(told.value)
