"""A withdrawn account is gone at once and for good: whatever dies, is full or is under way at that moment."""

from __future__ import annotations

import asyncio
import errno
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pool_server.accounts import RefreshError
from pool_server.accounts.credentials import escrow, files, leftovers, removal, store
from pool_server.accounts.credentials.escrow import Escrow
from pool_server.accounts.credentials.files import TEMPORARY
from pool_server.accounts.credentials.source import PoolFolder
from pool_server.accounts.credentials.store import CredentialStore
from pool_server.core import disk
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import UsagePolling
from tests.accounts.kit import HOUR, NOW, Line, Pool, ask, claude, token_answer

ID, FILE = "claude:ada", "claude_ada.json"
OLD, NOW_THERE, NEXT = "sk-ant-oat01-older", "sk-ant-oat01-there", "sk-ant-oat01-after"
SECRETS = (OLD, NOW_THERE, NEXT)
_TRACED = {module.__file__ for module in (removal, leftovers, escrow, store, disk)}


def ada(token: str, **more: Any) -> dict[str, Any]:
    return claude(token, owner="ada", **more)


def kept(folder: Path) -> set[str]:
    """The secrets that any file below this folder holds."""
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != "state"]
    return {secret for secret in SECRETS if any(secret.encode() in data for data in found)}


def left_behind(folder: Path) -> CredentialStore:
    """A pool folder with all that may hold a part of Ada's sign-in: her file, one that was removed before, a rewrite
    that was broken off, and what the escrow has."""
    credentials = CredentialStore(PoolFolder(folder / "pool"), Escrow(folder))
    (folder / "pool").mkdir()
    (folder / "pool" / FILE).write_text(json.dumps(ada(OLD)))
    credentials.items = credentials.look(NOW).items
    item = credentials.items[ID]
    removal.remove(folder / "pool", item.found, now=NOW - HOUR)
    (folder / "pool" / FILE).write_text(json.dumps(ada(NOW_THERE)))
    (folder / "pool" / f".{FILE}.{'0' * 12}{TEMPORARY}").write_text(json.dumps(ada(NOW_THERE))[:-2])
    credentials.items = credentials.look(NOW).items
    credentials.escrow.keep(credentials.items[ID].credential, {"claudeAiOauth": {"accessToken": NEXT}})
    return credentials


def killed_at(line: int, folder: Path) -> None:
    """Withdraw as a process that is killed before the `line`-th line that it runs of it."""
    credentials, seen = left_behind(folder), 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code.co_filename not in _TRACED:
            return None
        if event == "line":
            seen += 1
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    credentials.withdraw(ID, NOW)
    sys.settrace(None)
    os._exit(0)


def deaths(folder: Path) -> Iterator[tuple[int, Path]]:
    """The folder after each death, the last one after none."""
    forked = multiprocessing.get_context("fork")
    for line in range(1, 2000):
        place = folder / str(line)
        place.mkdir()
        process = forked.Process(target=killed_at, args=(line, place))
        process.start()
        process.join()
        yield line, place
        if process.exitcode == 0:
            return
        assert process.exitcode == -signal.SIGKILL, process.exitcode


@pytest.mark.slow
def test_killed_at_any_line_it_is_there_whole_or_gone_for_good(tmp_path: Path) -> None:
    gone = 0
    for line, folder in deaths(tmp_path):
        again = CredentialStore(PoolFolder(folder / "pool"), Escrow(folder))
        again.recover(NOW)
        again.items = again.look(NOW).items
        if ID in again.items:
            assert not gone, f"killed at {line}: it came back"
            assert NOW_THERE in kept(folder)
            again.withdraw(ID, NOW)
        else:
            gone += 1
        assert kept(folder) == set(), f"killed at {line}"
        assert not [one for one in removal.removed(folder / "pool") if not one.withdrawn]
    assert line > 100 and gone > 50, "the deaths are spread over all of it"


def test_nothing_of_it_stays_and_another_owners_file_does(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {FILE: claude("sk-ant-oat01-other", owner="bob")})
    asyncio.run(pool.accounts.remove(ID))
    pool.write(FILE, ada(NOW_THERE))
    pool.reload()
    asyncio.run(pool.accounts.withdraw_account(ID))
    assert kept(tmp_path) == set()
    pool.again()
    assert pool.accounts.removed()[0]["account"] == ID, "what Bob's was called like before is still there"
    asyncio.run(pool.accounts.restore(ID))
    assert json.loads((pool.folder / FILE).read_text())["owner"] == "bob"


