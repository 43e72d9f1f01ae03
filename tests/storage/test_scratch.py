"""What killed processes leave: scratch folders and places of readers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path

import pytest

from pool_server.app.upkeep import Upkeep
from pool_server.storage import FolderIdentity, Store, backup_folder, sweep_scratch
from pool_server.storage.backup import SCRATCH
from pool_server.storage.scratch import YOUNG_S, scratch_folder, sweep

HOLD_SCRATCH = (
    "import sys, time, pathlib; from pool_server.storage.scratch import scratch_folder\n"
    "with scratch_folder(pathlib.Path(sys.argv[1]), '.backup-') as folder:\n"
    "    (folder / 'ledger').mkdir(); print(folder, flush=True); time.sleep(60)"
)
HOLD_READER = (
    "import sys, time, pathlib; from pool_server.storage import Store\n"
    "store = Store.open(pathlib.Path(sys.argv[1]), tables=('a',), durable=False)\n"
    "with store.read() as reader:\n"
    "    reader.get('a', b'k'); print('reading', flush=True); time.sleep(60)"
)


@contextmanager
def running(script: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    child = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def later() -> float:
    return time.time() + 2 * YOUNG_S


def test_a_killed_backup_leaves_nothing_for_long(tmp_path: Path) -> None:
    with running(HOLD_SCRATCH, tmp_path) as (child, name):
        assert sweep(tmp_path, SCRATCH, ("ledger",), now=later()) == 0, "its process lives"
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert Path(name).is_dir()
        assert sweep(tmp_path, SCRATCH, ("ledger",)) == 0, "so new that it may not have been locked yet"
        assert sweep(tmp_path, SCRATCH, ("ledger",), now=later()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_next_backup_sweeps_before_it_writes(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data" / "ledger", tables=("a",), durable=True)
    store.write(lambda t: t.put("a", b"k", b"v"))
    store.close()
    left = tmp_path / f"{SCRATCH}k1ll3d"
    (left / "ledger").mkdir(parents=True)
    (left / "ledger" / "data.mdb").write_bytes(b"half")
    os.utime(left, (1, 1))
    backup_folder(tmp_path / "data", tmp_path / "b.tar", now=0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data"]


@pytest.mark.parametrize("what", ["other content", "a file", "a link", "somebody else's"])
def test_what_only_looks_like_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    path = tmp_path / f"{SCRATCH}2025"
    if what == "a file":
        path.write_text("mine")
    elif what == "a link":
        (tmp_path / "real").mkdir()
        path.symlink_to(tmp_path / "real")
    else:
        path.mkdir()
        if what == "other content":
            (path / "photos").mkdir()
        else:
            monkeypatch.setattr("pool_server.storage.scratch.os.geteuid", lambda: os.getuid() + 1)
    assert sweep(tmp_path, SCRATCH, ("ledger", "state", "backup"), now=time.time() + 1e6) == 0
    assert path.exists()
    assert sweep(tmp_path / "none", SCRATCH, ()) == 0


def test_a_scratch_folder_goes_with_its_block(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, ".x-") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "f").write_text("")
    with pytest.raises(LookupError), scratch_folder(tmp_path, ".x-"):
        raise LookupError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("durable", [True, False])
def test_a_killed_reader_does_not_make_the_store_grow(tmp_path: Path, durable: bool) -> None:
    store = Store.open(tmp_path / "state", tables=("a",), durable=durable)
    store.write(lambda t: t.put("a", b"k", b"v" * 20_000))

    def rounds(count: int) -> int:
        for number in range(count):
            store.write(methodcaller("put", "a", b"k", bytes([number % 256]) * 20_000))
        return store.size()

    usual = rounds(30)
    with running(HOLD_READER, tmp_path / "state") as (child, told):
        assert told == "reading"
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = rounds(30)
        assert kept > usual, "the dead reader's pages are not used again"
        upkeep = Upkeep({"state": store}, FolderIdentity(tmp_path), [], leader=True)
        upkeep.free_readers()
        upkeep.free_readers()
    assert rounds(60) == kept
    store.close()


@pytest.mark.slow
def test_a_living_reader_keeps_what_it_sees(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", tables=("a",), durable=False)
    with running(HOLD_READER, tmp_path / "state"):
        assert store.free_readers() == 0
    assert store.free_readers() == 1
    store.close()
    Upkeep({"state": store}, FolderIdentity(tmp_path), [tmp_path], leader=True).free_readers()
    assert sweep_scratch(tmp_path) == 0


@pytest.mark.parametrize(("step", "told"), [(-172_800.0, "back by 172800"), (3600.0, "ahead by 3600"), (0.5, "")])
def test_a_step_of_the_clock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: float, told: str
) -> None:
    upkeep = Upkeep({}, FolderIdentity(tmp_path), [], leader=True)
    upkeep.watch_clock()
    real = time.time
    monkeypatch.setattr("pool_server.app.upkeep.time.time", lambda: real() + step)
    upkeep.watch_clock()
    upkeep.watch_clock()
    assert caplog.text.count("the clock went") == bool(told) and told in caplog.text
