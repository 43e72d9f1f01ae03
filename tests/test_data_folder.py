"""A data folder that is removed or replaced under the running server is seen, told, and what it held is kept."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool_server.app import upkeep as upkeep_module
from pool_server.app.lifecycle.worker import HOPELESS
from pool_server.app.server import open_durable
from pool_server.app.upkeep import Upkeep
from pool_server.core.settings import Settings
from pool_server.ledger import Ledger
from pool_server.storage import FolderIdentity, Store, StoreError, folder_identity, lock_folder, rescue, restore
from pool_server.storage.lmdb import log_file
from tests.fakes import FakeProviders, Gate, account, fake_settings, plays
from tests.gateway.stack import messages
from tests.process import PoolProcess, until
from tests.test_workers import Line


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    lock = lock_folder(folder)
    stores = [Store.open(folder / name, tables=("a",), durable=name == "ledger") for name in ("ledger", "state")]
    (folder / "jwt_secret").write_text("hush")
    yield folder
    for store in stores:
        store.close()
    lock.close()


def move_and_copy(data: Path) -> None:
    data.rename(data.with_name("away"))
    shutil.copytree(data.with_name("away"), data)


def gone(data: Path) -> None:
    """Removed, whatever a server that does not know it yet writes into it meanwhile."""
    while data.exists():
        shutil.rmtree(data, ignore_errors=True)


def empty(data: Path) -> None:
    for path in data.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def replace_file(name: str) -> Callable[[Path], None]:
    def replace(data: Path) -> None:
        (data / name).rename(data / "old")
        shutil.copy(data / "old", data / name)

    return replace


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "emptied": empty,
    "replaced": move_and_copy,
    "a file in its place": lambda data: (data.rename(data.with_name("away")), data.write_text("")),
    "its ledger removed": lambda data: shutil.rmtree(data / "ledger"),
    "its state replaced": replace_file("state/data.mdb"),
    "its lock removed": lambda data: (data / "server.lock").unlink(),
}


@pytest.mark.parametrize("how", CHANGES)
def test_it_is_seen(data: Path, how: str) -> None:
    identity = FolderIdentity(data)
    assert identity.changed() == ""
    CHANGES[how](data)
    assert re.search(r"was removed|in the place of", identity.changed())
    assert identity.small == {"jwt_secret": b"hush"}, "as it was while all was well"


def test_what_belongs_to_its_life_is_no_change(data: Path) -> None:
    identity = FolderIdentity(data)
    (data / "jwt_secret").write_text("rotated")
    (data / "new").write_text("x")
    (data / "ledger" / "journal-1").write_text("x")
    assert identity.changed() == "" and identity.small["jwt_secret"] == b"rotated"


def test_what_cannot_be_looked_at_is_no_change(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = FolderIdentity(data)

    def stale(path: Path) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(folder_identity, "_id", stale)
    assert identity.changed() == ""


def test_the_second_look_ends_the_server_and_a_folder_that_comes_back_does_not(data: Path) -> None:
    told: list[str] = []
    gone: list[str] = []
    upkeep = Upkeep(
        {},
        FolderIdentity(data),
        [],
        leader=False,
        on_lost=lambda: told.append(upkeep.lost),
        gone=lambda: gone.append(upkeep.lost),
    )
    upkeep.look()
    away = data.rename(data.with_name("away"))
    upkeep.look()
    assert told == [f"{data} was removed"] and gone == []
    away.rename(data)
    upkeep.look()
    upkeep.look()
    assert told == [f"{data} was removed", ""] and gone == []
    data.rename(away)
    upkeep.look()
    upkeep.look()
    assert gone == [f"{data} was removed"]
    away.rename(data)


def test_what_it_held_is_kept_where_there_is_a_place(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "other" / "ledger", tables=("a",), durable=True)
    store.write(lambda t: t.put("a", b"k", b"v"))
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "far").mkdir()
    monkeypatch.setattr(log_file, "places", lambda folder: [folder, tmp_path / "none", tmp_path / "far"])
    kept = rescue({"ledger": store}, {"jwt_secret": b"hush"}, tmp_path / "other", now=0.0)
    store.close()
    assert kept == tmp_path / "far" / "pool-server-rescued-19700101-000000.tar.zst"
    assert kept.stat().st_mode & 0o777 == 0o600
    restore(kept, tmp_path / "fresh")
    again = Store.open(tmp_path / "fresh" / "ledger", tables=("a",), durable=True)
    assert again.get("a", b"k") == b"v"
    again.close()
    assert (tmp_path / "fresh" / "jwt_secret").read_bytes() == b"hush"
    monkeypatch.setattr(log_file, "places", lambda folder: [folder, tmp_path / "none"])
    with pytest.raises(StoreError, match="No such file"):
        rescue({}, {}, tmp_path / "other", now=0.0)


def test_the_end_of_the_server_looks_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another worker may have seen it first, and ended all before this one looked."""
    store = Store.open(tmp_path / "data" / "ledger", tables=("a",), durable=True)
    monkeypatch.setattr(log_file, "places", lambda folder: [folder, tmp_path])
    upkeep = Upkeep({"ledger": store}, FolderIdentity(tmp_path / "data"), [], leader=True)
    asyncio.run(upkeep.rescue())
    assert list(tmp_path.glob("pool-server-rescued-*")) == [], "it is there"
    shutil.rmtree(tmp_path / "data")
    asyncio.run(upkeep.rescue())
    store.close()
    assert len(list(tmp_path.glob("pool-server-rescued-*"))) == 1
    assert upkeep.lost and "pool-server restore" in caplog.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_whose_data_folder_is_removed_says_so_and_loses_nothing(tmp_path: Path, workers: str) -> None:
    with FakeProviders([account("claude:one")]) as fakes:
        fakes.always("claude:one", plays.ok())
        settings = fake_settings(tmp_path, fakes, drain_s=1)
        with PoolProcess(tmp_path, settings, "--workers", workers) as pool:
            for number in range(10):
                ask(pool, number)
            shutil.rmtree(settings.data_dir)
            ask(pool, 10)
            health = until(lambda: lost(pool), "the health says it", within_s=upkeep_module.EVERY_S * 2)
            assert health["status"] == "data_folder_lost"
            assert pool.wait() == (HOPELESS if workers == "1" else 1)
        kept = re.search(r"restore (\S+)`", pool.log())
        assert kept is not None, pool.log()
        restore(Path(kept[1]), Path(settings.data_dir))
        Path(kept[1]).unlink()
        assert recorded(settings) == 11
        with PoolProcess(tmp_path, settings, "--workers", workers) as pool:
            ask(pool, 11)
            pool.signal(signal.SIGTERM)
            pool.wait()
        assert recorded(settings) == 12


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="tells workers apart by what /proc says")
@pytest.mark.parametrize("played", ["stalls", "is slow to begin"])
def test_the_copy_has_what_another_worker_was_answering(tmp_path: Path, played: str) -> None:
    """The leader has nothing to drain and is done at once."""
    with FakeProviders([account("claude:one")]) as fakes:
        settings = fake_settings(tmp_path, fakes, drain_s=3)
        with PoolProcess(tmp_path, settings, "--workers", "2") as pool:
            pids = until(lambda: len(found := pool.children()) == 2 and found, "two workers")
            line = until(lambda: line_to(pids[1], pool), "a line to the one that is no leader")
            fakes.always("claude:one", PLAYS[played](gate := Gate()))
            line.begin("POST", "/v1/messages", messages(session="s-0"))
            assert gate.wait_reached()
            shutil.rmtree(settings.data_dir)
            assert pool.wait(60) == 1
            line.http.close()
        kept = re.search(r"restore (\S+)`", pool.log())
        assert kept is not None, pool.log()
        restore(Path(kept[1]), Path(settings.data_dir))
        Path(kept[1]).unlink()
        assert recorded(settings) == 1


