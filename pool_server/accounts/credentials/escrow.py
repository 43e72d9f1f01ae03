"""Rotated tokens, durable in the data folder before their credential file is rewritten.

A token endpoint gives a rotated token once and spends the one it was asked with: until the file holds the new one,
this is its only durable copy. It is named after the spent refresh token, so that whichever file still holds that one,
whatever its name, is told what came after it. Where there is a key to seal with, entries are sealed like files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pool_server.accounts.credentials import sealing
from pool_server.core.disk import DRAFT, create_private, write_private
from pool_server.providers import Credential
from pool_server.providers.json_fields import merged

log = logging.getLogger(__name__)

FOLDER = "escrow"  # within the data folder
KEPT_S = 90 * 86400.0  # an entry that no file asked for is given up after so long
_SUFFIX = ".json"
_UNREADABLE = (sealing.SealError, msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Rotation(msgspec.Struct, frozen=True):
    """What came after a spent refresh token: fields nested as in the credential file. `account` is for people."""

    account: str
    updates: dict[str, Any]

    def __repr__(self) -> str:
        return f"Rotation(account={self.account!r}, fields={sorted(self.updates)})"


class Owed(msgspec.Struct, frozen=True):
    """Fields that could not be written into a file yet. `stale`: the fingerprint of the token they are to replace;
    `spent`: the keys of the escrow's entries that the file makes needless once it is written."""

    updates: dict[str, Any]
    stale: str
    spent: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Owed(fields={sorted(self.updates)}, stale={self.stale!r})"

    def also(self, updates: dict[str, Any], spent: tuple[str, ...]) -> Owed:
        """The same with what came later."""
        return Owed(merged(self.updates, updates), self.stale, tuple(dict.fromkeys(self.spent + spent)))


class Escrow:
    """The entries in one folder, shared by all workers. All methods may run in any thread."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER

    def keep(self, spent: Credential, updates: dict[str, Any]) -> str:
        """Make `updates` durable as what came after `spent`; returns the entry's key. Raises OSError and SealError."""
        key = spent.grant_key
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, data = self._path(key), _encode(Rotation(spent.account, updates))
        try:
            create_private(path, data)  # at its name at once: one that was cut off is seen to be
        except FileExistsError:
            write_private(path, data)
        return key

    def find(self, credential: Credential) -> Rotation | None:
        """What came after this sign-in's refresh token, where its file does not know."""
        key = credential.grant_key
        if not key:
            return None
        try:
            return _decode(self._path(key).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, *_UNREADABLE) as exc:
            log.error("%s: what was kept of its rotated token cannot be read (%s)", credential.account, why(exc))
            return None

    def drop(self, keys: tuple[str, ...]) -> None:
        """The files have what these entries hold."""
        for key in keys:
            try:
                self._path(key).unlink(missing_ok=True)
            except OSError:
                continue  # no file asks for it any more, and the sweep removes it

    def forget(self, before: Mapping[str, float]) -> None:
        """Delete what was kept for accounts that were withdrawn, each `before` a moment (unix seconds). Raises
        OSError."""
        for path in self.folder.glob(f"*{_SUFFIX}") if before else ():
            try:
                kept, at = _decode(path.read_bytes()), path.stat().st_mtime
            except (FileNotFoundError, *_UNREADABLE):
                continue  # another process was faster; or no key is left that opens it
            if at < before.get(kept.account, 0.0):
                path.unlink(missing_ok=True)

    def sweep(self, before: float) -> None:
        """Remove what nobody asked for since `before` (unix seconds), and half-written entries."""
        try:
            entries = list(self.folder.iterdir())
        except OSError:
            return
        for path in entries:
            try:
                if path.suffix in (_SUFFIX, DRAFT) and path.lstat().st_mtime < before:
                    path.unlink()
            except OSError:
                continue  # another process was faster

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


def _encode(rotation: Rotation) -> bytes:
    """Raises SealError where the keys cannot be read: whoever set them wants no token in plain."""
    plain, keys = msgspec.json.encode(rotation), sealing.environment_keys()
    return msgspec.json.encode(keys.seal(plain)) if keys.names else plain


def _decode(raw: bytes) -> Rotation:
    data = msgspec.json.decode(raw)
    if sealing.is_sealed(data):
        return msgspec.json.decode(sealing.environment_keys().open(data), type=Rotation)
    return msgspec.convert(data, Rotation)


def why(exc: Exception) -> str:
    """Why an entry could not be read or written, in one line."""
    if isinstance(exc, sealing.SealError):
        return str(exc)
    return exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else "not JSON"
