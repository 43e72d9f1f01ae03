"""Fake providers that follow a script for each account, and remember every request."""

from __future__ import annotations

import asyncio
import collections
import json
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from pool_server.core.models import Usage
from pool_server.demo import wire
from pool_server.demo.fake_account import FakeAccount
from pool_server.demo.fake_upstream import Call, FakeUpstream
from pool_server.demo.surfaces import GENERATION, Surface, good
from tests.fakes.objects import Keeper
from tests.fakes.plays import Play
from tests.fakes.tools import offered, returns_result, tool_answer, tool_events, tool_frames
from tests.loop_thread import LoopThread

# What a script speaks of unless it says otherwise: every call that generates, over HTTP or a socket's turn.
_GENERATING = GENERATION | {Surface.SOCKET}


# Asked before the scripts at every generating call or socket turn; None = as the script says.
Director = Callable[[FakeAccount, Call], Play | None]


class Script:
    """What one account does next. `then` queues plays, `always` sets what follows when the queue is empty."""

    def __init__(self) -> None:
        self._queues: dict[str, collections.deque[Play]] = {}
        self._always: dict[str, Play] = {}

    def then(self, *plays: Play, on: str = "generate") -> None:
        self._queues.setdefault(on, collections.deque()).extend(plays)

    def always(self, play: Play | None, on: str = "generate") -> None:
        if play is None:
            self._always.pop(on, None)
        else:
            self._always[on] = play

    def next(self, on: str) -> Play | None:
        queue = self._queues.get(on)
        if queue:
            return queue.popleft()
        return self._always.get(on)


