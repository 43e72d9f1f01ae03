"""Conversations held in memory, so that an HTTP client may continue a response the provider will not.

Off unless `codex.hold_conversations_mb` is set: it keeps what people wrote, in memory only, until pushed out.
"""

from __future__ import annotations

from collections import OrderedDict

from pool_server.gateway.websocket.bridge import ContinuationLostError, Conversation


class HeldConversations:
    """Transcripts by (user, response id), the least recently used pushed out beyond `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[str, str], Conversation] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._size = 0

    def holds(self, user: str, response_id: str | None) -> bool:
        return (user, response_id) in self._kept

    def resume(self, user: str, previous: str | None, body: bytes) -> tuple[Conversation, bytes] | None:
        """The conversation a request continues (or begins) and its whole body; None when it is not held.

        Raises `BadBody` when the body is no Responses request.
        """
        talk = Conversation()
        if previous:
            known = self._kept.get((user, previous))
            if known is None:
                return None
            self._kept.move_to_end((user, previous))
            talk = known.fork()
        try:
            whole, _ = talk.request(body)
        except ContinuationLostError:
            return None
        return None if whole is None else (talk, whole)

    def keep(self, user: str, talk: Conversation) -> None:
        """Remembers a conversation whose answer came to its end."""
        if not talk.known or talk.size > self._limit:
            return
        key = (user, talk.response_id)
        self._size += talk.size - self._sizes.get(key, 0)
        self._sizes[key] = talk.size
        self._kept[key] = talk
        while self._size > self._limit:
            old, _ = self._kept.popitem(last=False)
            self._size -= self._sizes.pop(old)