def test_the_copy_does_not_wait_for_ever_for_another_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store.open(tmp_path / "data" / "ledger", tables=("a",), durable=True)
    monkeypatch.setattr(log_file, "places", lambda folder: [folder, tmp_path])
    upkeep = Upkeep({"ledger": store}, FolderIdentity(tmp_path / "data"), [], leader=True)
    shutil.rmtree(tmp_path / "data")
    read, write = os.pipe()
    asyncio.run(upkeep.rescue(read, within_s=0.05))
    assert "another worker has not ended" in caplog.text and "pool-server restore" in caplog.text
    caplog.clear()
    os.close(write)
    asyncio.run(upkeep.rescue(read, within_s=60))
    assert "another worker has not ended" not in caplog.text and "pool-server restore" in caplog.text
    os.close(read)
    store.close()


PLAYS = {"stalls": plays.stall, "is slow to begin": plays.slow_headers}


def line_to(pid: int, pool: PoolProcess) -> Line | None:
    line = Line(int(pool.url.rpartition(":")[2]))
    line.call("GET", "/healthz")
    if line.worker([pid]) == pid:
        return line
    line.http.close()
    return None


def ask(pool: PoolProcess, number: int) -> None:
    assert pool.call("POST", "/v1/messages", messages(stream=False, session=f"s-{number}"))[0] == 200


def lost(pool: PoolProcess) -> dict[str, str] | None:
    status, body = pool.call("GET", "/healthz")
    return body if status == 503 else None


def recorded(settings: Settings) -> int:
    store = open_durable(Path(settings.data_dir))
    try:
        return int(Ledger(store, settings).queries.total(0, 1e11)["requests"])
    finally:
        store.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="tells workers apart by what /proc says")
@pytest.mark.parametrize(("who", "first"), [(0, "removed"), (0, "killed"), (1, "removed")])
def test_a_worker_that_dies_when_the_folder_is_gone_is_not_started_on_an_empty_one(
    tmp_path: Path, who: int, first: str
) -> None:
    """Where the leader dies, one of the others saves what it held."""
    with FakeProviders([account("claude:one")]) as fakes:
        fakes.always("claude:one", plays.ok())
        settings = fake_settings(tmp_path, fakes, drain_s=1)
        with PoolProcess(tmp_path, settings, "--workers", "3") as pool:
            pids = until(lambda: len(found := pool.children()) == 3 and found, "three workers")
            for number in range(10):
                ask(pool, number)
            until(lambda: recorded(settings) == 10, "the store has what only the journals had, which nobody can save")
            if first == "killed":
                os.kill(pids[who], signal.SIGKILL)
            gone(Path(settings.data_dir))
            if first == "removed":
                os.kill(pids[who], signal.SIGKILL)
            assert pool.wait(60) == 1
        kept = re.findall(r"restore (\S+)`", pool.log())
        assert len(kept) == 1 and not Path(settings.data_dir).exists(), pool.log()
        restore(Path(kept[0]), Path(settings.data_dir))
        Path(kept[0]).unlink()
        assert recorded(settings) == 10


def test_a_store_that_is_made_later_is_known_from_then_on(tmp_path: Path) -> None:
    identity = FolderIdentity(tmp_path)
    store = Store.open(tmp_path / "ledger", tables=("a",), durable=True)
    assert identity.changed() == ""
    shutil.rmtree(tmp_path / "ledger")
    assert "was removed" in identity.changed()
    store.close()
