"""Keys as codex-pool makes them, by its open source; written here from the shapes alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import jwt

SECRET = "codex pool's own secret"
BORN = 1_770_000_000


def _mac(text: bytes, secret: str) -> bytes:
    return hmac.new(secret.encode(), text, hashlib.sha256).digest()


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def codex(user: str, secret: str = SECRET, ends: float | None = 2_000_000_000) -> str:
    claims = {"iss": "https://auth.openai.com", "sub": f"pool|{user}", "aud": ["https://api.openai.com/v1"]}
    if ends is not None:
        claims["exp"] = int(ends)  # type: ignore[assignment]
    return jwt.encode(claims, secret.encode().ljust(32, b"\0"), algorithm="HS256")


def claude(user: str, secret: str = SECRET, prefix: str = "sk-ant-oat01-pool-") -> str:
    head = f"{user}.{BORN}"
    return prefix + _b64(f"{head}.{_mac(head.encode(), secret).hex()[:16]}".encode())


def claude_legacy(user: str, secret: str = SECRET) -> str:
    return claude(user, secret, "sk-ant-api-pool-")


def gemini_key(user: str, secret: str = SECRET) -> str:
    head = f"{user}.{BORN}"
    return f"AIzaSy-pool-{head}.{_b64(_mac(head.encode(), secret))[:16]}"


def gemini_login(user: str, secret: str = SECRET, ends: float = 2_000_000_000) -> str:
    raw = json.dumps({"user_id": user, "exp": int(ends), "iat": BORN}).encode()
    return f"ya29.pool-{_b64(raw)}_{_b64(_mac(raw, secret))}"


FORMS = (codex, claude, claude_legacy, gemini_key, gemini_login)
