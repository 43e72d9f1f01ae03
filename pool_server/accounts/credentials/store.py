"""The credentials in memory: what the files hold, loaded as a diff, written back one field at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from types import MappingProxyType
from typing import Any

import msgspec

from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.escrow import Escrow, Owed, why
from pool_server.accounts.credentials.look import Doubts, Item, Look, look, signature_or_none
from pool_server.accounts.credentials.scan import ROOT, CredentialFile, FolderId, RejectedFile, shown
from pool_server.accounts.credentials.sealing import SealError
from pool_server.accounts.credentials.source import CredentialSource, Signature
from pool_server.core import disk
from pool_server.core.models import HttpRequest
from pool_server.core.origins import origin
from pool_server.core.origins import shown as shown_origin
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy, nlazy
from pool_server.providers import Credential, CredentialRejectedError, provider_module
from pool_server.providers.json_fields import merged

log = logging.getLogger(__name__)

_MOMENTS = ("expires_at", "issued_at", "last_refresh")  # which an answer may tell more exactly than a file keeps them
LATE_S = 600.0  # so long after an account was withdrawn a refresh that was under way may have kept a token of it


class ReplacedError(Exception):
    """Somebody put another sign-in into the file: what was to be written belongs to the one before."""


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

    def told(self) -> dict[str, Any]:
        """As programs and pages are told it; reasons are in the language of this task."""
        files = {name: [one.told() for one in getattr(self, name)] for name in ("rejected", "unread")}
        return {name: getattr(self, name) for name in self.__struct_fields__} | files


class CredentialStore:
    """Credentials by account id. Reading and writing files; knows nothing of quotas."""

    def __init__(self, source: CredentialSource, escrow: Escrow) -> None:
        self.source = source
        self.folder = source.folder
        self.escrow = escrow
        self.items: dict[str, Item] = {}
        self.rejected: list[RejectedFile] = []
        self.wrong: dict[str, LazyText] = {}  # folders and files that are known and could not be read, or were emptied
        self.owed: dict[str, Owed] = {}
        self.owner_id: Callable[[str], str] = lambda said: said  # a file's owner → user id, "" for nobody
        self._folders: dict[str, FolderId] = {}
        self._emptied: dict[str, LazyText] = {}

    def look(self, now: float, sure: Doubts = MappingProxyType({})) -> Look:
        """Read the folder without changing anything; may run in another thread. `sure` are the doubts of the look
        before this one."""

        def read(file: CredentialFile, old: Item | None) -> Item:
            return self._read(file, old, now)

        return look(self.source, dict(self.items), read, folders=self._folders, sure=sure)

    def note(self, look: Look) -> ReloadReport:
        """Keep what a look tells beside the accounts; returns the report to go on with."""
        unread = [RejectedFile(self._called(name), what.told()) for name, what in look.unread.items()]
        self.rejected = look.rejected + unread
        self._folders = look.folders
        filled = {item.found.name for item in look.items.values()}
        self._emptied = {
            name: words
            for name, words in {**self._emptied, **look.emptied}.items()
            if name in look.folders and not any(file.startswith(name) for file in filled)
        }
        self.wrong = {self._called(name): words for name, words in self._emptied.items()}
        self.wrong |= {self._called(name): what.told() for name, what in look.unread.items() if what.accounts}
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
        self._note_owed(old, new)
        if old is None:
            report.added.append(account_id)
        elif new.digest != old.digest:
            report.changed.append(account_id)
        else:
            report.unchanged += 1
            return False
        return True

    def _read(self, found: CredentialFile, old: Item | None, now: float) -> Item:
        mark = self.source.signature(found)
        if old is not None and old.signature == mark and old.found == found:
            return old
        data, digest = self.source.read(found)
        if old is not None and old.digest == digest and old.found == found:
            return msgspec.structs.replace(old, signature=mark)
        return self._parsed(found, data, digest, mark, now)

    def _parsed(self, found: CredentialFile, data: dict[str, Any], digest: str, mark: Signature, now: float) -> Item:
        options = files.options(data)
        credential = files.parse(data, found, now=now)
        stale, owed = credential.fingerprint, self.owed.get(found.account)
        if owed is not None and owed.stale != stale:
            owed = None
        if owed is not None:
            credential = files.parse(merged(data, owed.updates), found, now=now)
        seen: list[str] = []
        while (kept := self.escrow.find(credential)) is not None and (key := credential.grant_key) not in seen:
            if kept.account != found.account and kept.account in self.items:
                break  # a copy of that account's file, not the file under another name
            seen.append(key)
            later = (owed or Owed({}, stale)).also(kept.updates, (key,))
            try:
                newer = files.parse(merged(data, later.updates), found, now=now)
            except CredentialRejectedError:
                break  # whatever it holds is none of this account's
            if newer.grant_key == key and (newer.expires_at or 0.0) <= (credential.expires_at or 0.0):
                break  # a provider that does not rotate: the file is as new
            credential, owed = newer, later
        return Item(found, credential, options, digest, mark, owed)

    def reread(self, account_id: str, now: float) -> Credential:
        """The credential as the file, or the escrow for it, has it now; what is in memory follows. Raises KeyError and
        CredentialRejectedError."""
        old = self.items[account_id]
        item = self._read(old.found, old, now)
        if item.credential is old.credential and self.escrow.find(item.credential) is not None:
            # another worker was given a new token and could not write it into the file
            item = self._parsed(old.found, *self.source.read(old.found), item.signature, now)
        self.items[account_id] = item
        self._note_owed(old, item)
        return item.credential

    def recover(self, now: float) -> None:
        """Finish the withdrawals and the rewrites of files that a killed process left; before the folder is read for
        the first time."""
        gone = self.source.recover(now)
        try:
            self.escrow.forget({account: at + LATE_S for account, at in gone.items()})
        except OSError as exc:
            log.error("what a withdrawn account has left in %s could not be deleted: %s", self.folder, exc.strerror)

    def rescue(self, account_id: str, now: float) -> None:
        """Before a sign-in counts as lost: is there a newer one that did not reach the file?"""
        self.source.rescue(self.items[account_id].found, now)

    def write(self, account_id: str, updates: dict[str, Any], stale: Credential | None = None) -> str:
        """Write owned fields, and what the file is owed, into the account's file (durable; blocks for the disk) and
        return its new digest.

        With `stale`, or when the file is owed something, the file is changed only while it still has the token that
        is replaced. Raises KeyError, OSError, CredentialRejectedError and ReplacedError.
        """
        file, owed = self.items[account_id].found, self.owed.get(account_id)
        expected = {owed.stale} if owed is not None else set()
        if stale is not None:
            expected.add(stale.fingerprint)

        def check(data: dict[str, Any]) -> None:
            there = provider_module(file.provider).parse(data, account_id, now=0.0)
            if there.fingerprint not in expected:
                raise ReplacedError(account_id)

        wanted = updates if owed is None else merged(owed.updates, updates)
        digest = self.source.write_back(file, wanted, check if expected else None)
        if owed is not None:
            if self.owed.get(account_id) is owed:
                del self.owed[account_id]
            self.escrow.drop(owed.spent)
        return digest

    def rotate(self, account_id: str, updates: dict[str, Any], spent: Credential) -> str:
        """`write` for what a token endpoint gave for `spent`: durable in the escrow before the file is touched."""
        keys: tuple[str, ...] = ()
        file = self.items[account_id].found
        try:
            keys = (self.escrow.keep(spent, updates),)
        except (OSError, SealError) as exc:
            log.error("%s: its rotated token could not be kept in %s: %s", account_id, self.escrow.folder, why(exc))
        try:
            digest = self.write(account_id, updates, spent)
        except (files.UnreadFileError, KeyError):
            if self.source.withdrawn(file):  # while the endpoint was asked
                self.escrow.drop(keys)
                raise KeyError(account_id) from None
            raise
        self.escrow.drop(keys)
        return digest

    def withdraw(self, account_id: str, now: float) -> None:
        """Take an account's file out of the pool and delete all that is kept of its credential: the file, earlier
        files of the account and its owner that were removed, unfinished writes, entries of the escrow. What a killed
        process leaves of it the next start deletes. Raises KeyError and OSError."""
        self.source.withdraw(self.items[account_id].found, now)
        self.owed.pop(account_id, None)
        self.escrow.forget({account_id: inf})

    def unwritable(self) -> LazyText | None:
        """Why new tokens cannot be written into the credential files, in words for people; None when they can, or when
        no account gets new ones."""
        signed_in = sum(item.credential.can_refresh for item in self.items.values())
        reason = self.source.unwritable() if signed_in else ""
        if not reason and not self.owed:
            return None
        where = lazy("kept in {folder}/", folder=self.escrow.folder)
        above = self.escrow.folder.absolute().parents
        data = next(folder for folder in (self.escrow.folder, *above) if folder.is_dir())
        if failure := disk.unwritable(data):
            where = lazy(
                "lost at the next restart, {folder}/ cannot be written either ({failure})", folder=data, failure=failure
            )
        if reason:
            return nlazy(
                "cannot be written ({reason}): new tokens of a sign-in are {where}",
                "cannot be written ({reason}): new tokens of {n} sign-ins are {where}",
                signed_in, reason=reason, where=where,
            )  # fmt: skip
        return nlazy(
            "has a file that cannot be written: its new tokens are {where}",
            "has {n} files that cannot be written: their new tokens are {where}",
            len(self.owed), where=where,
        )  # fmt: skip

    def owe(self, account_id: str, updates: dict[str, Any], stale: Credential) -> None:
        """Remember fields that could not be written. Until they are, the file's old token counts as the new one."""
        before = self.owed.get(account_id) or Owed({}, stale.fingerprint)
        self.owed[account_id] = before.also(updates, tuple(filter(None, (stale.grant_key,))))

    def forget_owed(self, account_id: str) -> None:
        """The file has a sign-in of its own."""
        self.owed.pop(account_id, None)

    def _note_owed(self, old: Item | None, new: Item) -> None:
        """Somebody else brought another token: what the pool wanted to write is out of date. Or the escrow knew what
        came after the file's token."""
        account_id = new.found.account
        if old is not None and old.credential.fingerprint != new.credential.fingerprint:
            self.owed.pop(account_id, None)
        if new is not old and new.owed is not None:
            self.owed[account_id] = new.owed

    def adopt(self, account_id: str, credential: Credential, digest: str, now: float) -> str:
        """Take a credential the pool itself has just written, so that its write is no reload, with whatever else its
        file says by now; returns the digest to know the pool's own content by."""
        old = self.items.get(account_id)
        if old is None:
            return digest  # its file was removed meanwhile
        mark = signature_or_none(self.source, old.found) or old.signature
        item = msgspec.structs.replace(
            old, credential=credential, digest=digest, signature=mark, owed=self.owed.get(account_id)
        )
        try:
            there = self._parsed(old.found, *self.source.read(old.found), mark, now)
        except CredentialRejectedError:
            self.items[account_id] = item  # the next look at the folder says why
            return digest
        if there.credential.secret != credential.secret:
            self.items[account_id] = there  # somebody signed in anew since
            self._note_owed(item, there)
            return digest
        moments = {name: getattr(credential, name) for name in _MOMENTS}
        self.items[account_id] = msgspec.structs.replace(
            there, credential=msgspec.structs.replace(there.credential, **moments)
        )
        return there.digest

    def bounded(self, account_id: str, request: HttpRequest, settings: Settings) -> HttpRequest:
        """A call of the pool's own on behalf of an account: over its proxy, and to its own hosts alone. Raises
        KeyError."""
        item = self.items[account_id]
        egress = provider_module(item.found.provider).egress(item.credential, settings)
        return msgspec.structs.replace(request, proxy_url=item.options.proxy_url, egress=egress)

    def hosts(self, account_id: str, settings: Settings) -> list[str]:
        """Where the account's secret goes, for people: the host of its calls first. Raises KeyError."""
        item = self.items[account_id]
        addresses = provider_module(item.found.provider).addresses(item.credential, settings)
        return list(dict.fromkeys(shown_origin(origin(address)) for address in addresses))

    def owner_of(self, account_id: str) -> str:
        """The user id the file's owner stands for; what the file says where it stands for nobody, "" where it says
        nothing. Raises KeyError."""
        said = self.items[account_id].options.owner.strip()
        return self.owner_id(said) or said if said else ""

    def people_of(self, account_id: str) -> frozenset[str] | None:
        """The ids of the users who may use the account, its owner's among them, beside the members of its
        groups; None = everybody. Raises KeyError."""
        options = self.items[account_id].options
        if options.people is None and options.groups is None:
            return None
        named = (self.owner_id(one) or one for one in options.people or ())
        return frozenset((*named, self.owner_of(account_id))) - {""}
