"""Aliases: keys of another pool, each of which stands for a key of this one.

The store knows marks, never the keys: the SHA-256 of a key (they are random or signed, so a plain hash does), the hash
that another pool kept of it, or the id of a codex-pool user, whose keys prove themselves. The last two need that
pool's secret, which is kept in a file of the data folder; a key that was shown once is known by its own hash from then
on.
"""

from __future__ import annotations

import hashlib
import logging
from enum import StrEnum
from pathlib import Path

import msgspec

from pool_server.core.disk import write_private
from pool_server.core.settings import Settings
from pool_server.storage import Store, StoreError, Txn
from pool_server.users.identity.imported.proofs import proof
from pool_server.users.identity.tokens import Claims
from pool_server.users.models import ALIASES, KEYS, Alias, decode_alias, decode_key, encode, id_key

log = logging.getLogger(__name__)

SECRETS_FILE = "imported_secrets"
_LONGEST = 8192  # no key is longer


class OtherPool(StrEnum):
    """Whose keys a secret tells apart."""

    CODEX_POOL = "codex-pool"
    CRS = "crs"


class ImportedSecret(msgspec.Struct, frozen=True):
    """Another pool's secret; `until`: keys that were not shown before (unix seconds, None = no end) are not taken any
    more. Its repr shows nothing."""

    pool: OtherPool
    secret: str
    until: float | None = None

    def __repr__(self) -> str:
        return f"ImportedSecret(pool={self.pool!r}, until={self.until!r})"


def token_mark(token: str) -> bytes:
    """The mark of a key that is known itself."""
    return b"t" + hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def hashed_mark(digest: bytes) -> bytes:
    """The mark of a key of which claude-relay-service kept SHA-256(key + its ENCRYPTION_KEY)."""
    return b"c" + digest


def person_mark(user: str) -> bytes:
    """The mark of a codex-pool user."""
    return b"p" + hashlib.sha256(user.encode("utf-8", "surrogatepass")).digest()


def load_secrets(folder: Path) -> list[ImportedSecret]:
    """The secrets of a data folder. Raises ValueError (one line) for a damaged file, OSError."""
    path = folder / SECRETS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ImportedSecret])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as exc:
        raise ValueError(f"{path} is damaged: restore it from a backup, or remove it to end imported keys") from exc


def imported_secrets(settings: Settings, folder: Path) -> list[ImportedSecret]:
    """The secrets of other pools; codex-pool's own settings, taken over as they are, hold its secret."""
    told, kept = settings.pool_users, load_secrets(folder)
    if told.storage_path and told.jwt_secret:
        kept.append(ImportedSecret(OtherPool.CODEX_POOL, told.jwt_secret))
    return kept


def keep_secrets(folder: Path, fresh: list[ImportedSecret]) -> None:
    """Add secrets to those of a data folder; one that is there gets the new end. Raises what `load_secrets` raises."""
    kept = {(one.pool, one.secret): one for one in (*load_secrets(folder), *fresh)}
    write_private(folder / SECRETS_FILE, msgspec.json.encode(list(kept.values())))


class Aliases:
    """Looks up keys that this pool did not sign. `secrets` are those of other pools."""

    def __init__(self, store: Store, secrets: list[ImportedSecret]) -> None:
        self._store = store
        self.secrets = secrets

    def claims(self, token: str, now: float) -> Claims | None:
        """What an alias stands for, None for any other text. Reads the store; the first use of a key that only its
        pool's secret knows writes it."""
        if len(token) > _LONGEST:
            return None
        raw = self._store.get(ALIASES, token_mark(token))
        if raw is not None:
            return self._behind(decode_alias(raw))
        for kept in self.secrets:
            if kept.until is not None and kept.until <= now:
                continue
            found = self._proved(token, kept)
            if found is not None:
                self._adopt(token_mark(token), *found)
                return self._behind(found[1])
        return None

    def _behind(self, alias: Alias) -> Claims | None:
        raw = self._store.get(KEYS, id_key(alias.key))
        if raw is None:
            return None
        key = decode_key(raw)
        ends = [end for end in (alias.expires, key.expires) if end is not None]
        return Claims(key.user, key.id, min(ends, default=None))

    def _proved(self, token: str, kept: ImportedSecret) -> tuple[bytes, Alias] | None:
        """The mark under which a key's owner is known, and the alias for the key itself."""
        expires: float | None = None
        if kept.pool is OtherPool.CRS:
            mark = hashed_mark(hashlib.sha256((token + kept.secret).encode("utf-8", "surrogatepass")).digest())
        else:
            told = proof(token, kept.secret)
            if told is None:
                return None
            mark, expires = person_mark(told.user), told.expires
        raw = self._store.get(ALIASES, mark)
        return None if raw is None else (mark, Alias(decode_alias(raw).key, expires))

    def _adopt(self, mark: bytes, source: bytes, alias: Alias) -> None:
        """From now on the key is known by its own hash."""

        def take(txn: Txn) -> None:
            raw = txn.get(KEYS, id_key(alias.key))
            if raw is None or not txn.put_new(ALIASES, mark, encode(alias)):
                return
            key = decode_key(raw)
            key.aliases.append(mark)
            if source[:1] == b"c":  # the very key; a person may have others
                txn.delete(ALIASES, source)
                key.aliases = [one for one in key.aliases if one != source]
            txn.put(KEYS, key.id.encode(), encode(key))

        try:
            self._store.write(take)
        except StoreError as exc:
            log.warning("an imported key is not remembered, and checked again next time: %s", exc)
