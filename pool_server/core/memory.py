"""Gives memory back to the system: what the C library keeps after a burst, and what is large, beside the event loop."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable


def trim() -> bool:
    """Returns whether anything was given back; False where the C library knows no such call (musl, macOS). Takes up
    to tens of milliseconds and lets other threads run."""
    found = getattr(_libc(), "malloc_trim", None)
    return bool(found(0)) if found is not None else False


def beside_the_loop(work: Callable[..., object], *args: object) -> None:
    """Runs in a thread what takes the kernel long (unmapping, freeing tens of megabytes); at once where no event loop
    runs."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        work(*args)
    else:
        loop.run_in_executor(None, work, *args)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
