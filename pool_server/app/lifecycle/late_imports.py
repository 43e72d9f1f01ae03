"""What a start does not wait for: libraries and pages that are loaded once the server listens.

Whoever needs one of them sooner loads it then. They are loaded on the event loop, one at a time, and not in a thread:
two threads that load modules which import each other may see one half made.
"""

from __future__ import annotations

import asyncio
from importlib import import_module

PAUSE_S = 0.1  # in which requests are served
LATE = (
    "pool_server.dialects.wire.plain",  # the first body needs it
    "pool_server.dialects.translation.plan",
    "pool_server.dialects.translation.token_counts",
    "jwt",  # with cryptography
    "pool_server.web.routes",  # with Tornado and every page
    "pool_server.gateway.websocket.handler",
    "aiohttp",
)


def load_at_once() -> None:
    """For a server that takes over from another, while that one still serves: what is not there or not whole is found
    before it is needed. Raises what the import raises."""
    for name in LATE:
        import_module(name)


async def load() -> None:
    for name in LATE:
        await asyncio.sleep(PAUSE_S)
        import_module(name)
