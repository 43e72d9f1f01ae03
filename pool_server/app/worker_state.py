"""What a supervisor and its workers share: which of them leads, and when each was seen alive last.

Whoever leads holds a lock that the kernel drops with the process: who does the leader's last duty when that died is
then told by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile


class LeaderLock:
    """Made before the workers are forked, who share its file; each holds the lock for itself."""

    def __init__(self) -> None:
        """Raises OSError."""
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("pool-server-leader")
        else:
            self._descriptor, path = tempfile.mkstemp(prefix="pool-server-leader-")
            os.unlink(path)

    def take(self) -> bool:
        """Whether this process has it now, and keeps it to its end; False while another one has it."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the file, and of the lock where this process has it."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class Heartbeats:
    """When each worker's event loop ran last, in memory that is shared over a fork. Times are monotonic seconds."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, workers * _BEAT.size)

    def beat(self, worker: int, now: float) -> None:
        """The worker's loop runs."""
        _BEAT.pack_into(self._memory, worker * _BEAT.size, now)

    def begin(self, worker: int) -> None:
        """A process is started for the worker: until its loop runs nothing is expected of it."""
        self.beat(worker, 0.0)

    def silent_s(self, worker: int, now: float) -> float:
        """How long its loop has not run, 0 for one that has not begun."""
        (last,) = _BEAT.unpack_from(self._memory, worker * _BEAT.size)
        return max(0.0, now - last) if last else 0.0


_BEAT = struct.Struct("d")
