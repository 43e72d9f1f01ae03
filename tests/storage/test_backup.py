from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from pool_server.app import backup_schedule
from pool_server.app.backup_schedule import BackupSchedule, expired, proven, to_prove
from pool_server.core.settings import Backup
from pool_server.storage import (
    Store,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    backup,
    backup_folder,
    lock_folder,
    prove,
    restore,
    store_keys,
    verify,
)
from pool_server.storage.folder_lock import LOCK_FILE
from pool_server.storage.lmdb import log_file
from pool_server.storage.lmdb.log_file import LogFile, orphans

NOW = 1_790_000_000.0


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("ledger", "state"):
        store = open_store(folder, name)
        store.write(methodcaller("put_many", "a", [(b"%04d" % i, name.encode() * 50) for i in range(500)]))
        store.close()
    (folder / "jwt_secret").write_text("hush")
    return folder


def open_store(data_dir: Path, name: str) -> Store:
    return Store.open(data_dir / name, tables=("a",), durable=name == "ledger")


@pytest.fixture
def stores(data_dir: Path) -> Iterator[dict[str, Store]]:
    found = {name: open_store(data_dir, name) for name in ("ledger", "state")}
    yield found
    for store in found.values():
        store.close()


def value(data_dir: Path, name: str, key: bytes) -> bytes | None:
    store = open_store(data_dir, name)
    try:
        return store.get("a", key)
    finally:
        store.close()


@pytest.mark.parametrize("name", ["b.tar", "b.tar.zst"])
def test_a_backup_comes_back(data_dir: Path, tmp_path: Path, name: str) -> None:
    done = backup_folder(data_dir, tmp_path / name, now=NOW)
    assert set(done.files) == {"ledger/data.mdb", "state/data.mdb", "jwt_secret"}
    assert (tmp_path / name).stat().st_mode & 0o077 == 0
    found = restore(tmp_path / name, tmp_path / "fresh")
    assert (found.created, found.previous) == (NOW, None)
    assert found.keys["ledger"] > 500
    assert value(tmp_path / "fresh", "ledger", b"0499") == b"ledger" * 50
    assert value(tmp_path / "fresh", "state", b"0000") == b"state" * 50
    secret = tmp_path / "fresh" / "jwt_secret"
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("hush", 0o600)


def test_restoring_keeps_what_was_there(data_dir: Path, tmp_path: Path) -> None:
    backup_folder(data_dir, tmp_path / "b.tar", now=NOW)
    store = open_store(data_dir, "ledger")
    store.write(lambda t: t.put("a", b"later", b"x"))
    store.close()
    found = restore(tmp_path / "b.tar", data_dir)
    assert value(data_dir, "ledger", b"later") is None
    assert found.previous is not None
    assert value(found.previous, "ledger", b"later") == b"x"
    assert [p.name for p in data_dir.iterdir() if p.name.startswith(".")] == []


def test_a_running_server_can_be_copied_and_not_restored(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store]
) -> None:
    with lock_folder(data_dir):
        backup(stores, data_dir, tmp_path / "own.tar.zst", now=NOW)
        script = (
            "import sys, pathlib; from pool_server.storage import backup_folder; "
            "backup_folder(*map(pathlib.Path, sys.argv[1:]), now=0)"
        )
        other = tmp_path / "other.tar.zst"
        subprocess.run([sys.executable, "-c", script, str(data_dir), str(other)], check=True, timeout=60)
        with pytest.raises(StoreLockedError, match="already uses"):
            restore(other, data_dir)
    for name in ("own", "other"):
        restore(tmp_path / f"{name}.tar.zst", tmp_path / name)
        assert value(tmp_path / name, "ledger", b"0001") == b"ledger" * 50


def test_writing_goes_on_during_a_copy(data_dir: Path, tmp_path: Path, stores: dict[str, Store]) -> None:
    async def go() -> int:
        copying = asyncio.create_task(asyncio.to_thread(backup, stores, data_dir, tmp_path / "b.tar", now=NOW))
        written = 0
        while not copying.done():
            await stores["ledger"].submit(methodcaller("put", "a", b"new%06d" % written, b"x"))
            written += 1
        await copying
        return written

    assert asyncio.run(go()) > 0
    restore(tmp_path / "b.tar", tmp_path / "fresh")


