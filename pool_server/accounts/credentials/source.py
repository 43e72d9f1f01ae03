"""Where credentials are kept: the port, and the pool folder of one machine behind it.

A credential is a JSON object with a name, as a file of the pool folder is, also where it is none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pool_server.accounts.credentials import files, leftovers, removal, scan
from pool_server.accounts.credentials.removal import RemovedFile
from pool_server.accounts.credentials.scan import CredentialFile, Scan
from pool_server.core import disk
from pool_server.core.disk import try_hold
from pool_server.providers import CredentialRejectedError, provider_module

log = logging.getLogger(__name__)

LEFTOVER_S = 3600.0  # a half-written file so old belongs to nobody any more

Signature = tuple[int, int, int]
Check = Callable[[dict[str, Any]], None]


class CredentialSource(Protocol):
    """All but the coroutines may block, and run in any thread. What cannot be written or found is an OSError, what
    cannot be read a CredentialRejectedError."""

    folder: Path  # where people put credential files
    shares_escrow: bool  # whether whoever may refresh an account reads the escrow of this process

    async def start(self) -> None:
        """Before the first look. Raises StoreError."""

    async def news(self) -> list[str]:
        """The accounts of which something was changed elsewhere since the last call. Never raises."""

    async def gather(self) -> None:
        """See to it that the next look shows what is there now. Never raises."""

    async def renew(self, account_id: str) -> None:
        """The same for one account, before its token is traded. Raises StoreError."""

    def scan(self) -> Scan:
        """What is there."""

    def taken_out(self) -> frozenset[str]:
        """The names of files that were taken out on purpose."""

    def exists(self, file: CredentialFile) -> bool: ...

    def signature(self, file: CredentialFile) -> Signature:
        """Tells cheaply whether a file was touched. Raises UnreadFileError."""

    def read(self, file: CredentialFile) -> tuple[dict[str, Any], str]:
        """A file's object and the digest of its content."""

    def write_back(self, file: CredentialFile, updates: dict[str, Any], check: Check | None = None) -> str:
        """Set `updates` (nested as in the file), keep every other field, and return the new digest; atomic and durable.
        `check` sees the present content, which nobody changes meanwhile, and may raise."""

    def replace(self, file: CredentialFile, data: dict[str, Any]) -> None:
        """Another sign-in in the place of this one."""

    def create(self, file: CredentialFile, data: dict[str, Any]) -> None:
        """Raises FileExistsError."""

    def take_back(self, file: CredentialFile) -> None:
        """What was created a moment ago is of no use."""

    def hold(self, file: CredentialFile) -> int | None:
        """A descriptor that keeps the other processes of this machine from refreshing the account until it is closed;
        None while another one has it. Raises OSError where nothing can."""

    def remove(self, file: CredentialFile, now: float) -> None:
        """Take a file out of the pool; `restore` brings it back."""

    def restore(self, account_id: str) -> None:
        """Bring back what was removed last. Raises KeyError, and FileExistsError where another has its name."""

    def removed(self) -> list[RemovedFile]:
        """What was taken out, newest first."""

    def withdraw(self, file: CredentialFile, now: float) -> None:
        """Take a file out and delete all that is kept of its credential."""

    def withdrawn(self, file: CredentialFile) -> bool:
        """Whether it was."""

    def recover(self, now: float) -> Mapping[str, float]:
        """Finish what a killed process left, before the first look; returns when accounts were withdrawn that may have
        left something elsewhere."""

    def rescue(self, file: CredentialFile, now: float) -> None:
        """Before a sign-in counts as lost: is there a newer one somewhere?"""

    def sweep(self, now: float) -> None:
        """Forget what is of no use any more. Never raises."""

    def unwritable(self) -> str:
        """Why nothing can be written, in words for people; "" when it can."""


