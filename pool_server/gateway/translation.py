"""One attempt of a call whose account speaks another dialect than its client, or the same one by rules of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pool_server import __version__, dialects
from pool_server.accounts import upstream_kind, vendor_of
from pool_server.core.enums import CredentialKind, Dialect, Operation, Provider
from pool_server.core.lenient_json import page_title
from pool_server.core.models import ClientCall
from pool_server.core.tasks import beside_the_loop
from pool_server.dialects import forms, translation
from pool_server.dialects.translation import DIALECT, UpstreamKind
from pool_server.gateway.answer import Piece, UnusableAnswerError
from pool_server.gateway.transports import UpstreamRefusal
from pool_server.providers import SPECS, Credential
from pool_server.providers.json_fields import decode

_IN_THREAD = 128 << 10  # bytes of a request whose translation would hold the event loop for more than a millisecond
_LARGE = 4 << 20  # bytes whose release takes the kernel milliseconds
_ORGANIZATION = re.compile(rb"\b(org[-_])[A-Za-z0-9]{8,64}\b")  # OpenAI and Groq name it in refusals
_JSON, _SSE = "application/json", "text/event-stream; charset=utf-8"


class CallTerms(msgspec.Struct, frozen=True):
    """What is known of a client's call apart from its body. `session` says nothing of a person, `refused` that the
    upstream took the call as it came for a mistake, `constraints` what is known of the account's model."""

    dialect: Dialect
    operation: Operation
    model: str
    stream: bool
    exchange: str
    session: str
    seals: bool
    refused: bool
    constraints: translation.ModelConstraints
    now: float


class AttemptTranslation:
    """A request as the account takes it, and its answer as the client does; the attempt's transformer.

    `dialect` and `operation` are the upstream's, `stream` is what the client wants. `status` is the answer's where the
    upstream's 200 was none.
    """

    reads_all = True

    def __init__(self, name: str, kind: UpstreamKind, call: ClientCall, body: bytes, *, stream: bool) -> None:
        self.name = name
        self.dialect = DIALECT[kind]
        self.operation = call.operation
        self.call = call
        self.body = body
        self.stream = stream
        self.status = 200
        self.dropped: list[str] = []
        self.approximated: dict[str, str] = {}
        self.estimated = False
        self.events = False  # the upstream answers with events

    def request(self, body: bytes) -> bytes:
        """The body that goes up, whatever the client's was."""
        return self.body

    def headers(self) -> list[tuple[str, str]]:
        """The answer's headers, as the client gets them."""
        events = self.stream and self.status == 200
        found = [("Content-Type", _SSE if events else _JSON), ("X-Pool-Translation", self.name)]
        if self.dropped:
            found.append(("X-Pool-Dropped", ",".join(self.dropped)))
        if self.estimated:
            found.append(("X-Pool-Estimated", "input_tokens"))
        return found

    def record(self) -> dict[str, Any]:
        """What became of the request, for its record."""
        return {"translation": self.name, "dropped": self.dropped, "approximated": self.approximated}

    @property
    def failed(self) -> str:
        """Why what was told of a whole answer ends with an error; "" where it does not."""
        return ""

    def refusal(self, refusal: UpstreamRefusal) -> UpstreamRefusal:
        """An upstream's refusal in the client's dialect."""
        raise NotImplementedError

    def close(self) -> None:
        """Undoes what refers to itself: the collector is to have nothing to do."""
        if len(self.body) > _LARGE:
            large, self.body = [self.body], b""
            beside_the_loop(large.clear)

    def feed(self, piece: bytes) -> bytes:
        raise NotImplementedError

    def finish(self) -> bytes:
        raise NotImplementedError


