"""A data folder on a file system that takes no writes: what is there is served, and nothing is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.failpoints.runs import Server, _recorded, ask, world
from tests.process import until

_WRITES = os.O_WRONLY | os.O_RDWR


def take_no_writes(data: Path, while_there: Path) -> None:
    """Below `data` nothing can be written in this process, as long as the file `while_there` is."""
    place = os.path.realpath(data)

    def guarded(real: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            below = isinstance(args[0], str | bytes | os.PathLike) and os.fsdecode(args[0]).startswith(place)
            if below and while_there.exists() and writes(*args):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(*args, **kwargs)

        return call

    os.open = guarded(
        os.open, lambda path, flags, *_: bool(flags & os.O_CREAT or (flags & _WRITES and os.path.exists(path)))
    )
    os.mkdir = guarded(os.mkdir, lambda path, *_: not os.path.exists(path))
    for name in ("unlink", "rename", "replace", "rmdir"):
        setattr(os, name, guarded(getattr(os, name), lambda *_: True))
    statvfs = os.statvfs

    def told(path: Any) -> os.statvfs_result:
        found = statvfs(path)
        if not (os.fsdecode(path).startswith(place) and while_there.exists()):
            return found
        fields = list(found)
        fields[8] |= os.ST_RDONLY
        return os.statvfs_result(fields)

    os.statvfs = told


def stores(data: Path) -> list[tuple[str, int]]:
    """The stores' files, and when each was changed."""
    found = [path for folder in ("ledger", "state") for path in (data / folder).iterdir()]
    return sorted((path.name, path.stat().st_mtime_ns) for path in found)


@pytest.mark.parametrize("ends", ["writable again", "read-only", "killed before"])
def test_a_server_on_a_read_only_disk_serves_what_it_can_and_loses_nothing(tmp_path: Path, ends: str) -> None:
    with world(tmp_path, expired=False) as shared:
        data, guard = Path(shared.settings.data_dir), tmp_path / "ro"
        with Server(shared.settings, tmp_path) as server:
            acknowledged = {ask(server, shared.keys["bob"], number)[1] for number in range(3)}
            if ends == "killed before":  # what it held of limits cannot be settled now
                acknowledged.add(ask(server, shared.keys["ada"], 4)[1])
                server.process.kill()
        guard.touch()
        before = stores(data)
        with Server(shared.settings, tmp_path, prepare=partial(take_no_writes, data, guard)) as server:
            said = (tmp_path / "out").read_text(encoding="utf-8")
            assert server.url and "is read-only: what is there is served" in said, said
            for number in range(10, 13):
                status, ident = ask(server, shared.keys["bob"], number)
                assert status == 200
                acknowledged.add(ident)
            assert ask(server, shared.keys["ada"], 14)[0] == 503, "only the disk can keep her limits"
            status, _, told = server.call("GET", "/readyz", "")
            assert status == 503 and b"store_failed" in told
            assert stores(data) == before
            if ends == "writable again":
                guard.unlink()
                until(lambda: server.call("GET", "/readyz", "")[0] == 200, "it writes again")
                assert ask(server, shared.keys["ada"], 15)[0] == 200
        assert acknowledged <= {record.id for record in _recorded(data, shared.settings)}
