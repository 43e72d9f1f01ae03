"""One look at the pool folder: what each file holds now, compared with what is known of it.

What cannot be read leaves what is known as it is. What looks lost, a folder without its last file or a file that is
not JSON any more, is a doubt until a second look finds the same.

One sign-in may be in two files: a backup, a cloud drive's conflicted copy. A refresh token is good once, and providers
revoke the whole sign-in when one is shown twice, so two files must never refresh the same one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec

from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.escrow import Owed
from pool_server.accounts.credentials.scan import (
    ROOT,
    CredentialFile,
    FolderId,
    RejectedFile,
    Scan,
    emptied,
    shown,
    unread_reason,
)
from pool_server.accounts.credentials.source import CredentialSource, Signature
from pool_server.core.enums import CredentialKind
from pool_server.language import LazyText, lazy, lazy_of, nlazy
from pool_server.providers import Credential, CredentialRejectedError, provider_module

log = logging.getLogger(__name__)

DOUBT_S = 1.0  # between the first look that finds something lost and the second

Doubts = Mapping[str, FolderId | Signature]


class Item(msgspec.Struct, frozen=True):
    """One usable credential file. `signature` tells cheaply whether the file was touched, `digest` whether it
    changed. `owed`: what `credential` has and the file has not."""

    found: CredentialFile
    credential: Credential
    options: files.Options
    digest: str
    signature: Signature
    owed: Owed | None = None


Read = Callable[[CredentialFile, Item | None], Item]  # raises CredentialRejectedError


class Unread(msgspec.Struct, frozen=True):
    """Something that tells nothing now: why, and the accounts that stay as they were because of it."""

    reason: LazyText
    accounts: tuple[str, ...] = ()

    def told(self) -> LazyText:
        if not self.accounts:
            return self.reason
        return nlazy(
            "{reason}; {account} stays as it was",
            "{reason}; its {n} accounts stay as they were",
            len(self.accounts), reason=self.reason, account=self.accounts[0],
        )  # fmt: skip


class Look(msgspec.Struct, frozen=True):
    """What the folder held at one moment. `known`: what was in memory then.

    `unread` are the files and folders (see `Scan`) that tell nothing now; accounts from there are in `items` as they
    were known. `doubts` is what a second look has to confirm, `emptied` maps the folders that were
    confirmed to have lost their last file to the words for it. `folders` are the directories to compare the next look
    with.
    """

    known: dict[str, Item]
    items: dict[str, Item]
    rejected: list[RejectedFile]
    unread: dict[str, Unread] = {}
    doubts: Doubts = {}
    emptied: dict[str, LazyText] = {}
    folders: dict[str, FolderId] = {}


def look(
    source: CredentialSource, known: dict[str, Item], read: Read, *, folders: Mapping[str, FolderId], sure: Doubts
) -> Look:
    """Look at the pool folder. `folders` are the directories the known files came from, `sure` the doubts of the look
    before this one."""
    seen = source.scan()
    replaced, lost = emptied(seen, [item.found.name for item in known.values()], folders)
    lost -= _cleared(source, lost, known.values())
    gone = {name for name in lost if sure.get(name) == seen.folders[name]}
    files_seen = _Files(source, known, read, sure)
    files_seen.unread |= seen.unread
    files_seen.unread |= dict.fromkeys(replaced, lazy("another, empty folder is in its place (a mount?)"))
    files_seen.unread |= dict.fromkeys(lost - gone, lazy("is empty; it is looked at again"))
    for file in seen.found:
        files_seen.take(file)
    items, unread = files_seen.items, files_seen.unread
    stay = {
        account: item
        for account, item in known.items()
        if account not in items and unread_reason(item.found.name, unread)
    }
    items |= stay
    return Look(
        known=known,
        items=items,
        rejected=seen.rejected + files_seen.rejected,
        unread={name: Unread(reason, _from(name, stay.values())) for name, reason in unread.items()},
        doubts={**files_seen.doubts, **{name: seen.folders[name] for name in lost}},
        emptied={name: _lost_words(name, known.values(), items) for name in gone},
        folders=_to_compare_with(seen, folders, replaced),
    )


def _to_compare_with(seen: Scan, before: Mapping[str, FolderId], replaced: set[str]) -> dict[str, FolderId]:
    """The directories of this look; of those that tell nothing now the earlier ones."""
    unheard = before if ROOT in seen.unread else {name: where for name, where in before.items() if name in seen.unread}
    stand = {name: before[name] for name in replaced}
    return {**unheard, **seen.folders, **stand}


def _cleared(source: CredentialSource, lost: set[str], known: Iterable[Item]) -> set[str]:
    """The folders among `lost` all of whose files were taken out on purpose: nothing there is in doubt."""
    if not lost:
        return set()
    gone = source.taken_out()
    names = [item.found.name for item in known]
    return {one for one in lost if all(name in gone for name in names if name.startswith(one))}


class _Files:
    """Reads the files of one look, each alone."""

    def __init__(self, source: CredentialSource, known: Mapping[str, Item], read: Read, sure: Doubts) -> None:
        self._source = source
        self._known = known
        self._read = read
        self._sure = sure
        self.items: dict[str, Item] = {}
        self.rejected: list[RejectedFile] = []
        self.unread: dict[str, LazyText] = {}
        self.doubts: dict[str, FolderId | Signature] = {}

    def take(self, file: CredentialFile) -> None:
        before = self._known.get(file.account)
        try:
            self.items[file.account] = self._read(file, before)
        except files.UnreadFileError as exc:
            self.unread[file.name] = lazy_of(exc)
        except files.BrokenFileError as exc:
            self._broken(file, before, lazy_of(exc))
        except CredentialRejectedError as exc:
            self._reject(file, lazy_of(exc))
        except Exception as exc:  # whatever one file makes of the reader, the others count
            log.error("%s could not be judged: %s", shown(file.name), type(exc).__name__)
            self._reject(file, lazy("could not be judged ({name})", name=type(exc).__name__))

    def _broken(self, file: CredentialFile, before: Item | None, reason: LazyText) -> None:
        """A file that was good may be one that somebody is writing."""
        mark = signature_or_none(self._source, file)
        if before is None or before.found != file or mark is None:
            self._reject(file, reason)
            return
        self.doubts[file.name] = mark
        if self._sure.get(file.name) == mark:
            self._reject(file, reason)
        else:
            self.unread[file.name] = lazy("{reason}; it is looked at again", reason=reason)

    def _reject(self, file: CredentialFile, reason: LazyText) -> None:
        self.rejected.append(RejectedFile(file.name, reason))


def _from(name: str, items: Iterable[Item]) -> tuple[str, ...]:
    """The accounts among `items` whose file is `name` or lies in the folder `name`."""
    return tuple(sorted(item.found.account for item in items if _within(item.found.name, name)))


def _lost_words(name: str, known: Iterable[Item], items: Mapping[str, Item]) -> LazyText:
    gone = [account for account in _from(name, known) if account not in items]
    accounts = ", ".join(gone[:5]) + (" …" if len(gone) > 5 else "")
    return lazy("was emptied; {accounts} left the pool", accounts=accounts)


def _within(file: str, name: str) -> bool:
    return file == name or name == ROOT or (name.endswith("/") and file.startswith(name))


def signature_or_none(source: CredentialSource, file: CredentialFile) -> Signature | None:
    try:
        return source.signature(file)
    except files.UnreadFileError:
        return None


def token_of(credential: Credential) -> str:
    """What makes a sign-in this one: what it is refreshed with, else the token itself; "" for an API key."""
    if credential.can_refresh:
        return credential.grant
    return credential.access_token if credential.kind is CredentialKind.SETUP_TOKEN else ""


def doubles(
    files: Iterable[tuple[str, str, Credential]],
    now: float,
    spent_by: Callable[[Credential], str] = lambda _: "",
) -> dict[str, str]:
    """The accounts whose sign-in another file has: account → that file's name.

    `files` are (account, file name, credential), those that keep theirs first. `spent_by` tells which account has
    already traded a credential's refresh token for a new one: another file that still holds it is an old copy.
    Two files with one refresh token and access tokens of their own may both be used until one of these is to be
    refreshed (`now` in unix seconds): only then would the refresh token be presented twice.
    """
    holders: dict[str, tuple[str, Credential]] = {}
    found: dict[str, str] = {}
    rows = list(files)
    names = {account: name for account, name, _ in rows}
    for account, name, credential in rows:
        token = token_of(credential)
        if not token:
            continue
        spender = spent_by(credential)
        name_of, other = holders.get(token, ("", credential))
        if name_of and not _apart(other, credential, now):
            found[account] = name_of
        elif spender not in ("", account) and spender in names and spender not in found:
            found[account] = names[spender]
        else:
            holders.setdefault(token, (name, credential))
    return found


def _apart(one: Credential, other: Credential, now: float) -> bool:
    """Whether both have an access token of their own that is not to be refreshed yet."""
    dues = [provider_module(cred.provider).refresh_due_at(cred, now=now) for cred in (one, other)]
    return one.access_token != other.access_token and all(due is not None and due > now for due in dues)
