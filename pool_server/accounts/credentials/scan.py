"""Which credential files the pool folder holds, and what of it could not be looked at.

An error while looking is not absence. A file is gone only when the folder that listed it was read again and lacks it;
whatever could not be read is named in `Scan.unread`, and what is known of it stays.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from pool_server.core.enums import Provider
from pool_server.language import LazyText, lazy, localized
from pool_server.providers import SPECS

MAX_NAME = 120
REMOVED = ".removed"  # the folder, within the pool folder, of files that were taken out on purpose
ROOT = ""  # the pool folder among the folders of a scan; a sub-folder is "name/"
_PREFIXES = {f"{p.value}_": p for p in Provider}
_FOLDERS = {p.value: p for p in Provider}
_UNNAMED = next(provider for provider, spec in SPECS.items() if spec.unnamed)


class CredentialFile(msgspec.Struct, frozen=True):
    """A file that may hold a credential. `name` is its path within the pool folder, `named` whether that says whose it
    is: other files are of the one vendor whose files need no name, or rejected."""

    account: str
    provider: Provider
    path: Path
    name: str
    named: bool = True

    @property
    def contradicted(self) -> Provider | None:
        """Another vendor that the file's name says than its folder does, None where they agree."""
        other = next((owner for prefix, owner in _PREFIXES.items() if self.path.name.startswith(prefix)), None)
        return None if other is self.provider or "/" not in self.name else other


class RejectedFile(msgspec.Struct, frozen=True):
    """A file or folder that is not used and the reason, in one line without anything secret."""

    file: str
    said: LazyText

    @property
    def reason(self) -> str:
        return str(self.said)

    def told(self) -> dict[str, str]:
        return {"file": self.file, "reason": localized(self.said)}


class FolderId(msgspec.Struct, frozen=True):
    """Which directory was listed: another one in the same place (a mount) has another device or inode."""

    device: int
    inode: int


class Scan(msgspec.Struct, frozen=True):
    """What the pool folder holds.

    `unread` maps what could not be looked at to the reason: a file ("claude/work.json"), a sub-folder ("claude/") or
    the pool folder itself (`ROOT`). `folders` are those that were listed, `empty` those of them without any entry
    that could be a credential.
    """

    found: list[CredentialFile]
    rejected: list[RejectedFile]
    unread: dict[str, LazyText]
    folders: dict[str, FolderId]
    empty: frozenset[str]


