"""Gives memory back to the system that the C library keeps after a burst."""

from __future__ import annotations

import ctypes


def trim() -> bool:
    """Returns whether anything was given back; False where the C library knows no such call (musl, macOS). Takes up
    to tens of milliseconds and lets other threads run."""
    found = getattr(_libc(), "malloc_trim", None)
    return bool(found(0)) if found is not None else False


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
