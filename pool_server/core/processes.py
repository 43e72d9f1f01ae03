"""Which process is which: names of workers that tell a dead one from a living one, and lives of the machine."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import sys
from pathlib import Path

_SET_SIGNAL_OF_PARENTS_END = 1  # PR_SET_PDEATHSIG of Linux's prctl
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux: changes with every start of the machine
_NUMBERS = Path("/proc/self/ns/pid")  # a link to pid:[NUMBER]: in whose count processes have their numbers …
_FIRST = "pid:[4026531836]"  # … and that of the machine itself: containers on it count for themselves


def epoch() -> str:
    """Names the life of the machine, and of the container where processes are counted in one; "" where the system does
    not say."""
    try:
        numbers = os.readlink(_NUMBERS)
        return _BOOT.read_text().strip()[:8] + ("" if numbers == _FIRST else f"-{numbers[5:-1]}")
    except OSError:
        return ""


def name() -> str:
    """A name for this process that no other one, at any time, has: pid, start time, life of the machine, chance."""
    return f"{os.getpid()}.{_started(os.getpid())}.{epoch()}.{secrets.token_hex(4)}"


def alive(worker: str) -> bool:
    """Whether the process behind a worker's name still runs. A reused pid is told by its start time and by the life of
    the machine; what is no such name is nobody's."""
    pid_text, started, boot, *_ = [*worker.split("."), "", ""]
    try:
        pid = int(pid_text)
    except ValueError:
        return False
    return runs(pid) and started == _started(pid) and boot == epoch()


def same(worker: str) -> bool:
    """As `alive`, whatever life of the machine is told here and there: a container (LXC, systemd-nspawn) covers the
    file with one of its own, and a hardened unit in it sees the machine's. A process of an earlier life would have to
    have the same number and start at the same hundredth of a second."""
    pid_text, started, boot, *_ = [*worker.split("."), "", ""]
    counted = boot.partition("-")[2] == epoch().partition("-")[2]
    return pid_text.isascii() and pid_text.isdigit() and counted and started == _started(int(pid_text)) != "dead"


def ended(worker: str) -> bool:
    """Whether the process behind a worker's name is known to have ended: of one of another machine, or of this one's
    earlier life, nothing is known here."""
    return worker.split(".")[2:3] == [epoch()] and not alive(worker)


def runs(pid: int) -> bool:
    """Whether a process has this number now. Zero and below name groups of processes."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it runs, as somebody else
    return True


def _started(pid: int) -> str:
    """When the process started, in the system's own count; "" where /proc does not say, "dead" for a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # from field 3 on; the name in field 2 may hold spaces
    return "dead" if fields[0] == "Z" else fields[19]  # 3: state, 22: start time


def continue_without_parent() -> None:
    """Have the kernel continue this process when its parent ends while it is stopped (SIGSTOP), so that it can see that
    and leave. Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_SIGNAL_OF_PARENTS_END, int(signal.SIGCONT), 0, 0, 0)
