"""The supervisor's processes, without a pool in them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import PATIENCE_S

# Worker 0 ends, and the one that follows it is told to leave before it has an instruction of its own.
TOLD_AT_BIRTH = """
import os, signal, sys
from pool_server.app import supervisor

supervisor.QUICK_DEATH_S = 0.0  # no wait between two starts
fork, forks = os.fork, 0


def told_at_birth():
    global forks
    forks += 1
    pid = fork()
    if pid == 0 and forks == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return pid


class Alone:
    successor, replaced = None, False

    def ready(self): ...
    def keep_note(self): ...
    def stopping(self): ...


def child(number, life):
    life.tell_started()
    os.write(1, f"{forks}{os.linesep}".encode())
    if forks > 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        os.read(life.parent, 1)  # until the supervisor is gone, whatever becomes of it
    return 1


os.fork = told_at_birth
sys.exit(supervisor.Supervisor(2, child, leaving=lambda: None, incumbent=Alone()).run())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="forks as Linux does")
def test_a_signal_to_a_worker_just_born_is_not_the_supervisors() -> None:
    """Until it has handlers of its own it must not run those of its parent, which speak to the parent."""
    with subprocess.Popen([sys.executable, "-c", TOLD_AT_BIRTH], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert [running.stdout.readline().strip() for _ in range(3)] in (["1", "2", "4"], ["2", "1", "4"])
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE_S) == 0
        finally:
            running.kill()
