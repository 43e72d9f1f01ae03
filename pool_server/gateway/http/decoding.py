"""Decodes compressed bodies: a client's, small ones at once, others beside the event loop, few at a time; and an
upstream's, which was not asked to compress its answer, as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from weakref import WeakValueDictionary

from pool_server.dialects import BadEncodingError, BodyTooLargeError, Inflater, decode_body
from pool_server.http1 import Answer, UpstreamDisconnectedError

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


class CodingError(UpstreamDisconnectedError):
    """An answer's content coding is broken."""


class DecodedAnswer:
    """An upstream's answer without its content coding. It offers nothing at once."""

    def __init__(self, answer: Answer, encoding: str) -> None:
        """Raises `BadEncodingError` where the coding is not known."""
        self._answer = answer
        self._inflater = Inflater(encoding)
        self.status = answer.status
        self.headers = answer.headers
        self.fields = {name: value for name, value in answer.fields.items() if name != "content-length"}
        self.at_once: Callable[..., bool] | None = None

    async def read(self) -> bytes:
        """The next decoded bytes, b"" at the end. Raises `UpstreamDisconnectedError`."""
        while True:
            if self._inflater.more:
                await asyncio.sleep(0)  # others have their turn
                piece = self._inflater.feed(b"")
            elif coded := await self._answer.read():
                piece = self._inflater.feed(coded)
            else:
                return b""
            if self._inflater.broken:
                raise CodingError("the answer's content coding is broken")
            if piece:
                return piece

    def close(self) -> None:
        self._answer.close()


def decoded(answer: Answer) -> Answer | DecodedAnswer:
    """The answer without its content coding. Raises `BadEncodingError`."""
    encoding = coding(answer.fields)
    return DecodedAnswer(answer, encoding) if encoding else answer


def coding(fields: dict[str, str]) -> str:
    """The content coding of an answer, "" for none."""
    encoding = fields.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def unknown_coding(fields: dict[str, str]) -> str:
    """The content coding that nobody asked for, in words."""
    return f"in the content coding {coding(fields)[:40]!r}, which was not asked for and cannot be read"


def decoded_refusal(body: bytes, fields: dict[str, str], cap: int) -> tuple[bytes, str]:
    """A refusal's body as it can be read, at most `cap` bytes of it, and "" or why it cannot be read."""
    encoding = coding(fields)
    if not encoding:
        return body, ""
    try:
        inflater = Inflater(encoding)
    except BadEncodingError:
        return b"", unknown_coding(fields)
    decoded = inflater.feed(body)
    while inflater.more and len(decoded) < cap:
        decoded += inflater.feed(b"")
    return decoded[:cap], ""