class PoolFolder(CredentialSource):
    """The files of the pool folder are the truth."""

    shares_escrow = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def start(self) -> None:
        """A look reads the files."""

    async def news(self) -> list[str]:
        return []

    async def gather(self) -> None:
        """A look reads the files."""

    async def renew(self, account_id: str) -> None:
        """The file is read before each call."""

    def scan(self) -> Scan:
        return scan.scan(self.folder)

    def taken_out(self) -> frozenset[str]:
        return scan.taken_out(self.folder)

    def exists(self, file: CredentialFile) -> bool:
        return os.path.lexists(file.path)

    def signature(self, file: CredentialFile) -> Signature:
        try:
            seen = os.stat(file.path)
        except OSError as exc:
            raise files.UnreadFileError(scan.because(exc)) from None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino

    def read(self, file: CredentialFile) -> tuple[dict[str, Any], str]:
        return files.read(file.path)

    def write_back(self, file: CredentialFile, updates: dict[str, Any], check: Check | None = None) -> str:
        return files.write_back(file.path, updates, check)

    def replace(self, file: CredentialFile, data: dict[str, Any]) -> None:
        files.replace_content(file.path, lambda _: data)

    def create(self, file: CredentialFile, data: dict[str, Any]) -> None:
        files.create(file.path, data)

    def take_back(self, file: CredentialFile) -> None:
        file.path.unlink(missing_ok=True)

    def hold(self, file: CredentialFile) -> int | None:
        return try_hold(file.path)

    def remove(self, file: CredentialFile, now: float) -> None:
        removal.remove(self.folder, file, now=now)

    def restore(self, account_id: str) -> None:
        removal.restore(self.folder, account_id)

    def removed(self) -> list[RemovedFile]:
        return removal.removed(self.folder)

    def withdraw(self, file: CredentialFile, now: float) -> None:
        """Files of the account and its owner that were removed earlier are deleted too."""
        owner = _owner(file.path)
        copies = [one for one in self.removed() if one.account == file.account and not one.withdrawn]
        removal.withdraw(self.folder, file, now=now, copies=[one.path for one in copies if _owner(one.path) == owner])

    def withdrawn(self, file: CredentialFile) -> bool:
        return not self.exists(file) and any(one.name == file.name and one.withdrawn for one in self.removed())

    def recover(self, now: float) -> Mapping[str, float]:
        found = {file.path: file for file in self.scan().found}
        gone: dict[str, float] = {}
        try:
            gone = {one.account: one.at for one in reversed(removal.finish(self.folder))}
        except OSError as exc:
            log.error("what a withdrawn account has left in %s could not be deleted: %s", self.folder, exc.strerror)
        for path in leftovers.finish(found, _newer_login(found, now), newer=True):
            log.warning("%s: a write that was broken off was finished", found[path].account)
        there = {file.account for file in found.values()}
        return {account: at for account, at in gone.items() if account not in there}

    def rescue(self, file: CredentialFile, now: float) -> None:
        leftovers.finish([file.path], _newer_login({file.path: file}, now), newer=False)

    def sweep(self, now: float) -> None:
        files.sweep(self.folder, now - LEFTOVER_S)
        removal.sweep(self.folder, now - removal.KEPT_S)

    def unwritable(self) -> str:
        return disk.unwritable(self.folder)


def _owner(path: Path) -> str | None:
    """Whom a file names as its owner; None where it cannot be read."""
    try:
        return files.options(files.read(path)[0]).owner
    except CredentialRejectedError:
        return None


def _newer_login(found: Mapping[Path, CredentialFile], now: float) -> leftovers.Judge:
    """Does a leftover hold another refreshable sign-in than its file? Raises CredentialRejectedError."""

    def judge(path: Path, left: dict[str, Any], there: dict[str, Any]) -> bool:
        file = found[path]
        parse = provider_module(file.provider).parse
        before, after = parse(there, file.account, now=now), parse(left, file.account, now=now)
        return after.can_refresh and after.grant_key != before.grant_key

    return judge