def damage(path: Path, how: str) -> None:
    size = path.stat().st_size
    if how == "cut":
        os.truncate(path, size // 2)
    elif how == "flip":
        with path.open("r+b") as f:
            f.seek(size // 2)
            old = f.read(1)
            f.seek(size // 2)
            f.write(bytes([old[0] ^ 0xFF]))
    elif how == "empty":
        os.truncate(path, 0)
    else:
        path.write_bytes(b"this is no tar at all" * 100)


@pytest.mark.parametrize("how", ["cut", "flip", "empty", "text"])
@pytest.mark.parametrize("name", ["b.tar", "b.tar.zst"])
def test_a_damaged_backup_changes_nothing(data_dir: Path, tmp_path: Path, name: str, how: str) -> None:
    backup_folder(data_dir, tmp_path / name, now=NOW)
    damage(tmp_path / name, how)
    before = {p: p.stat().st_mtime_ns for p in (data_dir / "ledger").iterdir()}
    with pytest.raises(StoreError, match=r"backup|damaged|backed up"):
        restore(tmp_path / name, data_dir)
    assert {p: p.stat().st_mtime_ns for p in (data_dir / "ledger").iterdir()} == before
    assert value(data_dir, "ledger", b"0001") == b"ledger" * 50


@pytest.mark.slow
@pytest.mark.parametrize("block", [1000, 4096, 1 << 15, 1 << 20])
@pytest.mark.parametrize("name", ["b.tar", "b.tar.zst", "b.tar.zst.enc"])
def test_a_backup_comes_back_in_blocks_of_any_size(
    data_dir: Path, tmp_path: Path, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store_keys.ENVIRONMENT, "k:" + base64.b64encode(bytes(32)).decode())
    monkeypatch.setattr(sys.modules["pool_server.storage.backup"], "_BLOCK", block)
    (data_dir / "empty.json").write_bytes(b"")
    backup_folder(data_dir, tmp_path / name, now=NOW)
    restore(tmp_path / name, tmp_path / "fresh")
    assert value(tmp_path / "fresh", "ledger", b"0499") == b"ledger" * 50
    assert value(tmp_path / "fresh", "state", b"0000") == b"state" * 50


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "flipped"])
@pytest.mark.parametrize("name", ["b.tar", "b.tar.zst", "b.tar.zst.enc"])
def test_a_copy_that_is_damaged_anywhere_comes_back_whole_or_not_at_all(
    data_dir: Path, tmp_path: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store_keys.ENVIRONMENT, "k:" + base64.b64encode(bytes(32)).decode())
    whole = backup_folder(data_dir, tmp_path / name, now=NOW)
    good = (tmp_path / name).read_bytes()
    chance = random.Random(1)
    for number in range(40):
        at = chance.randrange(len(good)) if number else 0
        bad = good[:at] + (b"" if how == "cut" else bytes([good[at] ^ 1 << chance.randrange(8)]) + good[at + 1 :])
        (tmp_path / name).write_bytes(bad)
        fresh = tmp_path / f"fresh{number}"
        try:
            restore(tmp_path / name, fresh)
        except StoreError as error:
            assert "\n" not in str(error)
            assert {path.name for path in fresh.iterdir()} <= {LOCK_FILE}, "nothing is put back in part"
        else:  # a byte that no reader looks at: padding, the time of a member
            assert {
                member: hashlib.sha256((fresh / member).read_bytes()).hexdigest() for member in whole.files
            } == whole.files


@pytest.mark.parametrize("member", ["../evil", "/etc/evil", "ledger/../../evil", "state/sub/evil", "link"])
def test_a_backup_cannot_write_elsewhere(data_dir: Path, tmp_path: Path, member: str) -> None:
    backup_folder(data_dir, tmp_path / "b.tar", now=NOW)
    with tarfile.open(tmp_path / "b.tar", "a") as tar:
        info = tarfile.TarInfo(member)
        if member == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
        else:
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(StoreError, match="which no backup has"):
        restore(tmp_path / "b.tar", tmp_path / "fresh")
    assert not list(tmp_path.rglob("*evil*"))


def test_missing_things_are_one_clear_line(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no backup"):
        restore(tmp_path / "nothing.tar", data_dir)
    with pytest.raises(StoreError, match="does not exist"):
        backup_folder(data_dir, tmp_path / "no" / "b.tar", now=NOW)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="nothing to back up"):
        backup_folder(tmp_path / "empty", tmp_path / "b.tar", now=NOW)


def test_a_full_disk_leaves_the_old_backup(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup_folder(data_dir, tmp_path / "b.tar", now=NOW)
    old = (tmp_path / "b.tar").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreFullError, match="No space left"):
        backup_folder(data_dir, tmp_path / "b.tar", now=NOW)
    assert (tmp_path / "b.tar").read_bytes() == old
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".backup")] == []


