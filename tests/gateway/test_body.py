"""A body stays what it was, in memory and spooled, as often as it is sent."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from pool_server.gateway import body as module
from pool_server.gateway.body import Body


async def _collect(body: Body) -> bytes:
    payload = body.payload()
    if isinstance(payload, bytes):
        return payload
    return b"".join([piece async for piece in payload])


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=20), st.integers(1, 200))
def test_any_pieces_come_back_whole_and_twice(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    original = module.MEMORY_LIMIT
    module.MEMORY_LIMIT = limit
    try:
        body = Body()
        for piece in pieces:
            body.append(piece)
        assert body.size == len(whole)
        assert bytes(body.view()) == whole
        assert asyncio.run(_collect(body)) == whole
        assert asyncio.run(_collect(body)) == whole
        body.close()
        body.close()
    finally:
        module.MEMORY_LIMIT = original
