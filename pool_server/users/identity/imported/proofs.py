"""codex-pool's keys. It keeps no list of them: each proves by HMAC-SHA256 under one secret whose it is. Pure.

Source: codex-pool's open source. The forms are a JWT (HS256, `sub` "pool|ID"), `sk-ant-oat01-pool-` and the older
`sk-ant-api-pool-` with base64url of "ID.SECONDS.SIGNATURE" (16 hex digits), `AIzaSy-pool-ID.SECONDS.SIGNATURE`
(16 characters of base64url), and `ya29.pool-PAYLOAD_SIGNATURE` (base64url; the payload is JSON with `user_id` and
`exp`). Its refresh tokens (`poolrt_…`) are no keys.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import msgspec

_CLAUDE = ("sk-ant-oat01-pool-", "sk-ant-api-pool-")
_GEMINI_KEY = "AIzaSy-pool-"
_GEMINI_LOGIN = "ya29.pool-"
_SUBJECT = "pool|"
_SHORT = 16  # characters that the short forms keep of a signature
_WHOLE = 43  # characters of a whole signature in base64url
_SPACE = 32  # bytes to which HMAC pads a short secret anyway
_UNCHECKED: Any = {
    "verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False, "verify_sub": False,
}  # fmt: skip


class Proof(msgspec.Struct, frozen=True):
    """Whose key it is, by codex-pool's user id, and when it ends (unix seconds, None = never)."""

    user: str
    expires: float | None = None


def proof(token: str, secret: str) -> Proof | None:
    """What a key proves under this secret; None for anything that is no genuine key."""
    if not token.isascii() or not secret:
        return None
    key = secret.encode()
    for prefix in _CLAUDE:
        if token.startswith(prefix):
            inner = _decoded(token[len(prefix) :])
            return _signed(inner.decode("utf-8", "replace"), key, hexadecimal=True)
    if token.startswith(_GEMINI_KEY):
        return _signed(token[len(_GEMINI_KEY) :], key, hexadecimal=False)
    if token.startswith(_GEMINI_LOGIN):
        return _gemini_login(token[len(_GEMINI_LOGIN) :], key)
    return _jwt(token, key) if token.count(".") == 2 else None


def _signed(text: str, key: bytes, *, hexadecimal: bool) -> Proof | None:
    head, _, shown = text.rpartition(".")
    user, _, seconds = head.rpartition(".")
    mac = _mac(key, head.encode())
    right = mac.hex() if hexadecimal else _encoded(mac)
    if not hmac.compare_digest(right[:_SHORT].encode(), shown.encode()):
        return None
    return Proof(user) if user and seconds.isdecimal() else None


def _gemini_login(rest: str, key: bytes) -> Proof | None:
    payload, line, shown = rest[: -_WHOLE - 1], rest[-_WHOLE - 1 : -_WHOLE], rest[-_WHOLE:]
    raw = _decoded(payload)
    if line != "_" or not hmac.compare_digest(_encoded(_mac(key, raw)).encode(), shown.encode()):
        return None
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    user = said.get("user_id") if isinstance(said, dict) else None
    return Proof(user, _moment(said.get("exp"))) if isinstance(user, str) and user else None


def _jwt(token: str, key: bytes) -> Proof | None:
    import jwt  # with all of cryptography: loaded with the first such key

    try:
        claims = jwt.decode(token, key.ljust(_SPACE, b"\0"), algorithms=["HS256"], options=_UNCHECKED)
    except jwt.PyJWTError:
        return None
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject.startswith(_SUBJECT) or subject == _SUBJECT:
        return None
    return Proof(subject.removeprefix(_SUBJECT), _moment(claims.get("exp")))


def _moment(value: object) -> float | None:
    """An `exp`; one that is none ends the key at once."""
    if value is None:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