def test_verify_reads_everything(data_dir: Path) -> None:
    assert verify(data_dir / "ledger") == 501
    data = data_dir / "ledger" / "data.mdb"
    raw = bytearray(data.read_bytes())
    for page in range(2, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    data.write_bytes(raw)
    with pytest.raises(StoreDamagedError, match="damaged"):
        verify(data_dir / "ledger")


def test_scheduled_copies_make_room(data_dir: Path, tmp_path: Path, stores: dict[str, Store]) -> None:
    clock = [NOW]
    folder = tmp_path / "copies"
    plan = BackupSchedule(Backup(str(folder), every_h=24, keep=3), stores, data_dir, clock=lambda: clock[0])
    made = []
    for _ in range(5):
        made.append(plan.run())
        assert plan.run() is None
        clock[0] += 86_400
    assert None not in made
    (folder / "mine.tar.zst").write_text("not ours")
    assert backup_schedule.list_backups(folder) == made[:1:-1]
    clock[0] -= 30 * 86_400  # the clock was wrong before: do not wait a month
    assert plan.run() is not None
    assert (folder / "mine.tar.zst").exists()


def test_a_copy_that_cannot_be_restored_is_none_and_the_older_ones_stay(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, folder = [NOW], tmp_path / "copies"
    plan = BackupSchedule(Backup(str(folder), every_h=24, keep=1), stores, data_dir, clock=lambda: clock[0])
    first = plan.run()
    assert first is not None
    assert proven._value.get() == NOW
    clock[0] += 86_400
    real = backup

    def cut(stores: Any, source: Path, dest: Path, *, now: float, pool_dir: Path | None) -> None:
        real(stores, source, dest, now=now)
        dest.write_bytes(dest.read_bytes()[:-100])

    monkeypatch.setattr(backup_schedule, "backup", cut)
    with pytest.raises(StoreError):
        plan.run()
    assert backup_schedule.list_backups(folder) == [first]
    assert proven._value.get() == NOW

    def full(source: Path) -> None:
        raise StoreFullError("no room")

    monkeypatch.setattr(backup_schedule, "backup", real)
    monkeypatch.setattr(backup_schedule, "prove", full)
    second = plan.run()
    assert backup_schedule.list_backups(folder) == [second, first], "what was tried gives no way to what was not"
    clock[0] += 86_400
    third = plan.run()
    assert backup_schedule.list_backups(folder) == [third, first]
    monkeypatch.setattr(backup_schedule, "prove", prove)
    clock[0] += 86_400
    fourth = plan.run()
    assert backup_schedule.list_backups(folder) == [fourth]


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (None, NOW),
        ("", 0.0),
        ("mine.tar.zst", 0.0),
        ("pool-server-20261332-000000.tar.zst", 0.0),
        ("pool-server-29991231-000000.tar.zst", NOW + 60),
        ("\xff", 0.0),
    ],
)
def test_a_restart_knows_when_a_copy_was_proven_and_that_none_was(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store], said: str | None, known: float
) -> None:
    folder = tmp_path / "copies"
    BackupSchedule(Backup(str(folder)), stores, data_dir, clock=lambda: NOW).run()
    if said is not None:
        (folder / "pool-server-proven").write_bytes(said.encode("latin-1"))
    for gauge in (proven, to_prove):
        gauge.set(0)

    async def start(settings: Backup) -> None:
        schedule = BackupSchedule(settings, stores, data_dir, clock=lambda: NOW + 60)
        await schedule.start()
        await schedule.close()

    for settings in (Backup(), Backup(str(folder), prove=False)):
        asyncio.run(start(settings))
        assert to_prove._value.get() == 0, "nothing is promised"
    asyncio.run(start(Backup(str(folder))))
    assert to_prove._value.get() == 1
    assert proven._value.get() == pytest.approx(known, abs=1)


