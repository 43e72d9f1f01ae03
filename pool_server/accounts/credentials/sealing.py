"""Credential files sealed with AES-256-GCM, unreadable without a key that the environment alone holds.

A sealed file is a JSON object of its own, `{"sealed": {"key": NAME, "nonce": base64, "data": base64}}`, in place of the
credential. Keys have names, so that a new one seals while older ones still open what they sealed.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pool_server.language import lazy, lazy_of
from pool_server.providers import CredentialRejectedError
from pool_server.storage import store_keys
from pool_server.storage.store_keys import KEY_BYTES, KEY_NAME

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ENVIRONMENT = store_keys.ENVIRONMENT
FIELD = "sealed"
_NONCE_BYTES = 12
_PURPOSE = b"pool-server credential file"  # authenticated with each: what was sealed for another use opens nowhere here


class SealError(CredentialRejectedError):
    """What is sealed cannot be opened, or the keys cannot be read; says why in one line, without a secret."""


class SealKeys:
    """The keys of `POOL_STORE_KEY`, "k2:base64,k1:base64": the first seals, all open. None of them is in its repr."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._ciphers = _ciphers(keys) if keys else {}
        self.names = tuple(keys)

    def seal(self, plain: bytes, purpose: bytes = _PURPOSE) -> dict[str, Any]:
        """A sealed file's object, which opens for the same purpose alone. Raises SealError without a key."""
        if not self.names:
            raise SealError(lazy("{variable} holds no key to seal with", variable=ENVIRONMENT))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        data = self._ciphers[self.names[0]].encrypt(nonce, plain, purpose)
        return {FIELD: {"key": self.names[0], "nonce": _text(nonce), "data": _text(data)}}

    def open(self, file: dict[str, Any], purpose: bytes = _PURPOSE) -> bytes:
        """What was sealed. Raises SealError."""
        name = key_name(file)
        try:
            nonce, data = _bytes(file[FIELD]["nonce"]), _bytes(file[FIELD]["data"])
        except (KeyError, TypeError, ValueError):
            nonce = data = b""
        if not name or len(nonce) != _NONCE_BYTES:
            raise SealError(lazy("sealed, and damaged"))
        if name not in self._ciphers:
            raise SealError(
                lazy("sealed with key {name}, which {variable} does not hold", name=name, variable=ENVIRONMENT)
            )
        from cryptography.exceptions import InvalidTag

        try:
            return self._ciphers[name].decrypt(nonce, data, purpose)
        except InvalidTag:
            raise SealError(
                lazy("sealed, and damaged, or {variable} holds another key {name}", variable=ENVIRONMENT, name=name)
            ) from None


def _ciphers(keys: dict[str, bytes]) -> dict[str, AESGCM]:
    """cryptography is loaded where there is a key: a start without one need not wait for it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return {name: AESGCM(key) for name, key in keys.items()}


def is_sealed(data: Any) -> bool:
    """Whether a decoded file is a sealed one; a credential has other fields."""
    return isinstance(data, dict) and data.keys() == {FIELD}


def key_name(file: dict[str, Any]) -> str:
    """The name of the key that a file is sealed with, "" where it is plain or damaged."""
    sealed = file[FIELD] if is_sealed(file) else None
    name = sealed.get("key") if isinstance(sealed, dict) else None
    return name if isinstance(name, str) and KEY_NAME.fullmatch(name) else ""


def environment_keys() -> SealKeys:
    """The keys that this process was started with. Raises SealError when they cannot be read."""
    return parse_keys(os.environ.get(ENVIRONMENT, ""))


def parse_keys(text: str) -> SealKeys:
    """The keys of "NAME:base64,…"; none of "". Raises SealError."""
    try:
        return _seal_keys(text)
    except ValueError as wrong:
        raise SealError(lazy_of(wrong)) from None


@lru_cache(maxsize=8)
def _seal_keys(text: str) -> SealKeys:
    return SealKeys(store_keys.parse(text))


def new_key(taken: tuple[str, ...]) -> str:
    """An entry for `POOL_STORE_KEY` with a key of chance and the next free name."""
    name = next(name for name in (f"k{number}" for number in range(1, len(taken) + 2)) if name not in taken)
    return f"{name}:{_text(secrets.token_bytes(KEY_BYTES))}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    """Raises ValueError and TypeError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not base64") from exc
