"""The credentials in memory: what the files hold, loaded as a diff, written back one field at a time."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from pool_server.accounts.account import AccountFacts
from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.look import Doubts, Item, Look, look, signature, signature_or_none
from pool_server.accounts.credentials.scan import ROOT, CredentialFile, FolderId, RejectedFile, shown
from pool_server.core.settings import Settings
from pool_server.providers import Credential, provider_module


class Owed(msgspec.Struct, frozen=True):
    """Fields that could not be written into a file yet. `stale`: the fingerprint of the token they are to
    replace."""

    updates: dict[str, Any]
    stale: str

    def __repr__(self) -> str:
        return f"Owed(fields={sorted(self.updates)}, stale={self.stale!r})"


class ReloadReport(msgspec.Struct):
    """What a (re)load of the pool folder found: account ids, and the rejected files with their reasons.

    `unread` are the files and folders among the rejected that could not be read: accounts from there stay as they
    were.
    """

    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    unchanged: int = 0
    rejected: list[RejectedFile] = []
    unread: list[RejectedFile] = []


class CredentialStore:
    """Credentials by account id. Reading and writing files; knows nothing of quotas."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: dict[str, Item] = {}
        self.rejected: list[RejectedFile] = []
        self.wrong: dict[str, str] = {}  # folders and files that are known and could not be read, or were emptied
        self.owed: dict[str, Owed] = {}
        self._folders: dict[str, FolderId] = {}
        self._emptied: dict[str, str] = {}

    def look(self, now: float, sure: Doubts = MappingProxyType({})) -> Look:
        """Read the folder without changing anything; may run in another thread. `sure` are the doubts of the look
        before this one."""

        def read(file: CredentialFile, old: Item | None) -> Item:
            return self._read(file, old, now)

        return look(self.folder, dict(self.items), read, folders=self._folders, sure=sure)

    def note(self, look: Look) -> ReloadReport:
        """Keep what a look tells beside the accounts; returns the report to go on with."""
        unread = [RejectedFile(self._called(name), str(what)) for name, what in look.unread.items()]
        self.rejected = look.rejected + unread
        self._folders = look.folders
        filled = {item.found.name for item in look.items.values()}
        self._emptied = {
            name: words
            for name, words in {**self._emptied, **look.emptied}.items()
            if name in look.folders and not any(file.startswith(name) for file in filled)
        }
        self.wrong = {self._called(name): words for name, words in self._emptied.items()}
        self.wrong |= {self._called(name): str(what) for name, what in look.unread.items() if what.accounts}
        return ReloadReport(rejected=self.rejected, unread=unread)

    def _called(self, name: str) -> str:
        return f"{self.folder.name}/" if name == ROOT else shown(name)

    def settle(self, account_id: str, look: Look, report: ReloadReport) -> bool:
        """Make what was seen of one account the truth and report it; True when that changed anything. What the pool
        wrote since the look is newer and stays."""
        old, seen = self.items.get(account_id), look.items.get(account_id)
        if seen is None:
            if self.items.pop(account_id, None) is not None:
                report.removed.append(account_id)
            return old is not None
        new = seen if old is None or old is look.known.get(account_id) else old
        self.items[account_id] = new
        self._forget_owed(old, new)
        if old is None:
            report.added.append(account_id)
        elif new.digest != old.digest:
            report.changed.append(account_id)
        else:
            report.unchanged += 1
            return False
        return True

    def _read(self, found: CredentialFile, old: Item | None, now: float) -> Item:
        mark = signature(found.path)
        if old is not None and old.signature == mark and old.found == found:
            return old
        loaded = files.read(found.path)
        if old is not None and old.digest == loaded.digest and old.found == found:
            return msgspec.structs.replace(old, signature=mark)
        options = files.options(loaded.data)
        parse = provider_module(found.provider).parse
        credential = parse(loaded.data, found.account, now=now)
        owed = self.owed.get(found.account)
        if owed is not None and owed.stale == credential.fingerprint:
            credential = parse(files.merged(loaded.data, owed.updates), found.account, now=now)
        return Item(found, credential, options, loaded.digest, mark)

    def reread(self, account_id: str, now: float) -> Credential:
        """The credential as the file has it now; what is in memory follows. Raises KeyError and Rejected."""
        old = self.items[account_id]
        item = self._read(old.found, old, now)
        self.items[account_id] = item
        self._forget_owed(old, item)
        return item.credential

    def write(self, account_id: str, updates: dict[str, Any]) -> str:
        """Write owned fields, and what the file is owed, into the account's file (durable; blocks for the disk) and
        return its new digest. Raises KeyError, OSError and Rejected."""
        path = self.items[account_id].found.path
        owed = self.owed.get(account_id)
        digest = files.write_back(path, updates if owed is None else files.merged(owed.updates, updates))
        if owed is not None and self.owed.get(account_id) is owed:
            del self.owed[account_id]
        return digest

    def owe(self, account_id: str, updates: dict[str, Any], stale: Credential) -> None:
        """Remember fields that could not be written. Until they are, the file's old token counts as the new one."""
        before = self.owed.get(account_id)
        if before is None:
            self.owed[account_id] = Owed(updates, stale.fingerprint)
        else:
            self.owed[account_id] = Owed(files.merged(before.updates, updates), before.stale)

    def _forget_owed(self, old: Item | None, new: Item) -> None:
        """Somebody else brought another token: what the pool wanted to write is out of date."""
        if old is not None and old.credential.fingerprint != new.credential.fingerprint:
            self.owed.pop(new.found.account, None)

    def adopt(self, account_id: str, credential: Credential, digest: str) -> None:
        """Take a credential the pool itself has just written, so that its write is no reload."""
        old = self.items.get(account_id)
        if old is None:
            return  # its file was removed meanwhile
        mark = signature_or_none(old.found.path) or old.signature
        self.items[account_id] = msgspec.structs.replace(old, credential=credential, digest=digest, signature=mark)

    def facts(self, account_id: str, settings: Settings) -> AccountFacts:
        """What the choice has to know of an account's file."""
        item = self.items[account_id]
        cred, options = item.credential, item.options
        refreshable = cred.can_refresh and provider_module(cred.provider).refresh_request(cred, settings) is not None
        cohort = (
            cred.kind, cred.base_url, cred.models, cred.plan, cred.tier, cred.resource_url,
            cred.fedramp, cred.scopes, bool(cred.project),
        )  # fmt: skip
        return AccountFacts(
            id=account_id, provider=cred.provider, kind=cred.kind, cohort=cohort, plan=cred.plan,
            label=options.label, owner=options.owner, reserve=options.reserve, priority=options.priority,
            weight=options.weight, disabled=options.disabled, proxy_url=options.proxy_url,
            expires_at=cred.expires_at, can_refresh=refreshable,
        )  # fmt: skip
