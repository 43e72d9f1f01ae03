"""The accounts of a pool folder by its files alone, for commands that run with or without a server: nothing is asked of
a vendor here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pool_server.accounts.administration.adding import MOST_NAMES, NAME, NameTakenError, SameAccountError
from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.look import doubles
from pool_server.accounts.credentials.scan import RejectedFile, identify, scan
from pool_server.core.enums import CredentialKind, Provider
from pool_server.language import lazy
from pool_server.providers import Credential, CredentialRejectedError, provider_module

_UNFIT = str.maketrans(dict.fromkeys(" /\\:?#%*\"'<>|,;()[]{}", "-"))


class PoolFile(msgspec.Struct, frozen=True):
    """One usable credential file. `data` is its content."""

    account: str
    path: Path
    data: dict[str, Any]
    credential: Credential

    def __repr__(self) -> str:
        return f"PoolFile(account={self.account!r})"


class PoolFiles:
    """Reads a pool folder once and adds to it. `now` is in unix seconds; files that cannot be used count as names
    alone."""

    def __init__(self, folder: Path, *, now: float) -> None:
        self._folder = folder
        self._now = now
        self.files: list[PoolFile] = []
        for file in scan(folder).found if folder.is_dir() else []:
            try:
                data = files.read(file.path)[0]
                self.files.append(PoolFile(file.account, file.path, data, files.parse(data, file, now=now)))
            except CredentialRejectedError:
                continue

    def find(self, account: str) -> PoolFile | None:
        return next((one for one in self.files if one.account == account), None)

    def judged(self, provider: Provider, name: str, data: dict[str, Any]) -> PoolFile:
        """The file that would be written for this credential, under a name that is free. Raises
        CredentialRejectedError, SameAccountError and NameTakenError."""
        path = self._path(provider, name)
        file = identify(path, path.name, None)
        if isinstance(file, RejectedFile):
            raise CredentialRejectedError(file.said)
        files.options(data)
        made = PoolFile(file.account, path, data, files.parse(data, file, now=self._now))
        known = self._same(made.credential)
        if known:
            raise SameAccountError(known)
        return made

    def add(self, file: PoolFile, *, write: bool) -> None:
        """Put a judged file into the folder; without `write` only its name and credential are taken. Raises OSError."""
        if write:
            files.create(file.path, file.data)
        self.files.append(file)

    def _path(self, provider: Provider, name: str) -> Path:
        """A free name that follows the one which was asked for."""
        stem = name.translate(_UNFIT).strip("-._")[:80]
        stem = stem if NAME.fullmatch(stem) else "account"
        taken = {one.account.casefold() for one in self.files}
        for fit in (stem, *(f"{stem}-{number}" for number in range(2, MOST_NAMES))):
            path = self._folder / f"{provider.value}_{fit}.json"
            if not path.exists() and f"{provider.value}:{fit}".casefold() not in taken:
                return path
        raise NameTakenError(lazy("there are too many accounts of that name"))

    def _same(self, cred: Credential) -> str:
        """The account that has this sign-in, person or key already."""
        module = provider_module(cred.provider)
        whose = module.identity(cred)
        rows = [(one.account, one.account, one.credential) for one in self.files]
        if found := doubles([*rows, (cred.account, cred.account, cred)], self._now).get(cred.account):
            return found
        for one in self.files:
            same_kind = one.credential.provider is cred.provider
            key = cred.kind is CredentialKind.API_KEY and one.credential.api_key == cred.api_key != ""
            if same_kind and (key or (whose and module.identity(one.credential) == whose)):
                return one.account
        return ""
