"""Who holds a data folder, who works in it, and whether it still is the one that was opened."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.storage import (
    FolderIdentity,
    Store,
    StoreError,
    StoreLockedError,
    adopt_lock,
    join_folder,
    lock_folder,
    wait_for_workers,
)
from pool_server.storage.folder_lock import LOCK_FILE, WORKERS_FILE, FolderLock


@pytest.fixture
def held(tmp_path: Path) -> Iterator[FolderLock]:
    with lock_folder(tmp_path / "data") as lock:
        yield lock


def test_a_hold_is_handed_over_by_its_descriptor(tmp_path: Path, held: FolderLock) -> None:
    adopted = adopt_lock(tmp_path / "data", os.dup(held.fileno()))
    held.close()
    with pytest.raises(StoreLockedError, match=f"pid {os.getpid()}"):
        lock_folder(tmp_path / "data")
    with pytest.raises(ValueError, match="held no more"):
        held.fileno()
    adopted.close()
    adopted.close()
    lock_folder(tmp_path / "data").close()


def test_another_folder_s_hold_is_not_taken(tmp_path: Path, held: FolderLock) -> None:
    lock_folder(tmp_path / "other").close()
    with pytest.raises(StoreError, match="another data folder"):
        adopt_lock(tmp_path / "other", held.fileno())
    with pytest.raises(StoreError, match="cannot be taken over"):
        adopt_lock(tmp_path / "missing", held.fileno())
    with pytest.raises(StoreError, match="cannot be taken over"):
        adopt_lock(tmp_path / "data", 9_999)


def test_a_worker_is_waited_for(tmp_path: Path, held: FolderLock) -> None:
    data = tmp_path / "data"
    assert wait_for_workers(data, 0.0), "nobody has ever worked in it"
    with join_folder(data), join_folder(data):
        assert not wait_for_workers(data, 0.05)
    assert wait_for_workers(data, 0.0)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EMFILE])
def test_what_cannot_be_opened_is_one_line(
    tmp_path: Path, held: FolderLock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    data, real = tmp_path / "data", os.open
    join_folder(data).close()

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if Path(os.fsdecode(path)).name in (LOCK_FILE, WORKERS_FILE) and (flags & os.O_RDWR or code != errno.EROFS):
            raise OSError(code, os.strerror(code))
        return real(path, flags, *args, **kwargs)

    held.close()
    monkeypatch.setattr(os, "open", refuse)
    if code == errno.EROFS:  # what is there can be held all the same
        lock_folder(data).close()
        with join_folder(data):
            assert not wait_for_workers(data, 0.0)
        (data / LOCK_FILE).unlink()
    for call in (lock_folder, join_folder, lambda folder: wait_for_workers(folder, 0.0)):
        if code == errno.EROFS and call is not lock_folder:
            continue
        with pytest.raises(StoreError, match="cannot be used") as told:
            call(data)
        assert "\n" not in str(told.value) and os.strerror(code) in str(told.value)


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, held: FolderLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    join_folder(data).close()

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StoreError, match=f"{WORKERS_FILE} cannot be locked"):
        join_folder(data)
    with pytest.raises(StoreError, match=f"{WORKERS_FILE} cannot be locked"):
        wait_for_workers(data, 0.0)
    with pytest.raises(StoreError, match="a file system with locks"):
        lock_folder(tmp_path / "else")


def test_a_full_disk_costs_the_number_of_the_holder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    with lock_folder(tmp_path / "data"), pytest.raises(StoreLockedError, match="pid unknown"):
        lock_folder(tmp_path / "data")


def test_what_stands_in_the_folder_s_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    lock_folder(data).close()
    (data / "secret").write_bytes(b"s")
    identity = FolderIdentity(data)
    assert identity.changed() == "" and identity.small == {"secret": b"s"}
    Store.open(data / "ledger", tables=("a",), durable=False).close()
    assert identity.changed() == "", "a store that is made later is known from then on"
    with monkeypatch.context() as failing:
        failing.setattr(os, "stat", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "I/O")))
        failing.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O")))
        assert identity.changed() == "" and identity.small == {"secret": b"s"}, "nothing is told by what fails"
    os.replace(data / "ledger/data.mdb", tmp_path / "moved")
    assert "was removed" in identity.changed()
    (data / "ledger/data.mdb").write_bytes(b"another")
    assert "another" in identity.changed()
    os.replace(tmp_path / "moved", data / "ledger/data.mdb")
    assert identity.changed() == ""
