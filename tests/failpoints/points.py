"""Where a server can be made to fail: every call that changes the disk, every commit, every lease, every answer of a
token endpoint.

The hooks are put around the real calls in a process of a test's own, so that a release has none of them.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.gateway.upstream import Upstream
from pool_server.storage.leases import EmbeddedLeases
from pool_server.storage.lmdb.engine import Engine

CALLS = ("fsync", "fdatasync", "rename", "replace", "pwrite", "unlink", "mkdir")  # of the module os
COMMITS = ("ledger", "state")
LEASES = ("take lease", "give lease")  # in the transaction
TOKEN = ("before token", "after token")  # the call of a token endpoint
PLACES = (
    *CALLS,
    "create",
    *(f"{when} commit {store}" for store in COMMITS for when in ("before", "after")),
    *LEASES,
    *TOKEN,
)
ACTIONS = ("kill", "ENOSPC", "EIO", "EMFILE")
PHASES = ("start", "load")

_open = os.open


class Point(NamedTuple):
    """At the `hit`th passing of `place` (from 1) in `phase`, `action` happens; an error `times` times in a row."""

    place: str
    phase: str
    action: str
    hit: int = 1
    times: int = 1

    def __str__(self) -> str:
        return f"{self.place.replace(' ', '-')}:{self.phase}:{self.action}:{self.hit}:{self.times}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """The inverse of `str`, to replay a failure. Raises ValueError for anything else."""
        place, phase, action, hit, times = text.split(":")
        names = {one.replace(" ", "-"): one for one in PLACES}
        if place not in names:
            raise ValueError(f"no place is called {place}")
        return cls(names[place], phase, action, int(hit), int(times))

    @property
    def sensible(self) -> bool:
        """What is done cannot fail afterwards; an answer that is there is lost only with the process."""
        return self.action == "kill" or not (self.place.startswith("after") or self.place in TOKEN)


class Failpoint:
    """One point, armed in this process. The phase "load" begins when the file `armed` is there."""

    def __init__(self, point: Point, armed: Path, passed: Path) -> None:
        self._point, self._armed, self._passed = point, armed, passed
        self._hits = 0

    def install(self) -> None:
        """Put the hook in its place."""
        place = self._point.place
        if place in CALLS:
            setattr(os, place, self._around(getattr(os, place)))
        elif place == "create":
            os.open = self._around(os.open, lambda args: bool(args[1] & os.O_CREAT))
        elif place in LEASES:
            self._lease("_take" if place == "take lease" else "_give")
        elif place in TOKEN:
            self._token(before=place == "before token")
        else:
            when, _, store = place.split(" ")
            self._commit(store, before=when == "before")

    def _around(self, real: Callable[..., Any], counts: Callable[[Any], bool] = lambda _: True) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if counts(args):
                self.passing()
            return real(*args, **kwargs)

        return call

    def _commit(self, store: str, *, before: bool) -> None:
        real: Any = Engine._run_once

        def run_once(engine: Engine, fn: Callable[[Any], Any]) -> Any:
            if engine.folder.name != store:
                return real(engine, fn)

            def last(txn: Any) -> Any:
                result = fn(txn)
                self.passing(engine=True)
                return result

            result = real(engine, last if before else fn)
            if not before:
                self.passing()
            return result

        Engine._run_once = run_once  # type: ignore[assignment,method-assign]

    def _lease(self, name: str) -> None:
        real = getattr(EmbeddedLeases, name)

        def change(leases: EmbeddedLeases, txn: Any, *said: Any) -> Any:
            changed = real(leases, txn, *said)
            self.passing(engine=True)
            return changed

        setattr(EmbeddedLeases, name, change)

    def _token(self, *, before: bool) -> None:
        real = Upstream.send

        async def send(upstream: Upstream, request: HttpRequest) -> HttpAnswer:
            asked: Awaitable[HttpAnswer] = real(upstream, request)
            if before and "token" in request.url:
                self.passing()
            answer = await asked
            if not before and "token" in request.url:
                self.passing()
            return answer

        Upstream.send = send  # type: ignore[assignment,method-assign]

    def passing(self, *, engine: bool = False) -> None:
        """The place is passed. Kills, raises what the system or the `engine` would, or does nothing."""
        point = self._point
        if (point.phase == "load") != self._armed.exists():
            return
        self._hits += 1
        if not point.hit <= self._hits < point.hit + point.times:
            return
        os.close(_open(self._passed, os.O_WRONLY | os.O_CREAT, 0o600))
        if point.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, point.action)
        if not engine:
            raise OSError(code, os.strerror(code))
        raise lmdb.DiskError(os.strerror(code)) if code == errno.ENOSPC else lmdb.Error(os.strerror(code))
