"""The HTTP side of the data plane: one delegate per request, from its headers to the last byte of the answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from pool_server import dialects
from pool_server.core.enums import ErrorKind, Outcome
from pool_server.core.models import ClientCall, ClientError
from pool_server.core.tasks import running_loop
from pool_server.gateway import final_error, metrics
from pool_server.gateway.emulation.answers import LocalRequest
from pool_server.gateway.exchange import Exchange
from pool_server.gateway.http.body import Body, SpoolFullError
from pool_server.gateway.http.captured_reply import CapturedReply
from pool_server.gateway.http.decoding import DECODED_CAP
from pool_server.gateway.http.headers import presented, query_without_key, upward
from pool_server.gateway.http.reply import Reply
from pool_server.gateway.http.transport import HttpTransport
from pool_server.gateway.objects import uploads
from pool_server.gateway.pipeline import Pipeline
from pool_server.gateway.recording import record
from pool_server.gateway.routes import Route
from pool_server.gateway.service import DataPlane
from pool_server.gateway.services import new_request_id
from pool_server.http1 import ClientDisconnectedError, Request, Response
from pool_server.transcripts import ExchangeCapture
from pool_server.users import Principal

log = logging.getLogger("pool_server.gateway")

LOCAL_BODY_CAP = 4 << 20  # bytes of a call the pool answers itself (telemetry is swallowed, not kept)
OPEN_BODY_CAP = 16 << 10  # bytes of a call that anybody may make
_LOOKED_AT_ONCE = 1 << 20  # bytes of a body that are looked into before the user's limits are asked
_TELLTALE_EXTRA = 64 << 20  # a body over the limit is read to its end when it is at most this much larger
_STRANGERS_EXTRA = 1 << 20  # likewise, of somebody the pool does not know


class HttpExchange:
    """Reads the request, then runs the exchange as a task that the client's hang-up cancels."""

    def __init__(self, gateway: DataPlane, request: Request, response: Response, route: Route) -> None:
        self._gateway = gateway
        self._request = request
        self._route = route
        self._body = Body(gateway.spool)
        self._size = 0
        self._limit = OPEN_BODY_CAP
        self._most_read = OPEN_BODY_CAP + _STRANGERS_EXTRA
        self._principal: Principal | None = None
        self._unheard = False  # nobody known here, who may be known elsewhere
        self._error: ClientError | None = None
        self._denied: ClientError | None = None  # by the user's limits, which a large body asks early; is recorded
        self._asked = False
        self._stop: tuple[Outcome, ClientError] | None = None
        self._task: asyncio.Task[None] | None = None
        self._pipeline: Pipeline | None = None
        self._response = response
        self._reply = Reply(response, new_request_id(time.time()))
        self._admit(response)

    @property
    def principal(self) -> Principal | None:
        return self._principal

    # -- the request comes in

    def _admit(self, response: Response) -> None:
        gateway = self._gateway
        gateway.live.add(self)
        self._keys = presented(self._request)
        admitted = gateway.door(self._request, self._route, self._keys)
        if not isinstance(admitted, ClientError):
            self._principal = admitted
        elif gateway.unheard(admitted, self._request):
            self._unheard = True
        else:
            self._error = admitted
        if self._principal is None and not self._unheard:
            response.shorten()
        else:
            self._limit = gateway.services.settings.max_body_mb << 20 if self._route.model_call else LOCAL_BODY_CAP
            self._most_read = self._limit + _TELLTALE_EXTRA
            self._body.owner = self._principal.user if self._principal is not None else ""
        fields = self._request.headers.fields
        length = fields.get("content-length", "")
        announced = int(length) if length.isdigit() else 0
        if announced > self._limit:
            self._too_large()
        self._body.expect(announced if length else None)
        # Told at once, where the body is too much to be heard out or waits for leave to come.
        if self._error is not None and (announced > self._most_read or "expect" in fields):
            self.finish()

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if (
            self._error is not None or self._denied is not None
        ):  # read and dropped, so that the client gets to read the answer
            if self._size > self._most_read:
                self.finish()
            return
        if self._size > self._limit:
            self._too_large()
            return
        if self._size > _LOOKED_AT_ONCE and not self._asked:
            self._ask_limits()
        if self._denied is None:
            self._keep(chunk)

    def _ask_limits(self) -> None:
        """Whoever is over a limit need not upload more."""
        self._asked = True
        stopped = None if self._principal is None else self._gateway.services.users.admission.stopped(self._principal)
        if stopped is not None:
            self._denied = final_error.denied(stopped)
            self._body.close()

    def _keep(self, chunk: bytes) -> None:
        try:
            self._body.append(chunk)
        except SpoolFullError as full:
            metrics.body_refused(full.reason.value).inc()
            self._error = final_error.spool_full(full.reason, time.time())
            self._body.close()

    def _too_large(self) -> None:
        most = f"{self._limit >> 20} MiB" if self._limit >> 20 else f"{self._limit >> 10} KiB"
        whose = "this pool takes (max_body_mb)" if self._route.model_call else "this call takes"
        message = f"The request body is larger than {most}, the most {whose}."
        self._error = self._error or ClientError(ErrorKind.TOO_LARGE, message, 413)
        self._body.close()

    def finish(self) -> None:
        if self._task is None:
            self._task = running_loop().create_task(self._run())

    def on_connection_close(self) -> None:
        if self._task is None:
            self._close()
        elif not self._task.done():
            self._task.cancel()

    def tick(self, now: float) -> None:
        """Keeps the client's connection alive and the upstream honest; `now` is the event loop's time."""
        if self._pipeline is not None:
            self._pipeline.tick(now)

    def stop(self, outcome: Outcome, error: ClientError) -> None:
        """Ends the exchange now with an error in the client's dialect (revoked key, drained server)."""
        if self._stop is None and self._task is not None and not self._task.done():
            self._stop = (outcome, error)
            if self._pipeline is not None:
                self._pipeline.stop(outcome, error)
            self._task.cancel()

    # -- the exchange

    async def _run(self) -> None:
        try:
            await self._serve()
        except (asyncio.CancelledError, ClientDisconnectedError):
            await self._interrupted()
        except Exception:
            log.exception("request %s failed inside the pool", self._reply.request_id)
            error = ClientError(ErrorKind.UNREACHABLE, "The pool failed to serve this request.", 500)
            await self._reply.tell(self._route.dialect, error)
        finally:
            if not self._reply.finished:
                self._reply.abort()
            self._close()

    def _close(self) -> None:
        self._body.close()
        self._gateway.live.discard(self)
        # The task, its frames and the delegate refer to each other: undo that, the collector has enough to do.
        self._task = None
        self._pipeline = None

    async def _serve_unheard(self) -> None:
        self._unheard = False
        admitted = await self._gateway.door_again(self._request, self._route, self._keys)
        if isinstance(admitted, ClientError):
            self._error = self._error or admitted
        else:
            self._principal = admitted
        await self._serve()

    def _serve(self) -> Coroutine[Any, Any, None]:
        if self._unheard:
            return self._serve_unheard()
        if self._error is not None:
            return self._reply.tell(self._route.dialect, self._error)
        if self._route.refused:
            return self._reply.tell(self._route.dialect, final_error.whole_account())
        if not self._route.model_call:
            return self._answer_locally()
        assert self._principal is not None
        return self._exchange(self._principal, self._gateway.turns.take(self._principal.user))

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
                base_url=self._origin(),
                dialect=self._route.dialect,
            )
        )
        await self._reply.whole(answer.status, list(answer.headers), answer.body)

    async def _exchange(self, principal: Principal, turn: asyncio.Future[None] | None) -> None:
        if turn is not None:
            metrics.turns_waited.inc()
            await turn
        request = self._request
        query, headers = _goes_up(request, self._keys)
        client_call = ClientCall(
            operation=self._route.operation,
            dialect=self._route.dialect,
            method=request.method,
            path=self._route.path,
            query=query,
            headers=headers,
        )
        x = Exchange(self._gateway.services, self._route, principal, client_call, self._reply.request_id)
        x.request_bytes = self._size
        if uploads.concerned(self._route.path):
            x.objects.upload = self._upload()
        capture = self._gateway.services.capture(x, request.method, request.headers.pairs, self._body.share)
        if capture is not None:
            self._reply = CapturedReply(self._response, x.id, capture)
        try:
            await self._run_exchange(x, capture)
        finally:
            self._gateway.services.captured(x, capture)

    async def _run_exchange(self, x: Exchange, capture: ExchangeCapture | None) -> None:
        request = self._request
        encoding = request.headers.fields.get("content-encoding", "").strip().lower()
        cap = min(self._limit, DECODED_CAP)
        transport = HttpTransport(x, self._body, encoding, self._gateway.decoder, cap, self._reply)
        transport.made_of_head = request.made_of_head
        refused = self._denied or await self._look(x, transport)
        if capture is not None:
            capture.named(x.agent, x.peek.session or "", x.continuity.session_hash(x.peek.session))
        everybodys = x.principal.admin or x.principal.local or x.forced
        if refused is None and self._route.lists is not None and not everybodys:
            await self._list(x)
            return
        self._pipeline = Pipeline(x, transport)
        await self._pipeline.run(refused)

    def _upload(self) -> uploads.Upload | None:
        """The upload this call begins or goes on with."""
        protocol = self._request.headers.fields.get("x-goog-upload-protocol", "")
        prefix = f"/{self._route.forced.value}" if self._route.forced is not None else ""
        address = f"{self._origin()}{prefix}{self._route.path}"
        return uploads.upload_of(self._route.path, self._request.query, protocol, address)

    def _origin(self) -> str:
        """The pool's address as the client sees it."""
        settings = self._gateway.services.settings
        told = settings.public_url.rstrip("/")
        return told or f"{settings.scheme}://{self._request.headers.get('Host', '127.0.0.1')}"

    async def _list(self, x: Exchange) -> None:
        """Only the caller's own, from every account that keeps some."""
        refused = await x.reserve()
        answer = refused or await self._gateway.lists.answer(x.principal, self._route, x.client_call, x.providers)
        if isinstance(answer, ClientError):
            outcome = Outcome.DENIED if refused else final_error.outcome_of(answer, attempted=False)
            await record(x, outcome, answer.status, answer.message)
            await self._reply.tell(self._route.dialect, answer)
            return
        await record(x, Outcome.OK, 200)
        await self._reply.whole(200, [("Content-Type", "application/json")], answer)

    async def _look(self, x: Exchange, transport: HttpTransport) -> ClientError | None:
        """Peeks into the request; the error when it cannot be read, or not now."""
        try:
            body = transport.plain_at_once()
            if body is None or len(body) > _LOOKED_AT_ONCE:
                stopped = self._gateway.services.users.admission.stopped(x.principal)
                if stopped is not None:
                    return final_error.denied(stopped)
            data = await transport.plain() if body is None else body
            fields, who = self._request.headers.fields, x.principal.key or x.principal.user
            if len(data) > _LOOKED_AT_ONCE:  # beside the loop, which would stand still
                await asyncio.to_thread(x.look, fields, data, who)
            else:
                x.look(fields, data, who)
        except dialects.BodyTooLargeError as error:
            return ClientError(ErrorKind.TOO_LARGE, str(error), 413)
        except (dialects.BadEncodingError, dialects.BadBodyError) as error:
            return ClientError(ErrorKind.BAD_REQUEST, str(error), 400)
        if not x.providers:
            return ClientError(ErrorKind.NOT_FOUND, "No provider of this pool answers this call.", 404)
        if self._gateway.held.holds(x.principal.user, x.peek.previous_response_id):
            x.peek.hard = tuple(pin for pin in x.peek.hard if pin[0] != "response")  # any account can go on
            x.resumed = True
        return None

    # -- endings

    async def _interrupted(self) -> None:
        """The task was cancelled before there was an exchange, or while the pool answered itself."""
        if self._stop is not None:
            await self._reply.tell(self._route.dialect, self._stop[1])


def _goes_up(request: Request, keys: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """What goes up of a request's query and headers; `keys` are the credentials it presents."""
    made = request.made_of_head
    if "up" not in made:
        query = uploads.without_ticket(query_without_key(request.query, keys))
        made["up"] = query, upward(request.headers.pairs, keys)
    found: tuple[str, list[tuple[str, str]]] = made["up"]
    return found
