"""Scenarios: what a fake provider does with one call; values, changed with `but`.

A `Play` without arguments is the good answer. The helpers below name the faults of the vendors; those that need
the vendor's own words live in `faults.py`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pool_server.core.models import Usage


class Gate:
    """A place in an answer where the fake provider stops until the test lets it go on; no clock is involved.

    Works from the loop the provider runs in (`await gate.reached()`), and from another thread
    (`gate.wait_reached(timeout)`, `gate.open()`).
    """

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._reached = asyncio.Event()
        self._reached_thread = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def stop_here(self) -> None:
        """Called by the provider."""
        self._loop = asyncio.get_running_loop()
        self._reached.set()
        self._reached_thread.set()
        await self._opened.wait()

    async def reached(self) -> None:
        await asyncio.wait_for(self._reached.wait(), 60)

    def wait_reached(self, timeout: float = 10.0) -> bool:
        return self._reached_thread.wait(timeout)

    def open(self) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop is None or here is self._loop:
            self._opened.set()
        else:
            self._loop.call_soon_threadsafe(self._opened.set)


@dataclasses.dataclass(frozen=True)
class Play:
    """One scripted behaviour.

    `status`, `headers`, `body`: an answer instead of the good one (`body` bytes or JSON-able; None = the good
    one). `usage`, `pieces`: the counts and the text of the good answer. `events`: the exact SSE events instead.
    `insert`: more bytes before event `insert_at`. `cut_at`: the connection is aborted before event n, in the
    middle of it with `cut_inside`. `end_at`: a clean end before event n. `gate`: where the provider stops:
    before event `gate_at`, -1 = before the headers. `slice`: bytes are sent n at a time. `close_at_arrival`:
    the connection goes before the body is read. `also`: called with the account and the call when the play
    begins (to kill another account, say). `tools`: the model asks for the first of these tools the request offers
    (name → arguments), once a turn; `asked` is then called like `also`.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: Any = None
    content_type: str = "application/json"
    usage: Usage | None = None
    pieces: Sequence[str] | None = None
    events: Sequence[bytes] | None = None
    insert: bytes = b""
    insert_at: int = 0
    cut_at: int | None = None
    cut_inside: bool = False
    end_at: int | None = None
    gate: Gate | None = None
    gate_at: int = -1
    slice: int = 0
    close_at_arrival: bool = False
    also: Callable[[Any, Any], None] | None = None
    tools: Mapping[str, Mapping[str, Any]] | None = None
    asked: Callable[[Any, Any], None] | None = None

    def but(self, **changes: Any) -> Play:
        """This play with other fields."""
        return dataclasses.replace(self, **changes)


def ok(usage: Usage | None = None, pieces: Sequence[str] | None = None, **headers: str) -> Play:
    """The good answer with these counts; headers are given as `x_codex_primary_used_percent="25"`."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Play(usage=usage, pieces=pieces, headers=named)


def status(code: int, body: Any = "", *, content_type: str = "application/json", **headers: str) -> Play:
    """A plain answer with this status; `body` bytes, text or JSON-able."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Play(status=code, body=body, content_type=content_type, headers=named)


def cut(at: int = 5, *, inside: bool = True) -> Play:
    """The connection breaks in event `at` (before it with `inside=False`)."""
    return Play(cut_at=at, cut_inside=inside)


def clean_end(at: int = 5) -> Play:
    """The stream ends cleanly before event `at`, without the terminal event."""
    return Play(end_at=at)


def stall(gate: Gate, at: int = 5) -> Play:
    """Nothing more comes before event `at` until the gate is opened."""
    return Play(gate=gate, gate_at=at)


def slow_headers(gate: Gate) -> Play:
    """No headers until the gate is opened."""
    return Play(gate=gate, gate_at=-1)


def never() -> Play:
    """No answer at all, for as long as the caller waits."""
    return Play(gate=Gate(), gate_at=-1)


def byte_by_byte() -> Play:
    return Play(slice=1)


def closes() -> Play:
    """The connection is closed as soon as the request's headers are there."""
    return Play(close_at_arrival=True)


def huge_event(size: int = 64 << 20, at: int = 5) -> Play:
    """One comment-free event of `size` bytes within the stream, of a kind no client renders."""
    return Play(insert=b'data: {"type":"filler","filler":"' + b"x" * size + b'"}\n\n', insert_at=at)