@pytest.mark.parametrize("name", ["whole.tar", "whole.tar.zst"])
def test_a_trial_leaves_nothing_and_finds_what_was_cut_or_changed(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store], name: str
) -> None:
    whole = tmp_path / name
    backup(stores, data_dir, whole, now=NOW)
    before = sorted(tmp_path.iterdir())
    found = prove(whole)
    assert found.previous is None and set(found.keys) == {"ledger", "state"}
    assert sorted(tmp_path.iterdir()) == before, "nothing is left of the trial"
    data = whole.read_bytes()
    bad = tmp_path / f"bad{whole.suffix}"
    for tenth in range(8):
        at = len(data.rstrip(b"\0")) * tenth // 10
        bad.write_bytes(data[:at])
        with pytest.raises(StoreError):
            prove(bad)
    at = data.index(b"jwt_secret") if whole.suffix == ".tar" else len(data) // 2
    bad.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    with pytest.raises(StoreError):
        prove(bad)


def test_copies_go_by_number_and_by_age_but_never_the_newest() -> None:
    day = 86_400
    names = [time.strftime("pool-server-%Y%m%d-%H%M%S.tar.zst", time.gmtime(NOW - n * day)) for n in (0, 1, 5, 30)]
    copies = [Path(name) for name in names]
    assert expired(copies, NOW, keep=10, keep_days=0) == []
    assert expired(copies, NOW, keep=2, keep_days=0) == copies[2:]
    assert expired(copies, NOW, keep=10, keep_days=7) == copies[3:]
    assert expired(copies[3:], NOW, keep=1, keep_days=7) == [], "the newest stays, however old"


def test_the_schedule_runs_and_says_what_is_wrong(data_dir: Path, tmp_path: Path, stores: dict[str, Store]) -> None:
    async def run(folder: Path) -> str:
        plan = BackupSchedule(Backup(str(folder)), stores, data_dir)
        await plan.start()
        await asyncio.sleep(0)
        await plan.close()
        return plan.last_error

    assert asyncio.run(run(tmp_path / "copies")) == ""
    assert len(backup_schedule.list_backups(tmp_path / "copies")) == 1
    (tmp_path / "file").write_text("")
    assert "file" in asyncio.run(run(tmp_path / "file"))


def crashed(folder: Path, count: int) -> list[bytes]:
    """A server that was killed with records in its write-ahead log alone; what those are."""
    script = (
        "import sys, os, pathlib; from pool_server.storage.lmdb.log_file import LogFile\n"
        "log = LogFile(pathlib.Path(sys.argv[1]), size=1 << 16)\n"
        "log.append([b'old']); log.begin_anew()\n"
        "log.append([b'record %d' % n for n in range(int(sys.argv[2]))]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder), str(count)], check=False, timeout=60)
    return [b"record %d" % number for number in range(count)]


@pytest.mark.parametrize("name", ["b.tar", "b.tar.zst"])
@pytest.mark.parametrize("workers", [1, 3])
def test_what_a_crashed_server_had_logged_is_in_a_backup(
    data_dir: Path, tmp_path: Path, name: str, workers: int
) -> None:
    wanted = [record for _ in range(workers) for record in crashed(data_dir / "ledger", 40)]
    done = backup_folder(data_dir, tmp_path / name, now=NOW)
    assert "ledger/journal-backup" in done.files
    assert len(list((data_dir / "ledger").glob("journal-*"))) == workers, "the server that starts next needs them"
    restore(tmp_path / name, tmp_path / "fresh")
    (taken,) = list(orphans(tmp_path / "fresh" / "ledger"))
    assert sorted(taken) == sorted(wanted)


def test_what_a_running_server_has_logged_and_not_stored_is_too(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store]
) -> None:
    log = LogFile(data_dir / "ledger", size=1 << 16)
    log.append([b"not stored yet"])
    backup(stores, data_dir, tmp_path / "b.tar", now=NOW)
    log.close()
    restore(tmp_path / "b.tar", tmp_path / "fresh")
    assert list(orphans(tmp_path / "fresh" / "ledger")) == [[b"not stored yet"]]


def test_what_was_left_elsewhere_is_too(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "places", lambda folder: [tmp_path / "none", tmp_path])
    log_file.leave(data_dir / "ledger", [b"no room in data"])
    backup_folder(data_dir, tmp_path / "b.tar", now=NOW)
    monkeypatch.setattr(log_file, "places", lambda folder: [folder])
    restore(tmp_path / "b.tar", tmp_path / "fresh")
    assert list(orphans(tmp_path / "fresh" / "ledger")) == [[b"no room in data"]]


def test_without_logged_records_there_is_no_log_in_a_backup(data_dir: Path, tmp_path: Path) -> None:
    LogFile(data_dir / "ledger", size=1 << 16).close(keep=True)
    assert "ledger/journal-backup" not in backup_folder(data_dir, tmp_path / "b.tar", now=NOW).files
