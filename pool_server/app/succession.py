"""Who does the leader's last duty when the leader died: a lock that the kernel drops with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
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
