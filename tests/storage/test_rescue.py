"""Backups where something is in the way: no folder any more, no place, a worker, a file that is none."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from pool_server.storage import (
    Store,
    StoreError,
    StoreFullError,
    StoreLockedError,
    backup_folder,
    join_folder,
    rescue,
    restore,
)
from pool_server.storage.lmdb import log_file

NOW = 1_790_000_000.0
MODULE = sys.modules["pool_server.storage.backup"]  # the package has a function of that name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "data/ledger", tables=("a",), durable=False)
    store.write(methodcaller("put", "a", b"k", b"v"))
    store.close()
    return tmp_path / "data"


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    opened = Store.open(data / "ledger", tables=("a",), durable=False)
    yield opened
    opened.close()


def test_what_is_open_is_saved_in_the_first_place_that_takes_it(
    data: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good").mkdir()
    monkeypatch.setattr(log_file, "places", lambda folder: [folder, tmp_path / "missing", tmp_path / "good"])
    saved = rescue({"ledger": store}, {"secret": b"s", ".note": b"n"}, data, now=NOW)
    assert saved.parent == tmp_path / "good" and saved.stat().st_mode & 0o077 == 0
    restore(saved, tmp_path / "fresh")
    assert (tmp_path / "fresh/secret").read_bytes() == b"s"
    again = Store.open(tmp_path / "fresh/ledger", tables=("a",), durable=False)
    assert again.get("a", b"k") == b"v"
    again.close()
    assert [path.name for path in (tmp_path / "good").iterdir()] == [saved.name], "nothing is left beside it"


@pytest.mark.parametrize("others", [[], ["missing"], ["missing", "gone"]])
def test_without_a_place_it_says_so(
    data: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    monkeypatch.setattr(log_file, "places", lambda folder: [folder, *(tmp_path / name for name in others)])
    with pytest.raises(StoreError, match="No such file" if others else "there is no place for it"):
        rescue({"ledger": store}, {}, data, now=NOW)


def test_a_folder_in_which_a_worker_is_left_is_not_replaced(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_folder(data, tmp_path / "b.tar", now=NOW)
    monkeypatch.setattr(MODULE, "_WORKERS_S", 0.0)
    with join_folder(data), pytest.raises(StoreLockedError, match="still uses"):
        restore(tmp_path / "b.tar", data)
    restore(tmp_path / "b.tar", data)


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def manifest(**fields: Any) -> bytes:
    return json.dumps({"format": 1, "created": NOW, "files": {}, **fields}).encode()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "is not a backup of this program"),
        ({"other": b"x"}, "is not a backup of this program"),
        ({"manifest.json": b"{"}, "unreadable manifest"),
        ({"manifest.json": b"\xff"}, "unreadable manifest"),
        ({"manifest.json": manifest(format=2)}, "has backup format 2"),
        ({"manifest.json": manifest(files={"secret": "00"})}, "secret is missing"),
    ],
)
def test_a_file_that_is_none_changes_nothing(data: Path, tmp_path: Path, members: dict[str, bytes], says: str) -> None:
    before = sorted(path.name for path in data.iterdir())
    with pytest.raises(StoreError, match=says) as told:
        restore(packed(tmp_path / "b.tar", members), data)
    assert "\n" not in str(told.value)
    assert [name for name in sorted(path.name for path in data.iterdir()) if "lock" not in name] == before


def test_a_disk_without_room_for_what_is_unpacked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup_folder(data, tmp_path / "b.tar", now=NOW)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MODULE, "_take", full)
    with pytest.raises(StoreFullError, match="could not be unpacked: No space left"):
        restore(tmp_path / "b.tar", data)
