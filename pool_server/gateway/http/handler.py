"""The HTTP side of the data plane: one delegate per request, from its headers to the last byte of the answer."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from pool_server import dialects
from pool_server.core.enums import CredentialKind, Dialect, ErrorKind, FaultKind, Operation, Outcome, Provider
from pool_server.core.models import ClientCall, ClientError, Fault, UpstreamRequest
from pool_server.gateway.body import Body
from pool_server.gateway.emulation.answers import LocalRequest
from pool_server.gateway.exchange import Exchange, new_request_id
from pool_server.gateway.headers import downward, query_without_key, upward
from pool_server.gateway.http.relay import AnswerTimers, Relay
from pool_server.gateway.http.reply import Reply
from pool_server.gateway.routes import Route
from pool_server.gateway.upstream import UpstreamError, refusal_body
from pool_server.gateway.websocket.bridge import Conversation
from pool_server.http1 import Answer, ClientDisconnectedError, Request, Response
from pool_server.providers import Credential, network_fault, provider_module, redact
from pool_server.users import Principal

if TYPE_CHECKING:
    from pool_server.gateway.service import Gateway

log = logging.getLogger("pool_server.gateway")

LOCAL_BODY_CAP = 4 << 20  # bytes of a call the pool answers itself (telemetry is swallowed, not kept)
OPEN_BODY_CAP = 16 << 10  # bytes of a call that anybody may make
_DECODED_CAP_FACTOR = 4  # a compressed body may unfold to this many times max_body_mb
_TELLTALE_EXTRA = 64 << 20  # a body over the limit is read to its end when it is at most this much larger
_STRANGERS_EXTRA = 1 << 20  # likewise, of somebody the pool does not know
_PASSED_ON = frozenset({FaultKind.REQUEST, FaultKind.CONTINUATION})


class HttpExchange:
    """Reads the request, then runs the exchange as a task that the client's hang-up cancels."""

    def __init__(self, gateway: Gateway, request: Request, response: Response, route: Route) -> None:
        self._gateway = gateway
        self._request = request
        self._route = route
        self._body = Body()
        self._size = 0
        self._limit = OPEN_BODY_CAP
        self._most_read = OPEN_BODY_CAP + _STRANGERS_EXTRA
        self._principal: Principal | None = None
        self._error: ClientError | None = None
        self._stop: tuple[Outcome, ClientError] | None = None
        self._task: asyncio.Task[None] | None = None
        self._x: Exchange | None = None
        self._watch: AnswerTimers | None = None
        self._talk: Conversation | None = None
        self._reply = Reply(response, new_request_id(time.time()))
        self._admit(response)

    @property
    def principal(self) -> Principal | None:
        return self._principal

    # -- the request comes in

    def _admit(self, response: Response) -> None:
        gateway = self._gateway
        gateway.live.add(self)
        admitted = gateway.door(self._request, self._route)
        if isinstance(admitted, ClientError):
            self._error = admitted
        else:
            self._principal = admitted
        if self._principal is None:
            response.shorten()
        else:
            self._limit = gateway.rooms.settings.max_body_mb << 20 if self._route.model_call else LOCAL_BODY_CAP
            self._most_read = self._limit + _TELLTALE_EXTRA
        fields = self._request.headers.fields
        length = fields.get("content-length", "")
        announced = int(length) if length.isdigit() else 0
        if announced > self._limit:
            self._too_large()
        # Told at once, where the body is too much to be heard out or waits for leave to come.
        if self._error is not None and (announced > self._most_read or "expect" in fields):
            self.finish()

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._error is not None:  # read and dropped, so that the client gets to read the answer
            if self._size > self._most_read:
                self.finish()
            return
        if self._size > self._limit:
            self._too_large()
            return
        try:
            self._body.append(chunk)
        except OSError:
            self._error = ClientError(
                ErrorKind.NO_ACCOUNT, "The pool has no disk space left to hold this request.", 507
            )

    def _too_large(self) -> None:
        most = f"{self._limit >> 20} MiB" if self._limit >> 20 else f"{self._limit >> 10} KiB"
        whose = "this pool takes (max_body_mb)" if self._route.model_call else "this call takes"
        message = f"The request body is larger than {most}, the most {whose}."
        self._error = self._error or ClientError(ErrorKind.TOO_LARGE, message, 413)
        self._body.close()

    def finish(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def on_connection_close(self) -> None:
        if self._task is None:
            self._close()
        elif not self._task.done():
            self._task.cancel()

    def tick(self, now: float) -> None:
        """Keeps the client's connection alive and the upstream honest; `now` is the event loop's time."""
        if self._watch is not None:
            self._watch.tick(now)

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """Ends the exchange now with an error in the client's dialect (revoked key, drained server)."""
        if self._stop is None and self._task is not None and not self._task.done():
            self._stop = (outcome, error)
            self._task.cancel()

    # -- the exchange

    async def _run(self) -> None:
        try:
            await self._serve()
        except (asyncio.CancelledError, ClientDisconnectedError):
            await self._interrupted()
        except Exception:
            log.exception("exchange %s failed inside the pool", self._reply.request_id)
            await self._give_up(ClientError(ErrorKind.UNREACHABLE, "The pool failed to serve this request.", 500))
        finally:
            if not self._reply.finished:
                self._reply.abort()
            self._close()

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.relay = None
        self._body.close()
        self._gateway.live.discard(self)
        # The task, its frames and the delegate refer to each other: undo that, the collector has enough to do.
        self._task = None
        self._x = None
        self._watch = None

    async def _serve(self) -> None:
        if self._error is not None:
            await self._tell(self._error)
        elif not self._route.model_call:
            await self._answer_locally()
        else:
            assert self._principal is not None
            await self._exchange(self._principal)

    async def _answer_locally(self) -> None:
        request = self._request
        answer = await self._gateway.local.answer(
            LocalRequest(
                method=request.method,
                path=self._route.path,
                query=query_without_key(request.query),
                headers=request.headers.fields,
                body=bytes(self._body.view()) if self._size else b"",
                principal=self._principal,
                forced=self._route.forced,
                base_url=f"http://{request.headers.get('Host', '127.0.0.1')}",
            )
        )
        await self._reply.whole(answer.status, list(answer.headers), answer.body)

    async def _exchange(self, principal: Principal) -> None:
        request = self._request
        upcall = ClientCall(
            operation=self._route.operation,
            dialect=self._route.dialect,
            method=request.method,
            path=self._route.path,
            query=query_without_key(request.query),
            headers=upward(request.headers.pairs),
        )
        x = Exchange(self._gateway.rooms, self._route, principal, upcall, self._reply.request_id)
        x.request_bytes = self._size
        self._x = x
        refused = self._look(x) or x.force_refused()
        if self._gateway.held.holds(principal.user, x.peek.previous_response_id):
            x.peek.hard = tuple(pin for pin in x.peek.hard if pin[0] != "response")  # any account can go on
        if refused is None:
            refused = await x.reserve()
        if refused is not None:
            await self._deny(x, refused)
            return
        self._watch = AnswerTimers(x, self._reply)
        while (account := await x.next_account()) is not None:
            credential = x.begin(account)
            try:
                fault = await self._attempt(x, account, credential)
            finally:
                x.end(account)
            if fault is None:
                return
        error = x.unserved()
        outcome = _OUTCOMES.get(error.kind, Outcome.UPSTREAM)
        await x.record(outcome, error.status, error.message)
        await self._tell(error)

    def _look(self, x: Exchange) -> ClientError | None:
        """Peeks into the request; the error when it cannot be read."""
        headers = self._request.headers.fields
        encoding = headers.get("content-encoding", "").strip().lower()
        try:
            body = self._body.view() if self._size else b""
            if encoding not in ("", "identity"):
                cap = self._limit * _DECODED_CAP_FACTOR
                body = dialects.decode_body(body, encoding, cap=cap)
            x.look(headers, body, x.principal.key or x.principal.user)
        except dialects.BodyTooLargeError as error:
            return ClientError(ErrorKind.TOO_LARGE, str(error), 413)
        except (dialects.BadEncodingError, dialects.BadBodyError) as error:
            return ClientError(ErrorKind.BAD_REQUEST, str(error), 400)
        if not x.providers:
            return ClientError(ErrorKind.NOT_FOUND, "No provider of this pool answers this call.", 404)
        return None

    async def _deny(self, x: Exchange, error: ClientError) -> None:
        outcome = Outcome.REQUEST_FAULT if error.status in (400, 404, 413) else Outcome.DENIED
        await x.record(outcome, error.status, error.message)
        await self._tell(error)

    # -- one account's attempt

    async def _attempt(self, x: Exchange, account: str, credential: Credential) -> Fault | None:
        """Tries one account; None when the client has its answer, else the fault that ended the attempt."""
        ready = await x.completed(account, credential)
        if isinstance(ready, Fault):
            x.failed(account, credential, ready)
            return ready
        credential = ready
        body = self._stripped() if x.foreign else None
        body = self._resumed(x, credential) or body
        fault = await self._call(x, account, credential, body)
        if fault is not None and fault.kind is FaultKind.AUTH and credential.can_refresh:
            renewed = await x.refreshed(account, credential)
            if renewed is not None:
                credential = renewed
                fault = await self._call(x, account, credential, body)
        if fault is not None and fault.kind is FaultKind.ENCRYPTED_CONTENT and body is None:
            stripped = self._stripped()
            if stripped is not None:
                fault = await self._call(x, account, credential, stripped)
        if fault is not None:
            x.failed(account, credential, fault, x.usage)
        return fault

    def _resumed(self, x: Exchange, credential: Credential) -> bytes | None:
        """The whole conversation where it is held and the account cannot continue a response by its id."""
        held = self._gateway.held
        on = x.rooms.settings.codex.hold_conversations_mb and self._route.operation is Operation.RESPONSES
        if not on or credential.kind is CredentialKind.API_KEY or credential.provider is not Provider.CODEX:
            return None
        try:
            found = held.resume(x.principal.user, x.peek.previous_response_id, self._plain_body())
        except dialects.BadBodyError:
            return None
        if found is None:
            return None
        self._talk, whole = found
        return whole if x.peek.previous_response_id else None

    def _stripped(self) -> bytes | None:
        """The body without reasoning that was sealed for another account, None when there is none."""
        try:
            return dialects.strip_encrypted(self._plain_body())
        except (dialects.BadBodyError, dialects.BadEncodingError, dialects.BodyTooLargeError):
            return None

    def _plain_body(self) -> bytes:
        encoding = self._request.headers.fields.get("content-encoding", "").strip().lower()
        body = self._body.view()
        if encoding in ("", "identity"):
            return bytes(body)
        return dialects.decode_body(body, encoding, cap=self._limit * _DECODED_CAP_FACTOR)

    async def _call(self, x: Exchange, account: str, credential: Credential, body: bytes | None) -> Fault | None:
        """One upstream request. `body` replaces the client's (plain JSON) where it had to be changed."""
        rooms, plain = self._gateway.rooms, body
        module = provider_module(credential.provider)
        prepared = module.prepare(credential, x.upcall, rooms.settings)
        x.upstream_url = prepared.url
        if x.wants_usage():
            body = dialects.ask_usage(self._plain_body() if body is None else body)
        if prepared.patch:
            body = dialects.splice(self._plain_body() if body is None else body, prepared.patch)
        if body is not None:
            _declare_plain(prepared)
        payload = self._body.payload() if body is None else body
        size = self._body.size if body is None else len(body)
        try:
            answer = await rooms.upstream.open(
                prepared,
                payload,
                size=size,
                proxy_url=rooms.accounts.proxy_url(account),
                first_byte_s=rooms.settings.upstream_first_byte_s,
            )
        except UpstreamError as error:
            return network_fault(str(error))
        try:
            x.observe(account, credential, answer.fields)
            if 200 <= answer.status < 300:
                assert self._watch is not None
                listen = self._talk.feed if self._talk is not None else None
                relay = Relay(x, self._reply, self._watch, answer, account, credential, listen)
                self._watch.relay = relay
                try:
                    return await relay.run()
                finally:
                    self._watch.relay = None
                    if self._talk is not None:
                        self._gateway.held.keep(x.principal.user, self._talk)
            told = credential.hide(await refusal_body(answer))
            if not x.usage_refused(told):
                return await self._refused(x, answer, account, credential, told)
        finally:
            answer.close()
        return await self._call(x, account, credential, plain)

    async def _refused(
        self, x: Exchange, answer: Answer, account: str, credential: Credential, body: bytes
    ) -> Fault | None:
        """A status that is no success: a request fault is passed on untouched, all else is a fault to act on."""
        module = provider_module(credential.provider)
        fault = module.classify(answer.status, answer.fields, body, now=time.time(), model=x.peek.model)
        if fault.kind not in _PASSED_ON:
            return fault
        x.failed(account, credential, fault)
        x.first_byte_ms = None
        await x.record(Outcome.REQUEST_FAULT, answer.status, fault.message)
        if self._reply.started:
            await self._tell(ClientError(ErrorKind.BAD_REQUEST, fault.message, answer.status, code=fault.code))
        else:
            told = [(name, credential.hide_text(value)) for name, value in downward(answer.headers)]
            await self._reply.whole(answer.status, told, body)
        return None

    # -- endings

    async def _tell(self, error: ClientError) -> None:
        """Tells the client in its own dialect, whichever stage the answer is in."""
        if self._reply.finished or self._reply.closed:
            return
        if self._reply.started:
            await self._reply.error_event(self._route.dialect, error)
            return
        dialect: Dialect = self._route.dialect
        status, headers, body = dialects.error(dialect, error, now=time.time(), request_id=self._reply.request_id)
        await self._reply.whole(status, headers, body)

    async def _interrupted(self) -> None:
        """The task was cancelled: the client left, or the pool ends the exchange."""
        x = self._x
        outcome, error = self._stop or (Outcome.CLIENT_GONE, None)
        if x is not None and not x.recorded:
            if self._watch is not None and self._reply.started:
                x.response_bytes = self._reply.bytes
            status = self._reply.status or (error.status if error is not None else 499)
            message = error.message if error is not None else ""
            await x.record(outcome, status, message, partial=True)
        if error is not None:
            await self._tell(error)

    async def _give_up(self, error: ClientError) -> None:
        try:
            if self._x is not None:
                await self._x.record(Outcome.UPSTREAM, error.status, error.message, partial=True)
            await self._tell(error)
        except OSError as failure:
            log.warning("exchange %s: %s", self._reply.request_id, redact(str(failure)))


_OUTCOMES = {
    ErrorKind.EXHAUSTED: Outcome.EXHAUSTED,
    ErrorKind.NO_ACCOUNT: Outcome.NO_ACCOUNT,
    ErrorKind.NOT_FOUND: Outcome.NO_ACCOUNT,
    ErrorKind.FORBIDDEN: Outcome.DENIED,
}


def _declare_plain(prepared: UpstreamRequest) -> None:
    """The body goes up decoded, so its encoding header must not."""
    prepared.headers = [pair for pair in prepared.headers if pair[0].lower() != "content-encoding"]