class FakeProviders(FakeUpstream):
    """`FakeUpstream` that plays scripts. `calls` holds every request in the order of arrival.

    In a test's own loop: `async with FakeProviders(accounts) as fakes`. In a thread of its own (for servers and
    clients in other processes): `with FakeProviders(accounts) as fakes`.
    """

    def __init__(self, accounts: Iterable[FakeAccount] = (), *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(accounts, clock=clock)
        self.calls: list[Call] = []
        self.scripts: dict[str, Script] = collections.defaultdict(Script)
        self.default_usage = Usage(input=200, cache_read=1000, output=40, known=True)
        self.director: Director | None = None
        self.keeper: Keeper | None = None
        self._plays: dict[int, Play] = {}
        self._ended = asyncio.Event()

    # ------------------------------------------------------------ scripting and looking

    def add(self, account: FakeAccount) -> FakeAccount:
        self.accounts[account.id] = account
        return account

    def then(self, account: str, *plays: Play, on: str = "generate") -> None:
        """The next calls of `account` ("" = of a token endpoint call with an unknown token) get these plays.

        `on` is "generate" for anything that generates, or the value of a `Surface`: "usage", "token", "models",
        "count", "compact", "code_assist"; "handshake" is a WebSocket's.
        """
        self.scripts[account].then(*plays, on=on)

    def always(self, account: str, play: Play | None, on: str = "generate") -> None:
        self.scripts[account].always(play, on=on)

    def made(self, account: str | None = None, surface: Surface | None = None) -> list[Call]:
        """The recorded calls of an account (None = all) to a surface (None = any generating one or socket)."""
        wanted = _GENERATING if surface is None else {surface}
        return [c for c in self.calls if c.surface in wanted and (account is None or c.account == account)]

    async def settled(self, within_s: float = 60.0) -> None:
        """Waits until no call is being answered any more: each is `done` or `gone`."""
        async with asyncio.timeout(within_s):
            while any(not (call.done or call.gone) for call in self.calls):
                self._ended.clear()
                await self._ended.wait()

    async def close_sockets(self, code: int) -> None:
        """Hangs up every open WebSocket."""
        for socket in list(self.sockets):
            await socket.close(code=code)

    # ------------------------------------------------------------ playing

    async def arrive(self, call: Call, request: web.Request) -> None:
        self.calls.append(call)
        if call.surface is Surface.TOKEN:
            return
        account = self._account(call)
        if account is None:
            return
        call.account = account.id
        play = self._next(account, call, _topic(call.surface))
        if play is None:
            return
        self._plays[id(call)] = play
        if play.also is not None:
            play.also(account, call)
        if play.close_at_arrival:
            _abort(request)

    def _next(self, account: FakeAccount, call: Call, topic: str) -> Play | None:
        if topic == "generate" and self.director is not None:
            directed = self.director(account, call)
            if directed is not None:
                return directed
        return self.scripts[account.id].next(topic)

    def ended(self, call: Call) -> None:
        self._plays.pop(id(call), None)
        self._ended.set()

    async def act(self, call: Call, request: web.Request) -> web.StreamResponse | None:
        if call.surface is Surface.TOKEN:
            return await self._act_token(call)
        play = self._plays.get(id(call))
        if play is None:
            return self.keeper.answer(call) if self.keeper is not None else None
        if play.gate is not None and play.gate_at < 0:
            await play.gate.stop_here()
        if play.body is not None:
            return _answer(play)
        return None

    async def _act_token(self, call: Call) -> web.Response | None:
        token = call.body.decode("latin-1")
        told = {token, urllib.parse.unquote_plus(token)}  # JSON or a form
        owner = next((a for a in self.accounts.values() if any(a.refresh in text for text in told)), None)
        if owner is not None:
            call.account = owner.id
        play = self.scripts[owner.id if owner is not None else ""].next("token")
        if play is None:
            return None
        if play.also is not None:
            play.also(owner, call)
        if play.gate is not None:
            await play.gate.stop_here()
        return _answer(play) if play.body is not None else None

    async def generate(self, call: Call, request: web.Request, account: FakeAccount) -> web.StreamResponse:
        play = self._plays.get(id(call), Play())
        answer = good(
            call.surface,
            call.path,
            call.query,
            call.json,
            ident=self.ident(),
            pieces=list(play.pieces or self.pieces(call)),
            usage=play.usage or self.default_usage,
        )
        headers = {**account.quota_headers(), "x-request-id": "req_fake", **dict(play.headers)}
        wanted, wrapped = _wanted(play, call.surface, call.json), "/v1internal:" in call.path
        usage = play.usage or self.default_usage
        if wanted is not None:
            _asked(play, account, call)
        if answer.events is None:
            body = answer.body
            if wanted is not None:
                body = tool_answer(call.surface, call.json, self.ident(), *wanted, usage, wrapped=wrapped)
            return web.json_response(body, headers=headers)
        events = list(play.events) if play.events is not None else answer.events
        if wanted is not None:
            events = tool_events(call.surface, call.json, self.ident(), *wanted, usage, wrapped=wrapped)
        return await self.stream(call, request, events, headers, answer.content_type)

    async def write_events(
        self, call: Call, request: web.Request, response: web.StreamResponse, events: list[bytes]
    ) -> None:
        async def write(data: bytes) -> None:
            await _write(response, data, play.slice)

        play = self._plays.get(id(call), Play())
        await _perform(play, request, events, write)

    # ------------------------------------------------------------ WebSocket

    async def turn(
        self, call: Call, request: web.Request, socket: web.WebSocketResponse, frame: dict[str, Any]
    ) -> None:
        account = self.accounts[call.account or ""]
        prewarm = frame.get("generate") is False
        play = None if prewarm else self._next(account, call, "generate")
        if play is None:
            await super().turn(call, request, socket, frame)
            return
        if play.also is not None:
            play.also(account, call)
        if play.gate is not None and play.gate_at < 0:
            await play.gate.stop_here()
        if play.body is not None:
            await socket.send_json(_error_frame(play))
            return
        pieces = list(play.pieces or self.pieces(call))
        usage = play.usage or self.default_usage
        ident, model = f"resp_{self.ident()}", str(frame.get("model", ""))
        frames = wire.responses_frames(ident, model, pieces, usage)
        if (wanted := _wanted(play, Surface.RESPONSES, frame)) is not None:
            frames = tool_frames(ident, model, *wanted, usage)
            _asked(play, account, call)
        texts = [json.dumps(item).encode() for item in frames]

        async def send(data: bytes) -> None:
            await socket.send_str(data.decode().rpartition("data: ")[2].strip())

        whole = play.but(cut_inside=False)  # a frame comes whole or not at all
        if not await _perform(whole, request, texts, send) and not play.insert:
            await socket.close()

    # ------------------------------------------------------------ running

    async def __aenter__(self) -> FakeProviders:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __enter__(self) -> FakeProviders:
        self._thread = LoopThread("fake-providers")
        self._thread.start()
        self._thread.call(self.start())
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.call(self.close())
        self._thread.stop()


def _wanted(play: Play, surface: Surface, body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The tool (name, arguments) the play asks for in answer to this request, if it does."""
    if play.tools is None or returns_result(surface, body):
        return None
    names = offered(surface, body)
    return next(((name, dict(arguments)) for name, arguments in play.tools.items() if name in names), None)


def _asked(play: Play, account: FakeAccount, call: Call) -> None:
    if play.asked is not None:
        play.asked(account, call)


def _topic(surface: Surface) -> str:
    if surface in GENERATION:
        return "generate"
    return "handshake" if surface is Surface.SOCKET else surface.value


async def _perform(
    play: Play, request: web.Request, events: list[bytes], write: Callable[[bytes], Awaitable[None]]
) -> bool:
    """Sends the events as the play says; False when it ended them early."""
    for number, event in enumerate(events):
        if play.insert and number == play.insert_at:
            await write(play.insert)
        if play.gate is not None and number == play.gate_at:
            await play.gate.stop_here()
        if number == play.cut_at:
            if play.cut_inside:
                await write(event[: len(event) // 2])
            _abort(request)
        if number == play.end_at:
            return False
        await write(event)
    return True


def _error_frame(play: Play) -> dict[str, Any]:
    """The Responses WebSocket's way to say what a status and a body say over HTTP."""
    error = play.body.get("error", play.body) if isinstance(play.body, dict) else {"message": str(play.body)}
    return {"type": "error", "status": play.status, "error": error, "headers": dict(play.headers)}


def _answer(play: Play) -> web.Response:
    body = play.body
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    headers = {"Content-Type": play.content_type, **dict(play.headers)}
    return web.Response(status=play.status, body=body, headers=headers)


async def _write(response: web.StreamResponse, data: bytes, size: int) -> None:
    if not size:
        await response.write(data)
        return
    for start in range(0, len(data), size):
        await response.write(data[start : start + size])
        await asyncio.sleep(0)


def _abort(request: web.Request) -> None:
    """Breaks the connection: a reset, not a clean end."""
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("scripted")
