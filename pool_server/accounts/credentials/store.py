"""The credentials in memory: what the files hold, loaded as a diff, written back one field at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from pool_server.accounts.account import AccountFacts
from pool_server.accounts.credentials import files
from pool_server.core.settings import Settings
from pool_server.providers import Credential, CredentialRejectedError, provider_module


class Item(msgspec.Struct, frozen=True):
    """One usable credential file. `signature` tells cheaply whether the file was touched, `digest` whether it
    changed."""

    found: files.CredentialFile
    credential: Credential
    options: files.Options
    digest: str
    signature: tuple[int, int, int]


class Owed(msgspec.Struct, frozen=True):
    """Fields that could not be written into a file yet. `stale`: the fingerprint of the token they are to
    replace."""

    updates: dict[str, Any]
    stale: str

    def __repr__(self) -> str:
        return f"Owed(fields={sorted(self.updates)}, stale={self.stale!r})"


class Look(msgspec.Struct, frozen=True):
    """What the folder held at one moment. `known`: what was in memory then."""

    known: dict[str, Item]
    items: dict[str, Item]
    rejected: list[files.RejectedFile]


class ReloadReport(msgspec.Struct):
    """What a (re)load of the pool folder found: account ids, and the rejected files with their reasons."""

    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    unchanged: int = 0
    rejected: list[files.RejectedFile] = []


class CredentialStore:
    """Credentials by account id. Reading and writing files; knows nothing of quotas."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: dict[str, Item] = {}
        self.rejected: list[files.RejectedFile] = []
        self.owed: dict[str, Owed] = {}

    def look(self, now: float) -> Look:
        """Read the folder without changing anything; may run in another thread."""
        known = dict(self.items)
        found, rejected = files.scan(self.folder)
        items: dict[str, Item] = {}
        for item in found:
            try:
                items[item.account] = self._read(item, known.get(item.account), now)
            except CredentialRejectedError as exc:
                rejected.append(files.RejectedFile(item.name, str(exc)))
        return Look(known, items, rejected)

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

    def _read(self, found: files.CredentialFile, old: Item | None, now: float) -> Item:
        signature = _signature(found.path)
        if old is not None and old.signature == signature and old.found == found:
            return old
        loaded = files.read(found.path)
        if old is not None and old.digest == loaded.digest and old.found == found:
            return msgspec.structs.replace(old, signature=signature)
        options = files.options(loaded.data)
        parse = provider_module(found.provider).parse
        credential = parse(loaded.data, found.account, now=now)
        owed = self.owed.get(found.account)
        if owed is not None and owed.stale == credential.fingerprint:
            credential = parse(files.merged(loaded.data, owed.updates), found.account, now=now)
        return Item(found, credential, options, loaded.digest, signature)

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
        try:
            signature = _signature(old.found.path)
        except CredentialRejectedError:
            signature = old.signature
        self.items[account_id] = msgspec.structs.replace(old, credential=credential, digest=digest, signature=signature)

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


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        seen = os.stat(path)
    except OSError as exc:
        raise CredentialRejectedError(f"cannot be read: {exc.strerror}") from None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino
