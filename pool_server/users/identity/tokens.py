"""Signing: pool keys (JWT, HS256) and session cookies, with the secret kept in the data folder when none is
set.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from pool_server.core.disk import sync_folder
from pool_server.core.settings import Settings

ISSUER = "pool-server"
SECRET_FILE = "jwt_secret"
PREVIOUS_S = 30 * 86400.0  # how long keys signed with a replaced secret are still accepted

_OPTIONS: Any = {
    "require": ["iss", "sub", "jti", "iat"],
    "verify_exp": False,  # checked here, by the injected clock
    "verify_iat": False,  # a clock that was set back must not lock everybody out
    "verify_nbf": False,
    "verify_aud": False,
}


class Claims(msgspec.Struct, frozen=True):
    """What a genuine pool key says: user id, `jti`, end (unix seconds, None = never)."""

    user: str
    key: str
    expires: float | None


Previous = list[tuple[str, float]]  # secret, accepted until


class KeptSecret(msgspec.Struct):
    """The secret file: JSON, mode 0600. Its repr shows nothing."""

    current: str
    previous: Previous = []

    def __repr__(self) -> str:
        return "KeptSecret()"


class Signer:
    """Signs with the current secret, accepts the previous ones while they last. Its repr shows nothing."""

    def __init__(self, current: str, previous: Iterable[tuple[str, float]] = ()) -> None:
        self._current = _padded(current)
        self._previous = [(_padded(secret), until) for secret, until in previous]

    def key(self, user: str, jti: str, issued: float, expires: float | None) -> str:
        """The token of a pool key. The same facts and secret give the same token."""
        import jwt  # with all of cryptography: loaded with the first key

        claims: dict[str, Any] = {"iss": ISSUER, "sub": user, "jti": jti, "iat": int(issued)}
        if expires is not None:
            claims["exp"] = int(expires)
        return jwt.encode(claims, self._current, algorithm="HS256")

    def claims(self, token: str, now: float) -> Claims | None:
        """What a token says, None when it is not genuine. Says nothing about expiry or revocation."""
        if not _canonical(token):
            return None
        import jwt

        for secret in self._accepted(now):
            try:
                found = jwt.decode(token, secret, algorithms=["HS256"], issuer=ISSUER, options=_OPTIONS)
            except jwt.InvalidTokenError:
                continue
            return _read(found)
        return None

    def cookie(self, value: str) -> str:
        """`value` with a signature that `opened` checks."""
        return f"{value}.{_mac(self._current, value)}"

    def opened(self, cookie: str, now: float) -> str | None:
        """The value of a cookie signed here, None for any other."""
        value, _, mac = cookie.rpartition(".")
        if not value or not cookie.isascii():
            return None
        for secret in self._accepted(now):
            if hmac.compare_digest(_mac(secret, value).encode(), mac.encode()):
                return value
        return None

    def page_token(self, cookie: str) -> str:
        """What a form of the session with this cookie carries, so that no other session's form is taken."""
        return _mac(self._current, "page:" + cookie)

    def fingerprint(self, text: str) -> str:
        """A short keyed hash: tells whether a setting is still the same without keeping it."""
        return _mac(self._current, "fingerprint:" + text)[:16]

    def _accepted(self, now: float) -> Iterable[bytes]:
        yield self._current
        for secret, until in self._previous:
            if now < until:
                yield secret


def _padded(secret: str) -> bytes:
    """HMAC-SHA256 fills short keys with zeros (RFC 2104 §2): doing so here changes no signature, and PyJWT need
    not warn of a short key at every call."""
    return secret.encode().ljust(32, b"\0")


def _mac(secret: bytes, value: str) -> str:
    digest = hmac.new(secret, b"session:" + value.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _canonical(token: str) -> bool:
    """Whether the token is spelt in the only right way: base64 has spare bits, and a changed character must not
    pass.
    """
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 4096 or not token.isascii():
        return False
    for part in parts:
        try:
            raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return False
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
            return False
    return True


def _read(found: dict[str, Any]) -> Claims | None:
    user, key, expires = found["sub"], found["jti"], found.get("exp")
    if not isinstance(user, str) or not isinstance(key, str):
        return None
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, int | float)):
        return None
    return Claims(user, key, None if expires is None else float(expires))


def load_signer(settings: Settings, folder: Path, shared: Callable[[], tuple[str, Previous]] | None = None) -> Signer:
    """The signer of this pool: secrets from the settings, else as it is `shared` with other machines, else from the
    folder's file, made there once (0600).

    Several processes may start at once: one makes the file, the others read it. Raises ValueError (one line)
    when the secret cannot be used or the file is damaged, OSError when the folder cannot be written.
    """
    given = settings.pool_users
    if given.jwt_secret:
        previous = [(given.jwt_secret_previous, float("inf"))] if given.jwt_secret_previous else []
        signer = Signer(given.jwt_secret, previous)
        _check(signer)
        return signer
    if shared is not None:
        current, previous = shared()
    else:
        current, previous = (kept := _kept(folder)).current, kept.previous
    extra = [(given.jwt_secret_previous, float("inf"))] if given.jwt_secret_previous else []
    return Signer(current, [*previous, *extra])


def _check(signer: Signer) -> None:
    """Raises ValueError when nothing can be signed with the secret somebody chose."""
    import jwt

    try:
        signer.key("check", "check", 0, None)
    except jwt.InvalidKeyError as exc:
        raise ValueError("pool_users.jwt_secret: a private or public key cannot be the secret") from exc


def rotate_secret(folder: Path, now: float) -> None:
    """Replaces the kept secret; what it signed is accepted for another 30 days."""
    _write(folder, rotated(_kept(folder), now), replace=True)


def rotated(kept: KeptSecret, now: float) -> KeptSecret:
    """A new secret beside those that are still accepted."""
    previous = [pair for pair in kept.previous if pair[1] > now]
    return KeptSecret(secrets.token_urlsafe(48), [(kept.current, now + PREVIOUS_S), *previous])


def _kept(folder: Path) -> KeptSecret:
    found = kept_in(folder)
    if found is None:
        _write(folder, KeptSecret(secrets.token_urlsafe(48)), replace=False)
        found = kept_in(folder)
        assert found is not None
    return found


def kept_in(folder: Path) -> KeptSecret | None:
    """The secret of a data folder, if it has one. Raises ValueError for one that is damaged."""
    path = folder / SECRET_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.convert(json.loads(raw), KeptSecret)
    except ValueError as exc:
        raise ValueError(f"{path} is damaged: restore it from a backup, or remove it to end all keys") from exc


def _write(folder: Path, kept: KeptSecret, *, replace: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SECRET_FILE
    draft = folder / f"{SECRET_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(kept))
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(draft, path)
        else:
            _link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(folder)


def _link(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        return  # another process was first; its secret is the pool's
