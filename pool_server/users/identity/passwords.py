"""Passphrases, codes and the admin password: bcrypt, in a few background threads, never on the event loop."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from pool_server.core.enums import Denial
from pool_server.language import gettext as _
from pool_server.users.models import RefusedError, bad_value

T = TypeVar("T")

TOTP_STEP_S = 30  # RFC 6238: SHA-1, six digits, steps of 30 s, as authenticator apps have them
ROUNDS = 10  # about 0.06 s of one core: two cores keep up with 30 people a second
MAX_WAITING = 64  # checks queued at once; more are refused, not queued
MIN_LENGTH, MAX_LENGTH = 8, 256
_NICE = 10  # threads that hash give way to the event loop


class Hasher:
    """bcrypt with a bounded queue. A check costs the same whether there is anything to compare with or not."""

    def __init__(self, *, rounds: int = ROUNDS, threads: int | None = None) -> None:
        self._rounds = rounds
        self._threads = ThreadPoolExecutor(threads or max(2, os.cpu_count() or 2), "bcrypt", _give_way)
        self._waiting = 0
        self._nobody = bcrypt.gensalt(rounds) + b"." * 31  # a salt and a digest that nothing has

    async def hash(self, secret: str) -> str:
        """The bcrypt hash to keep of a passphrase or code."""
        return await self._run(lambda: bcrypt.hashpw(_bounded(secret), bcrypt.gensalt(self._rounds)).decode())

    async def check(self, secret: str, kept: str) -> bool:
        """Whether `secret` is behind a hash made by `hash`; "" (nobody's) is never right and takes as long."""
        return await self._run(lambda: self._check(_bounded(secret), kept))

    async def check_raw(self, secret: str, kept: str) -> bool:
        """Like `check`, for a bcrypt hash made by another program from the bare text (its first 72 bytes)."""
        return await self._run(lambda: self._check(_bytes(secret)[:72], kept))

    def close(self) -> None:
        """Ends the threads; a running check finishes."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check(self, secret: bytes, kept: str) -> bool:
        try:
            right = bcrypt.checkpw(secret, kept.encode() or self._nobody)
        except ValueError:  # not a bcrypt hash
            return False
        return right and bool(kept)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise RefusedError(
                Denial.THROTTLED, _("too many people are signing in just now; try again in a moment"), 503
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _give_way() -> None:
    """On Linux a thread has a niceness of its own; elsewhere setting it would slow the whole server."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _bounded(secret: str) -> bytes:
    """bcrypt reads 72 bytes and stops at NUL: a digest in base64 keeps the whole of a longer secret."""
    text = unicodedata.normalize("NFKC", secret)
    return base64.b64encode(hashlib.sha256(_bytes(text)).digest())


def same(one: str, other: str) -> bool:
    """Equality in constant time, whatever the lengths."""
    key = os.urandom(16)
    digests = [hmac.digest(key, _bytes(text), "sha256") for text in (one, other)]
    return hmac.compare_digest(*digests)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can carry halves of characters


def is_bcrypt(text: str) -> bool:
    """Whether a setting holds a bcrypt hash instead of the plain text."""
    return len(text) == 60 and text.startswith(("$2a$", "$2b$", "$2y$"))


def checked_passphrase(passphrase: str) -> str:
    """A passphrase that will do: 8 to 256 characters. Raises RefusedError 400."""
    if not MIN_LENGTH <= len(passphrase) <= MAX_LENGTH:
        raise bad_value(
            _(
                "choose a passphrase of {min_length} to {max_length} characters",
                min_length=MIN_LENGTH,
                max_length=MAX_LENGTH,
            )
        )
    return passphrase


def totp(secret: str, step: int) -> str:
    """The six digits of a Base32 secret in one step of time (RFC 6238, RFC 4226)."""
    key = base64.b32decode(secret.upper() + "=" * (-len(secret) % 8))
    mac = hmac.digest(key, step.to_bytes(8, "big"), "sha1")
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06d}"


def totp_step(secret: str, digits: str, now: float) -> int | None:
    """The step whose digits these are: the present one or a neighbour, as clocks differ. None for a wrong code."""
    said, present = "".join(digits.split()), int(now // TOTP_STEP_S)
    found = [step for step in (present, present - 1, present + 1) if same(said, totp(secret, step))]
    return found[0] if found else None
