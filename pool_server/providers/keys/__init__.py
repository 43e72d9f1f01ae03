"""API keys: what a file says of one, where it is good, how it is shown and what it may be asked, whichever vendor's
file it came in."""

from __future__ import annotations

from pool_server.providers.keys.endpoint import (
    KeySpec,
    base_for,
    key_headers,
    prepare,
    prepare_at,
    serves,
    test_request,
)
from pool_server.providers.keys.naming import belongs_to, missing, refuse_unnamed
from pool_server.providers.keys.reading import read_key, refuse_addresses

__all__ = [
    "KeySpec",
    "base_for",
    "belongs_to",
    "key_headers",
    "missing",
    "prepare",
    "prepare_at",
    "read_key",
    "refuse_addresses",
    "refuse_unnamed",
    "serves",
    "test_request",
]
