"""Counters of several workers as one: each keeps its own in a file that the worker asked by Prometheus reads.

The Prometheus client chooses where values live when it is first imported, so this precedes whatever counts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM = 16 << 20  # bytes
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the client library's own variable


@contextlib.contextmanager
def shared_metrics(workers: int) -> Iterator[None]:
    """For as long as the block lasts, counters of forked workers are kept where each of them can read all.

    One worker needs no files. Raises OSError when no temporary folder can be made.
    """
    if workers == 1:
        yield
        return
    folder = tempfile.mkdtemp(prefix="pool-server-metrics-", dir=_in_memory())
    os.environ[_FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[_FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def _in_memory() -> Path | None:
    """A file system in memory, where there is one with free space. The files are mapped: on a full disk the kernel
    kills whoever touches a new page of one."""
    try:
        if os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
            return _MEMORY
    except OSError:
        pass
    return None


def worker_ended(pid: int) -> None:
    """What was live in a worker that has ended is live no more; what it counted stays counted."""
    if _FOLDER in os.environ:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
