"""HTTP both ways: a request's body goes up to an account, its answer comes down."""

from __future__ import annotations

from asyncio import Future
from typing import Any, NamedTuple

import msgspec

from pool_server import dialects
from pool_server.core.enums import ErrorKind, Provider
from pool_server.core.models import ClientCall, ClientError, Fault, UpstreamRequest
from pool_server.core.settings import Settings
from pool_server.gateway.answer import Ending, Piece
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.http.body import Body
from pool_server.gateway.http.decoding import BodyDecoder, CodingError, DecodedAnswer
from pool_server.gateway.http.headers import downward
from pool_server.gateway.http.reply import Reply
from pool_server.gateway.transports import UpstreamAnswer, UpstreamRefusal, changes, finished
from pool_server.http1 import Answer, UpstreamDisconnectedError
from pool_server.providers import Credential, Shield, network_fault, provider_module

_SSE_HEADERS = [("Content-Type", "text/event-stream; charset=utf-8")]

_KEPT = 1 << 20  # bytes of a decoded body that are kept
_MOST_PREPARED = 4  # upstream requests that are kept with a head


class HttpTransport:
    """`decoded_cap` bounds what a compressed body may become, in bytes."""

    framed = False
    bound = None

    def __init__(
        self, exchange: Exchange, body: Body, encoding: str, decoder: BodyDecoder, decoded_cap: int, reply: Reply
    ) -> None:
        self._x = exchange
        self._body = body
        self._encoding = encoding
        self._decoder = decoder
        self._decoded_cap = decoded_cap
        self._decoded: bytes | None = None
        self._reply = reply
        self._answer: Answer | DecodedAnswer | None = None
        self._prepared: UpstreamRequest
        self.made_of_head: dict[str, Any] = {}  # see `http1.Request`
        self._shows_limits = False  # the account's own, in its answer's headers
        self.write = reply.write

    @property
    def started(self) -> bool:
        return self._reply.started

    @property
    def closed(self) -> bool:
        return self._reply.closed or self._reply.finished

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def sent(self) -> int:
        return self._reply.bytes

    # -- up

    @property
    def compressed(self) -> bool:
        return self._encoding not in ("", "identity")

    def plain_at_once(self) -> bytes | memoryview | None:
        """The body, decoded, None where that takes time. Raises as `plain` does."""
        body = self._body.view()
        if not self.compressed:
            return body
        if self._decoded is None:
            self._decoded = self._decoder.at_once(body, self._encoding, cap=self._decoded_cap)
        return self._decoded

    async def plain(self) -> bytes:
        if not self.compressed:
            return await self._body.whole()
        body = self.plain_at_once()
        if body is None:
            body = await self._decoder.decode(
                self._x.principal.user, self._body.view(), self._encoding, cap=self._decoded_cap
            )
            self._decoded = body if len(body) <= _KEPT else None
        return bytes(body)

    async def whole(self, account: str, credential: Credential) -> bytes | None:
        return await self.plain()

    def prepare(self, credential: Credential) -> str:
        x = self._x
        made_of_head = self.made_of_head if x.translation is None else {}
        self._prepared = _prepared(made_of_head, credential, x.call, x.services.settings).request
        return self._prepared.url

    async def open(
        self, account: str, credential: Credential, body: bytes | None
    ) -> UpstreamAnswer | UpstreamRefusal | Fault:
        prepared = self._prepared
        if changes(prepared):
            prepared, body = finished(prepared, await self.plain() if body is None else body)
        if body is not None:
            prepared = _declared_plain(prepared)
        payload, size = (self._body.payload(), self._body.size) if body is None else (body, len(body))
        opened = await self._x.open(account, prepared, payload, size)
        if isinstance(opened, Answer | DecodedAnswer):
            self._answer = opened
            self._shows_limits = credential.provider is Provider.CODEX
        return opened

    def broke(self, error: UpstreamDisconnectedError) -> Fault:
        return network_fault(str(error) if isinstance(error, CodingError) else "the connection broke off")

    def drop(self) -> None:
        """Nothing of one request outlives its answer."""

    # -- down

    def begin(self, pieces: list[Piece], length: int | None, shield: Shield) -> Future[None] | None:
        chunk = b"".join(pieces)  # type: ignore[arg-type]  # of bytes they are made here
        if self._reply.started:  # early headers are out already
            return self._reply.write(chunk)
        if (translation := self._x.translation) is not None:
            return self._reply.start(translation.status, self._x.told(translation.headers()), chunk, length=length)
        assert self._answer is not None
        headers = self._x.told(downward(self._answer.headers, shield))
        headers = self._x.objects.brought_back(headers)
        if self._shows_limits:
            headers = self._x.services.view.instead(headers, self._x.principal)
        return self._reply.start(self._answer.status, headers, chunk, length=length)

    def keep_alive(self) -> None:
        if self._reply.started:
            self._reply.write(dialects.SPECS[self._x.route.dialect].keepalive)
        else:
            self._reply.start(200, _SSE_HEADERS)

    async def end(self, ending: Ending, error: ClientError | None, latest: Piece) -> None:
        if error is not None:
            sequence = dialects.next_sequence(latest) if isinstance(latest, bytes) else 0
            await self._reply.error_event(self._x.route.dialect, error, sequence)
        elif ending is Ending.COMPLETE:
            self._reply.finish()
        elif ending is Ending.BROKEN:
            self._reply.abort()
        else:
            self._reply.break_off(self._x.route.dialect)

    async def refuse(self, refusal: UpstreamRefusal, fault: Fault, shield: Shield) -> None:
        if self._reply.started:
            await self.tell(ClientError(ErrorKind.BAD_REQUEST, fault.message, refusal.status, code=fault.code))
        else:
            await self._reply.whole(refusal.status, downward(refusal.headers, shield), refusal.body)

    async def tell(self, error: ClientError) -> None:
        await self._reply.tell(self._x.route.dialect, error)


class _Prepared(NamedTuple):
    """An upstream request, and all that it was made of."""

    credential: Credential
    settings: Settings
    headers: list[tuple[str, str]]
    facts: tuple[str, str, bool]
    request: UpstreamRequest


def _prepared(made_of_head: dict[str, Any], credential: Credential, call: ClientCall, settings: Settings) -> _Prepared:
    """What a credential's vendor makes of a call. It makes the same of the same, so that what was made for the same
    head before is found again; the client's method, query and dialect are the head's."""
    facts = call.path, call.model, call.stream
    known: list[_Prepared] = made_of_head.setdefault("prepared", [])
    for one in known:
        same = one.credential is credential and one.settings is settings and one.headers is call.headers
        if same and one.facts == facts:
            return one
    made = provider_module(credential.provider).prepare(credential, call, settings)
    known[_MOST_PREPARED - 1 :] = []
    known.insert(0, found := _Prepared(credential, settings, call.headers, facts, made))
    return found


def _declared_plain(prepared: UpstreamRequest) -> UpstreamRequest:
    """The body goes up decoded, so its encoding header must not."""
    kept = [pair for pair in prepared.headers if pair[0].lower() != "content-encoding"]
    return msgspec.structs.replace(prepared, headers=kept, written=None)