def test_the_other_workers_choose_it_no_more(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {FILE: ada(NOW_THERE)}, workers=2)
    other = pool.worker(leader=False)
    assert other.select(ask("ada")).account == ID
    asyncio.run(pool.accounts.withdraw_account(ID))
    assert other.select(ask("ada")).account is None and not other.knows(ID)
    with pytest.raises(KeyError):
        other.credential(ID)
    pool.write(FILE, ada(NEXT))
    asyncio.run(other.reload())
    assert other.select(ask("ada")).account == ID, "and one that is brought again serves"


def test_news_of_a_removal_that_was_undone_takes_nothing_away(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {FILE: ada(NOW_THERE)}, workers=2)
    other = pool.worker(leader=False)
    asyncio.run(pool.accounts.remove(ID))
    asyncio.run(pool.accounts.restore(ID))
    assert other.select(ask("ada")).account == ID


@pytest.mark.parametrize("by", ["this worker", "another worker"])
def test_a_token_that_came_for_it_meanwhile_is_kept_nowhere(tmp_path: Path, by: str) -> None:
    async def answer(_: HttpRequest) -> HttpAnswer:
        await (pool.accounts if by == "this worker" else other).withdraw_account(ID)
        return token_answer(NEXT)

    pool = Pool(tmp_path, {FILE: ada(NOW_THERE)}, line=Line(answer), usage_polling=UsagePolling(0), workers=2)
    other = pool.worker(leader=False)
    with pytest.raises(RefreshError):
        asyncio.run(pool.accounts.refresh(ID, NOW_THERE))
    assert kept(tmp_path) == set()
    assert pool.accounts.select(ask("ada")).account is None and not pool.accounts.knows(ID)
    assert pool.accounts.unwritable() == ""


def test_a_token_that_came_between_the_escrow_and_the_file_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(
        tmp_path, {FILE: ada(NOW_THERE)}, line=Line(lambda _: token_answer(NEXT)), usage_polling=UsagePolling(0),
        workers=2,
    )  # fmt: skip
    other = pool.worker(leader=False)
    real = files.write_back

    def late(*args: Any) -> str:
        asyncio.run(other.withdraw_account(ID))
        (tmp_path / escrow.FOLDER / "x").touch()  # it has looked there, before
        credentials.escrow.keep(spent, {"claudeAiOauth": {"accessToken": NEXT}})
        return real(*args)  # raises: the file is gone

    credentials = pool.accounts._registry.credentials
    spent = credentials.items[ID].credential
    monkeypatch.setattr(files, "write_back", late)
    with pytest.raises(RefreshError):
        asyncio.run(pool.accounts.refresh(ID, NOW_THERE))
    assert kept(tmp_path) == set()


def test_an_account_brought_again_keeps_what_the_escrow_has_for_it(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {FILE: ada(OLD)})
    asyncio.run(pool.accounts.withdraw_account(ID))
    pool.write(FILE, ada(NOW_THERE))
    pool.reload()
    credentials = pool.accounts._registry.credentials
    credentials.escrow.keep(credentials.items[ID].credential, {"claudeAiOauth": {"accessToken": NEXT}})
    assert pool.again().credential(ID).secret in (NOW_THERE, NEXT)
    assert NEXT in kept(tmp_path)


def test_on_a_full_disk_it_is_deleted_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tmp_path, {FILE: ada(NOW_THERE)})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full)
    asyncio.run(pool.accounts.withdraw_account(ID))
    assert kept(tmp_path) == set() and not pool.accounts.knows(ID) and not (pool.folder / FILE).exists()


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tmp_path, {FILE: ada(NOW_THERE)})

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(removal, "open", refuse, raising=False)
    with pytest.raises(OSError, match="Read-only"):
        asyncio.run(pool.accounts.withdraw_account(ID))
    assert pool.accounts.knows(ID), "nobody was told that it is gone"


def test_what_a_link_leads_to_is_emptied(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {})
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "x.json").write_text(json.dumps(ada(NOW_THERE)))
    (pool.folder / FILE).symlink_to("../vault/x.json")
    pool.reload()
    asyncio.run(pool.accounts.withdraw_account(ID))
    assert kept(tmp_path) == set()
    pool.again()
    assert not pool.accounts.knows(ID) and pool.accounts.removed() == []