class Translation(AttemptTranslation):
    """Another dialect. `listed`: the client takes a stream's events as a JSON list, and gets one of one event."""

    def __init__(
        self, terms: CallTerms, kind: UpstreamKind, translated: translation.Translated, *, listed: bool
    ) -> None:
        path, _, query = translated.path.partition("?")
        call = ClientCall(
            operation=translated.operation,
            dialect=DIALECT[kind],
            method="POST",
            path=path,
            query=query,
            headers=_headers(translated.headers, stream=translated.stream),
            model=translated.model,
            stream=translated.stream,
        )
        name = f"{terms.dialect.value}>{kind.value}"
        super().__init__(name, kind, call, translated.body, stream=translated.response.stream)
        self.dropped, self.approximated = translated.dropped, translated.approximated
        self._response = translated.response
        self._listed = listed
        self._whole: list[bytes] = []

    def record(self) -> dict[str, Any]:
        self.approximated = {**self.approximated, **self._response.approximated}
        return super().record()

    @property
    def failed(self) -> str:
        fault = self._response.fault
        return fault.message if fault is not None and self._response.begun else ""

    def feed(self, piece: bytes) -> bytes:
        if self.events:
            return self._response.feed(piece)
        self._whole.append(piece)
        return b""

    def finish(self) -> bytes:
        told = self._response.finish() if self.events else self._response.whole(b"".join(self._whole))
        if self._response.complete or self._response.begun:
            return b"[%b]" % told if self._listed else told
        fault = self._response.fault
        self.status, body = self._response.fault_answer()
        if fault is None or fault.status >= 500:
            raise UnusableAnswerError(fault.message if fault is not None else "the answer is of no known form")
        return body

    def close(self) -> None:
        super().close()
        self._response.close()

    def refusal(self, refusal: UpstreamRefusal) -> UpstreamRefusal:
        status, _, body = self._response.error(refusal.status, refusal.body)
        return UpstreamRefusal(status, [("Content-Type", _JSON)], refusal.fields, body)


class PlainClient(AttemptTranslation):
    """A plain Responses client on the ChatGPT backend, which streams only and refuses some fields."""

    def __init__(self, call: ClientCall, body: bytes, dropped: list[str], *, stream: bool) -> None:
        super().__init__("responses>codex", UpstreamKind.CODEX, call, body, stream=stream)
        self.dropped = dropped
        self._fold = None if stream else translation.ResponseFold()

    def feed(self, piece: bytes) -> bytes:
        if self._fold is None:
            return piece
        self._fold.feed(piece)
        return b""

    def close(self) -> None:
        super().close()
        if self._fold is not None:
            self._fold.close()

    def finish(self) -> bytes:
        if self._fold is None:
            return b""
        whole = self._fold.finish()
        if whole is None:
            raise UnusableAnswerError(self._fold.fault.message if self._fold.fault else "the answer broke off")
        return whole

    def refusal(self, refusal: UpstreamRefusal) -> UpstreamRefusal:
        return _told(Dialect.RESPONSES, refusal)


class Reformed(AttemptTranslation):
    """An answer in the client's own dialect and in the form it asked for: the upstream chose the other one.

    `listed`: the client takes events as a JSON list; `usage`: it asked for a Chat stream's.
    """

    def __init__(self, dialect: Dialect, call: ClientCall, *, stream: bool, listed: bool, usage: bool) -> None:
        super().__init__("", UpstreamKind(dialect.value), call, b"", stream=stream)
        self._usage = usage
        self._fold = None if stream else forms.Folded(dialect, listed=listed)
        self._whole: list[bytes] = []

    def headers(self) -> list[tuple[str, str]]:
        return [("Content-Type", _SSE if self.stream and self.status == 200 else _JSON)]

    def record(self) -> dict[str, Any]:
        told = "events" if self.stream else "one body"
        return {"approximated": {"form of the answer": f"{told}, as asked for; the upstream chose the other"}}

    def feed(self, piece: bytes) -> bytes:
        if self._fold is None or not self.events:
            self._whole.append(piece)
        else:
            self._fold.feed(piece)
        return b""

    def finish(self) -> bytes:
        whole = b"".join(self._whole)
        if self._fold is not None:
            if not self.events:
                self._fold.listing(whole)
            told, error = self._fold.body(), self._fold.error
        else:
            told, error = forms.unfolded(self.dialect, whole, usage=self._usage), None
            if told is None and (error := decode(whole)).get("error") is not None:
                told = whole
        if told is None:
            raise UnusableAnswerError("the answer broke off, or is of no known form")
        if error:
            self.status = translation.read_error(0, error).status
        return told

    def close(self) -> None:
        super().close()
        if self._fold is not None:
            self._fold.close()


class NoAnswer:
    """In the place of an upstream's answer where no account is asked."""

    status = 200

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.at_once: Callable[..., bool] | None = None
        self._pieces = [b'{"input_tokens":0,"totalTokens":0}']

    async def read(self) -> Piece:
        return self._pieces.pop() if self._pieces else b""

    def close(self) -> None:
        """There is nothing to close."""


