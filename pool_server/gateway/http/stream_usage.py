"""Asks for the usage of a streamed completion whose client did not, and keeps the event that tells it."""

from __future__ import annotations

from pool_server import dialects


class UsageQuestion:
    """The change of one attempt's request, and its undoing in the answer."""

    reads_all = False
    failed = ""

    def request(self, body: bytes) -> bytes:
        return dialects.ask_usage(body)

    def feed(self, piece: bytes) -> bytes:
        return dialects.without_usage(piece)

    def finish(self) -> bytes:
        return b""
