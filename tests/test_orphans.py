"""Workers whose supervisor was killed leave at once, whatever they are doing; a new server starts meanwhile, and no
token and no record is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_server.core import processes
from pool_server.storage import StoreLockedError, join_folder, lock_folder, restore, wait_for_workers
from tests.fakes import FakeProviders, Gate, Play, account, fake_settings
from tests.process import PoolProcess, until
from tests.test_server import MESSAGE, Stream, alive

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")


class Orphans:
    """A pool of two workers on two accounts, and the server that is started when their supervisor was killed."""

    def __init__(self, folder: Path, fakes: FakeProviders) -> None:
        self.fakes = fakes
        self.folder = folder
        self.settings = fake_settings(folder, fakes)
        self.pool = PoolProcess(folder, self.settings, "--workers", "2").__enter__()
        self.workers = until(lambda: len(found := self.pool.children()) == 2 and found, "two workers")
        until(lambda: all(_listens(pid) for pid in self.workers), "both serve")

    def bereave(self) -> None:
        self.pool.signal(signal.SIGKILL)
        self.pool.wait()

    def end(self) -> None:
        for pid in self.workers:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.pool.__exit__()

    def leave(self) -> None:
        until(lambda: not any(alive(pid) for pid in self.workers), "the workers have left")


def _listens(pid: int) -> bool:
    """It has begun to heed signals, which it does before it serves."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGHUP - 1))


@pytest.fixture
def orphans(tmp_path: Path) -> Iterator[Orphans]:
    with FakeProviders([account("claude:one"), account("claude:two", priority=200)]) as fakes:
        here = Orphans(tmp_path, fakes)
        yield here
        here.end()


def outcomes(pool: PoolProcess) -> list[str]:
    return sorted(row["outcome"] for row in pool.call("GET", "/admin/requests")[1]["requests"])


def test_a_refresh_under_way_goes_on_beside_the_new_server(orphans: Orphans) -> None:
    fakes, gate = orphans.fakes, Gate()
    one = fakes.accounts["claude:one"]
    one.revoke()
    fakes.then("claude:one", Play(gate=gate), on="token")
    asking = threading.Thread(target=lambda: _quietly(orphans.pool))
    asking.start()
    assert gate.wait_reached()
    orphans.bereave()
    with PoolProcess(orphans.folder, orphans.settings, "--workers", "2") as new:
        assert any(alive(pid) for pid in orphans.workers), "one waits for the token"
        assert new.call("POST", "/v1/messages", MESSAGE)[0] == 200, "the other account serves"
        gate.open()
        orphans.leave()
        kept = json.loads((orphans.folder / "pool" / "claude_one.json").read_text())["claudeAiOauth"]
        assert kept["refreshToken"] == one.refresh and len(one.spent) == 1
        rows = new.call("GET", "/admin/accounts")[1]["accounts"]
        assert {row["id"]: row["state"] for row in rows} == {"claude:one": "ready", "claude:two": "ready"}
    asking.join()


def _quietly(pool: PoolProcess) -> None:
    try:
        pool.call("POST", "/v1/messages", MESSAGE)
    except OSError:
        pass  # its worker has left


@pytest.mark.parametrize("how", ["serves", "drains", "is stopped"])
def test_a_worker_leaves_whatever_it_does(orphans: Orphans, how: str) -> None:
    streaming, hanging = Gate(), Gate()
    orphans.fakes.then("claude:one", Play(gate=streaming, gate_at=4), Play(gate=hanging, gate_at=-1))
    stream = Stream(orphans.pool).started()
    assert streaming.wait_reached()
    asking = threading.Thread(target=lambda: _quietly(orphans.pool))
    asking.start()
    assert hanging.wait_reached()
    if how == "drains":
        orphans.pool.signal(signal.SIGTERM)
        until(orphans.pool.refuses, "the listener is closed")
    if how == "is stopped":
        for pid in orphans.workers:
            os.kill(pid, signal.SIGSTOP)
    orphans.bereave()
    with PoolProcess(orphans.folder, orphans.settings, "--workers", "2") as new:
        assert new.call("POST", "/v1/messages", MESSAGE)[0] == 200
        orphans.leave()
        assert "message_stop" not in stream.rest()
        until(lambda: outcomes(new) == ["cut", "cut", "ok"], "what was cut is recorded")
    for gate in (streaming, hanging):
        gate.open()
    asking.join()


BLOCKED = """
import os, socket, sys, time
from pool_server.app import parent_watch
parent_watch.PORTS_S = parent_watch.LONGEST_S = 0.05
port = socket.create_server(("127.0.0.1", 0))
watch = parent_watch.ParentWatch(0, [port])
watch.start()
print(port.getsockname()[1], flush=True)
time.sleep(600)
"""


def test_a_worker_that_is_blocked_is_ended() -> None:
    """Its event loop hears nothing: the port is given up and the process ended without it."""
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        port = int(child.stdout.readline())
        child.stdin.close()
        assert child.wait(60) == 1
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_server_does_not_wait_for_its_own_workers_and_a_restore_waits_for_others(tmp_path: Path) -> None:
    with lock_folder(tmp_path), join_folder(tmp_path), join_folder(tmp_path):
        assert not wait_for_workers(tmp_path, 0)
    with lock_folder(tmp_path):
        assert wait_for_workers(tmp_path, 0)


def test_nothing_is_restored_over_what_a_worker_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[restore.__module__], "_WORKERS_S", 0)
    with join_folder(tmp_path), pytest.raises(StoreLockedError, match="still uses"):
        restore(tmp_path / "copy", tmp_path)


def test_the_kernel_takes_the_wish_to_be_continued() -> None:
    processes.continue_without_parent()