class CountTranslation(AttemptTranslation):
    """A count of tokens by another dialect's counter; `estimate` where the account has none."""

    def __init__(self, terms: CallTerms, kind: UpstreamKind, count: translation.Count) -> None:
        path, _, query = count.path.partition("?")
        call = ClientCall(
            operation=Operation.COUNT_TOKENS if kind is not UpstreamKind.RESPONSES else Operation.OTHER,
            dialect=DIALECT[kind],
            method="POST",
            path=path,
            query=query,
            headers=_headers(count.headers, stream=False),
            model=terms.model,
        )
        super().__init__(f"{terms.dialect.value}>{kind.value}", kind, call, count.body, stream=False)
        self.estimate = count.estimate
        self.estimated = count.estimate is not None
        self._client = terms.dialect
        self._whole: list[bytes] = []

    def feed(self, piece: bytes) -> bytes:
        self._whole.append(piece)
        return b""

    def finish(self) -> bytes:
        return translation.count_answer(self._client, b"".join(self._whole) if self.estimate is None else self.estimate)

    def refusal(self, refusal: UpstreamRefusal) -> UpstreamRefusal:
        return _told(self._client, refusal)


def worded(
    translated: AttemptTranslation | None, cred: Credential, call: ClientCall, refusal: UpstreamRefusal
) -> UpstreamRefusal:
    """A refusal as its client gets it: in the client's dialect, also where the vendor's errors are of another form or a
    proxy's page, and without the name of the account's organization, which is nobody's business."""
    if b"org" in refusal.body:
        refusal = msgspec.structs.replace(refusal, body=_ORGANIZATION.sub(rb"\1hidden", refusal.body))
    if translated is not None:
        return translated.refusal(refusal)
    foreign = SPECS[cred.provider].foreign_errors and not _of_form(call.dialect, refusal.body)
    if not foreign and page_title(refusal.body) is None:
        return refusal
    return _told(call.dialect, refusal)


def _of_form(dialect: Dialect, body: bytes) -> bool:
    """Whether an error's body has the dialect's own form."""
    data = decode(body)
    return isinstance(data.get("error"), dict) and (dialect is not Dialect.MESSAGES or data.get("type") == "error")


def _told(dialect: Dialect, refusal: UpstreamRefusal) -> UpstreamRefusal:
    """The upstream's words in another dialect's form."""
    body = msgspec.json.encode(translation.error_body(dialect, translation.read_error(refusal.status, refusal.body)))
    return UpstreamRefusal(refusal.status, [("Content-Type", _JSON)], refusal.fields, body)


async def translate(
    terms: CallTerms, cred: Credential, call: ClientCall, whole: Callable[[], Awaitable[bytes | None]], *, native: bool
) -> AttemptTranslation | None:
    """How the call goes to this account; None where it goes up as it came. `whole`: the request's body, None where
    nobody is to be asked. Raises `TranslationError` for what cannot be carried, `BadBodyError` for what cannot be
    read."""
    if native:
        return await _by_the_rules(terms, cred, call, whole)
    kind = upstream_kind(cred, terms.operation, terms.dialect, terms.model)
    if kind is None:
        return None
    body = await whole()
    if body is None:
        return None
    listed = dialects.listed(terms.dialect, call.query, stream=terms.stream)
    if len(body) < _IN_THREAD:
        return _translated(terms, kind, vendor_of(cred), body, listed=listed)
    return await asyncio.to_thread(_translated, terms, kind, vendor_of(cred), body, listed=listed)


def _translated(terms: CallTerms, kind: UpstreamKind, vendor: str, body: bytes, *, listed: bool) -> AttemptTranslation:
    target = translation.Target(
        kind, model=terms.model, seals=terms.seals, vendor=vendor, constraints=terms.constraints
    )
    context = translation.TranslationContext(
        ident=terms.exchange,
        now=terms.now,
        session=terms.session,
        model=terms.model,
        stream=terms.stream and not listed,
    )
    if terms.operation is Operation.COUNT_TOKENS:
        return CountTranslation(terms, kind, translation.translate_count(terms.dialect, target, body, context))
    translated = translation.translate_request(terms.dialect, target, body, context)
    return Translation(terms, kind, translated, listed=listed)


async def _by_the_rules(
    terms: CallTerms, cred: Credential, call: ClientCall, whole: Callable[[], Awaitable[bytes | None]]
) -> AttemptTranslation | None:
    backend = cred.provider is Provider.CODEX and cred.kind is not CredentialKind.API_KEY
    if not backend or terms.operation is not Operation.RESPONSES or call.websocket:
        return None
    if terms.stream and not terms.refused:
        return None  # most that stream know the rules: bytes pass as they come until they are refused
    body = await whole()
    assert body is not None  # of HTTP
    changed, dropped = translation.apply_rules(body)
    return PlainClient(call, changed, dropped, stream=terms.stream) if changed is not body else None


def _headers(own: dict[str, str], *, stream: bool) -> list[tuple[str, str]]:
    """A translated request names the pool as its client."""
    accept = "text/event-stream" if stream else _JSON
    return [*own.items(), ("accept", accept), ("user-agent", f"pool-server/{__version__}")]
