"""Decodes compressed request bodies: small ones at once, others beside the event loop, few at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from weakref import WeakValueDictionary

from pool_server.dialects import BodyTooLargeError, decode_body

DECODED_CAP = 64 << 20  # bytes a compressed body may become, also where plain ones may be larger
AT_ONCE = 64 << 10  # bytes of a compressed body that are decoded where they are …
AT_ONCE_DECODED = 256 << 10  # … if they become no more than this: a fraction of a millisecond
_THREADS = 2


class BodyDecoder:
    """One a worker. Bodies of one user are decoded one after the other."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="decode")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def at_once(self, raw: bytes | memoryview, encoding: str, *, cap: int) -> bytes | None:
        """The decoded body where that takes next to no time, else None. Raises `BadEncodingError`, and
        `BodyTooLargeError` beyond `cap` bytes."""
        if len(raw) > AT_ONCE:
            return None
        with suppress(BodyTooLargeError):
            return decode_body(raw, encoding, cap=min(cap, AT_ONCE_DECODED))
        return None

    async def decode(self, user: str, raw: bytes | memoryview, encoding: str, *, cap: int) -> bytes:
        """The decoded body. Raises `BadEncodingError`, and `BodyTooLargeError` beyond `cap` bytes.

        Whoever gives up waiting is kept until the thread is done: it reads `raw`, and leaving early makes no room for
        the next body.
        """
        if len(raw) > cap:
            raise BodyTooLargeError(f"a compressed body holds at most {cap} bytes")
        lock = self._locks.get(user)
        if lock is None:
            lock = self._locks[user] = asyncio.Lock()
        async with lock:
            loop = asyncio.get_running_loop()
            decoding = loop.run_in_executor(self._threads, lambda: decode_body(raw, encoding, cap=cap))
            try:
                return await asyncio.shield(decoding)
            except asyncio.CancelledError:
                await asyncio.wait({decoding})
                decoding.exception()
                raise

    def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)
