"""Conversations held in memory, so that an HTTP client may continue a response the provider will not.

Off unless `codex.hold_conversations_mb` is set: it keeps what people wrote, in memory only, until pushed out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from pool_server.core.enums import CredentialKind, Operation, Provider
from pool_server.dialects import BadBodyError, ContinuationLostError
from pool_server.gateway.websocket.bridge import Conversation
from pool_server.providers import Credential

if TYPE_CHECKING:
    from pool_server.gateway.exchange import Exchange


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

    def transformer(self, exchange: Exchange, credential: Credential) -> HeldTurn | None:
        """What goes on with a held conversation, or begins to hold one, where the account cannot continue a response
        by its id."""
        if not self._limit or exchange.route.operation is not Operation.RESPONSES or exchange.route.websocket:
            return None
        if credential.kind is CredentialKind.API_KEY or credential.provider is not Provider.CODEX:
            return None
        return HeldTurn(self, exchange.principal.user, exchange.peek.previous_response_id)


class HeldTurn:
    """Puts the whole conversation in the place of one that continues a response, and listens to the answer."""

    reads_all = True
    failed = ""

    def __init__(self, held: HeldConversations, user: str, previous: str | None) -> None:
        self._held = held
        self._user = user
        self._previous = previous
        self._talk: Conversation | None = None

    def request(self, body: bytes) -> bytes | None:
        try:
            found = self._held.resume(self._user, self._previous, body)
        except BadBodyError:
            return None
        if found is None:
            return None
        self._talk, whole = found
        return whole if self._previous else None

    def feed(self, piece: bytes) -> bytes:
        if self._talk is not None:
            self._talk.feed(piece)
            if self._talk.finished:
                self._held.keep(self._user, self._talk)
                self._talk = None
        return piece

    def finish(self) -> bytes:
        return b""
