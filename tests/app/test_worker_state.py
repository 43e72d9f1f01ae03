"""What a supervisor and its workers share."""

from __future__ import annotations

import multiprocessing
import signal
import socket
from pathlib import Path

import pytest

from pool_server.app.lifecycle.incumbent import Incumbent
from pool_server.app.supervisor import HUNG_S, LOOK_S, Supervisor
from pool_server.app.worker_state import Heartbeats, LeaderLock
from pool_server.storage import lock_folder


def test_only_a_loop_that_ran_can_be_silent() -> None:
    beats = Heartbeats(3)
    assert beats.silent_s(1, 1e9) == 0.0
    beats.beat(1, 100.0)
    assert [beats.silent_s(worker, 130.0) for worker in range(3)] == [0.0, 30.0, 0.0]
    assert beats.silent_s(1, 90.0) == 0.0
    beats.begin(1)
    assert beats.silent_s(1, 1e9) == 0.0


def test_a_beat_of_another_process_is_seen() -> None:
    beats = Heartbeats(2)
    child = multiprocessing.get_context("fork").Process(target=beats.beat, args=(1, 7.0))
    child.start()
    child.join()
    assert beats.silent_s(1, 8.0) == 1.0


class Watched(Supervisor):
    """A supervisor of two processes that are none; `killed` are those that it ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.now = 1000.0
        incumbent = Incumbent(folder, lock_folder(folder), [], address="", url="", given=None)
        super().__init__(2, lambda number, life: 0, leaving=lambda: None, incumbent=incumbent, clock=lambda: self.now)
        self.killed: list[tuple[int, int]] = []
        monkeypatch.setattr("os.kill", lambda pid, number: self.killed.append((pid, number)))
        for worker in self._workers:
            worker.pid = 100 + worker.number
            self._heartbeats.beat(worker.number, self.now)

    def look(self, seconds: float, beating: tuple[int, ...]) -> None:
        self.now += seconds
        for worker in beating:
            self._heartbeats.beat(worker, self.now)
        self._end_hung()


def test_a_worker_that_hangs_is_ended_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watched = Watched(monkeypatch, tmp_path)
    for _ in range(int(HUNG_S / LOOK_S)):
        watched.look(LOOK_S, (0,))
    assert watched.killed == []
    for _ in range(3):
        watched.look(LOOK_S, (0,))
    assert watched.killed == [(101, signal.SIGKILL)]


@pytest.mark.parametrize("gone_s", [2 * LOOK_S + 1, 3600.0])
def test_who_was_stopped_along_with_its_workers_judges_nobody(
    monkeypatch: pytest.MonkeyPatch, gone_s: float, tmp_path: Path
) -> None:
    watched = Watched(monkeypatch, tmp_path)
    watched.look(gone_s, ())
    watched.look(LOOK_S, ())
    assert watched.killed == []
    watched.look(LOOK_S, (0, 1))
    for _ in range(int(HUNG_S / LOOK_S) + 1):
        watched.look(LOOK_S, (1,))
    assert watched.killed == [(100, signal.SIGKILL)]


def test_the_lock_of_a_leader_is_free_when_its_process_has_ended() -> None:
    lock = LeaderLock()
    here, there = socket.socketpair()

    def lead() -> None:
        there.send(b"1" if lock.take() else b"0")
        there.recv(1)

    child = multiprocessing.get_context("fork").Process(target=lead)
    child.start()
    assert here.recv(1) == b"1"
    assert not lock.take()
    here.send(b"x")
    child.join()
    assert lock.take()
    lock.close()
    here.close()
    there.close()
