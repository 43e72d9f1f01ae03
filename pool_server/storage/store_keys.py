"""The keys that encrypt what the pool keeps, from the environment alone: `POOL_STORE_KEY`, "NAME:base64,…".

The first key encrypts, all decrypt, so that a new one can take over while older things still open.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from functools import lru_cache

ENVIRONMENT = "POOL_STORE_KEY"
KEY_BYTES = 32
KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


@lru_cache(maxsize=8)
def parse(text: str) -> dict[str, bytes]:
    """Name → key of "NAME:base64,…"; none of "". Raises ValueError with one line, without a secret."""
    keys: dict[str, bytes] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not KEY_NAME.fullmatch(name) or len(key) != KEY_BYTES:
            raise ValueError(f"{ENVIRONMENT} must be NAME:KEY, or several with commas, each key 32 bytes in base64")
        if name in keys:
            raise ValueError(f"{ENVIRONMENT} names key {name} twice")
        keys[name] = key
    return keys


def from_environment() -> dict[str, bytes]:
    """The keys that this process was started with. Raises ValueError."""
    return parse(os.environ.get(ENVIRONMENT, ""))