class _Looker:
    """One pass over the pool folder. Every entry is judged alone: a bad one never stops the others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, CredentialFile] = {}
        self._rejected: list[RejectedFile] = []
        self._unread: dict[str, LazyText] = {}
        self._folders: dict[str, FolderId] = {}
        self._empty: set[str] = set()

    def look(self) -> Scan:
        usable = False
        for entry in self._list(ROOT):
            usable |= self._root_entry(entry)
        if ROOT in self._folders and not usable:
            self._empty.add(ROOT)
        return Scan(list(self._found.values()), self._rejected, self._unread, self._folders, frozenset(self._empty))

    def _list(self, name: str) -> list[str]:
        """The entries of a folder by name, [] for one that cannot be read."""
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                seen = os.fstat(descriptor)
                entries = os.listdir(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            self._unread[name] = because(exc)
            return []
        self._folders[name] = FolderId(seen.st_dev, seen.st_ino)
        return sorted(entry for entry in entries if not entry.startswith("."))

    def _root_entry(self, name: str) -> bool:
        """Judge one entry of the pool folder; True when it is or may hold a credential file."""
        try:
            is_folder = stat.S_ISDIR(os.stat(self._folder / name).st_mode)
        except OSError as exc:
            is_folder = name in _FOLDERS
            if is_folder:
                self._unread[name + "/"] = because(exc)
                return True
            if not name.endswith(".json"):
                return False
        if is_folder:
            return self._sub_folder(name)
        if name.endswith(".json"):
            self._keep(self._folder / name, name, None)
            return True
        self._misnamed(name)
        return False

    def _misnamed(self, name: str) -> None:
        """Tell of a file that is meant as one and is not read: Windows hides what a browser or editor added."""
        if name.lower().endswith((".json", ".json.txt")) and not name.endswith(".json"):
            self._rejected.append(RejectedFile(shown(name), lazy("its name must end in .json")))

    def _sub_folder(self, name: str) -> bool:
        provider, inside = _FOLDERS.get(name), f"{name}/"
        entries = self._list(inside)
        files = [entry for entry in entries if entry.endswith(".json")]
        if provider is None:
            self._unread.pop(inside, None)  # nothing in it could be used
            self._folders.pop(inside, None)
            for file in files:
                self._rejected.append(
                    RejectedFile(shown(inside + file), lazy("its folder is not named after a provider"))
                )
            return False
        for file in entries:
            if file.endswith(".json"):
                self._keep(self._folder / name / file, inside + file, provider)
            else:
                self._misnamed(inside + file)
        if inside in self._folders and not files:
            self._empty.add(inside)
        return True

    def _keep(self, path: Path, name: str, provider: Provider | None) -> None:
        item = identify(path, name, provider)
        if isinstance(item, RejectedFile):
            self._rejected.append(item)
        elif item.account in self._found:
            self._rejected.append(
                RejectedFile(name, lazy("the same account as {name}", name=self._found[item.account].name))
            )
        else:
            self._found[item.account] = item


def scan(folder: Path) -> Scan:
    """All credential files of the pool folder and of its sub-folders named after a provider, sorted by name."""
    return _Looker(folder).look()


def identify(path: Path, name: str, provider: Provider | None) -> CredentialFile | RejectedFile:
    """The account a file is, by its name and the `provider` its folder is named after."""
    stem = path.stem
    for prefix, owner in _PREFIXES.items():
        if stem.startswith(prefix) and provider in (None, owner):
            provider, stem = owner, stem[len(prefix) :]
            break
    named, provider = provider is not None, provider or _UNNAMED
    if not stem or len(stem) > MAX_NAME or not stem.isprintable() or set(stem) & set(":/\\?#%"):
        return RejectedFile(
            shown(name), lazy("the name is not usable: 1 to 120 printable characters without : / \\ ? # %")
        )
    return CredentialFile(f"{provider.value}:{stem}", provider, path, name, named)


def identify_by_name(path: Path, name: str) -> CredentialFile | None:
    """The account a file is by its path within the pool folder; None for a name that is none's."""
    head, slash, _ = name.partition("/")
    found = identify(path, name, _FOLDERS.get(head) if slash else None)
    return found if isinstance(found, CredentialFile) else None


def taken_out(folder: Path) -> frozenset[str]:
    """The files, by their path within the pool folder, that were taken out on purpose."""
    place = folder / REMOVED
    return frozenset("/".join(path.relative_to(place).parts[1:]) for path in place.rglob("*.json"))


def shown(name: str) -> str:
    """A file's name as text of one line, whatever bytes it has on disk."""
    return name if name.isprintable() else ascii(name)[1:-1]


def because(exc: OSError) -> LazyText:
    """Why something could not be read, for people."""
    return lazy("cannot be read: {why}", why=exc.strerror or type(exc).__name__)


def folder_of(name: str) -> str:
    """The folder of a scan in which a file is listed."""
    head, slash, _ = name.rpartition("/")
    return head + slash


def unread_reason(name: str, unread: Mapping[str, LazyText]) -> LazyText | None:
    """Why nothing is known of a file now: it, its folder or the pool folder could not be read; None otherwise."""
    return next((unread[part] for part in (name, folder_of(name), ROOT) if part in unread), None)


def emptied(scan: Scan, names: Collection[str], before: Mapping[str, FolderId]) -> tuple[set[str], set[str]]:
    """The folders that are listed as empty although the files `names` came from them.

    First those in whose place another, empty directory stands (a mount that went away or came over it): they count as
    not read. Then those that lost their last file. `before` says which directories the files came from.
    """
    empty = {folder for folder in scan.empty if any(name.startswith(folder) for name in names)}
    replaced = {folder for folder in empty if before.get(folder, scan.folders[folder]) != scan.folders[folder]}
    return replaced, empty - replaced
