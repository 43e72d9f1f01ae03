"""Fake providers: one real HTTP server on loopback that plays every vendor the pool talks to.

Each vendor has its own path prefix, so that `upstreams()` and `token_urls()` can be put into the settings as they
are. An account is known by the token it presents; an unknown token gets the vendor's own 401. Nothing here knows
faults other than that one: a subclass can answer a call itself (`act`) or send events in its own way
(`write_events`).
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import aiohttp
import zstandard
from aiohttp import web

from pool_server.core.enums import Provider
from pool_server.core.models import Usage
from pool_server.core.settings import TokenUrls, Upstreams
from pool_server.demo import wire
from pool_server.demo.fake_account import FakeAccount
from pool_server.demo.surfaces import GENERATION, Surface, good, surface_of

Json = dict[str, Any]
_BODY_CAP = 256 << 20

# The first path segment of each vendor's fake address.
_PREFIXES = {
    "chatgpt": Provider.CODEX,
    "openai": Provider.OPENAI,
    "claude": Provider.CLAUDE,
    "codeassist": Provider.GEMINI,
    "gemini": Provider.GEMINI,
    "qwen": Provider.QWEN,
}


class Call:
    """One request a fake provider received. `headers` are in the order and case they came in; `body` is raw."""

    def __init__(self, request: web.Request) -> None:
        self.method = request.method
        self.raw_path = request.raw_path
        self.path = request.path
        self.query = request.query_string
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        self.body = b""
        self.surface = surface_of(self.method, self.path)
        prefix = self.path.split("/", 2)[1]
        self.vendor = prefix if self.surface is not Surface.TOKEN else self.path.rsplit("/", 1)[1]
        self.provider = _PREFIXES.get(prefix)
        self.account: str | None = None
        self.frames: list[Json] = []  # of a WebSocket: what the client sent
        self.status = 0  # of the answer, once there is one
        self.done = False  # the answer was written to its end
        self.gone = False  # the caller left before that
        self.at = time.monotonic()

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.path} {self.account} {self.status}>"

    def header(self, name: str) -> str | None:
        """The first header of that name, any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def credential(self) -> str:
        bearer = self.header("authorization") or ""
        if bearer.startswith("Bearer "):
            return bearer[7:]
        key = self.header("x-api-key") or self.header("x-goog-api-key")
        return key or dict(parse_qsl(self.query)).get("key", "")

    @property
    def json(self) -> Json:
        """The body as JSON (zstd and gzip decoded); {} when it is not a JSON object."""
        body, encoding = self.body, self.header("content-encoding")
        try:
            if encoding == "zstd":
                body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
            elif encoding == "gzip":
                body = gzip.decompress(body)
            data = json.loads(body)
        except (ValueError, OSError, zstandard.ZstdError):
            return {}
        return data if isinstance(data, dict) else {}


class FakeUpstream:
    """All fake providers on one loopback port. `text` makes the pieces of an answer, `usage` its counts."""

    def __init__(self, accounts: Iterable[FakeAccount] = (), *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.accounts = {account.id: account for account in accounts}
        self.origin = ""
        self.sockets: set[web.WebSocketResponse] = set()
        self._numbers = itertools.count(1)
        self._runner: web.AppRunner | None = None

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Listens on a free port of 127.0.0.1; `origin` is then set."""
        app = web.Application(client_max_size=_BODY_CAP)
        app.router.add_route("*", "/{rest:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.origin = f"http://127.0.0.1:{port}"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def upstreams(self) -> Upstreams:
        """The `[upstreams]` settings that lead here."""
        return Upstreams(
            codex=f"{self.origin}/chatgpt/backend-api/codex",
            chatgpt=f"{self.origin}/chatgpt/backend-api",
            openai=f"{self.origin}/openai",
            claude=f"{self.origin}/claude",
            code_assist=f"{self.origin}/codeassist",
            gemini=f"{self.origin}/gemini",
            qwen=f"{self.origin}/qwen/compatible-mode",
        )

    def token_urls(self) -> TokenUrls:
        return TokenUrls(
            **{vendor: f"{self.origin}/token/{vendor}" for vendor in ("codex", "claude", "gemini", "qwen")}
        )

    # ------------------------------------------------------------ what a subclass may change

    async def arrive(self, call: Call, request: web.Request) -> None:
        """Called with the headers, before the body is read."""

    def ended(self, call: Call) -> None:
        """Called when a call is `done` or `gone`."""

    async def act(self, call: Call, request: web.Request) -> web.StreamResponse | None:
        """An answer of one's own, or None for the good one."""
        return None

    async def write_events(
        self, call: Call, request: web.Request, response: web.StreamResponse, events: list[bytes]
    ) -> None:
        for event in events:
            await response.write(event)

    def pieces(self, call: Call) -> list[str]:
        return ["Hello", " from", f" {call.account}", "."]

    def usage(self, call: Call, text: list[str]) -> Usage:
        return Usage(input=200, cache_read=1000, output=len(text), known=True)

    def models(self) -> Mapping[Provider, Sequence[str]]:
        """What the model lists of the fake providers name."""
        return {
            Provider.CODEX: ("gpt-5.1-codex",),
            Provider.CLAUDE: ("claude-sonnet-4-5",),
            Provider.GEMINI: ("gemini-2.5-pro",),
            Provider.QWEN: ("qwen3-coder-plus",),
            Provider.OPENAI: ("gpt-5.1",),
        }

    # ------------------------------------------------------------ one request

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(request)
        try:
            await self.arrive(call, request)
            call.body = await request.read()
            response = await self._answer(call, request)
            call.status, call.done = response.status, True
        except asyncio.CancelledError:
            call.gone = True
            raise
        except ConnectionError:  # nobody is there to read an answer
            call.gone = True
            return web.Response(status=499)
        finally:
            self.ended(call)
        return response

    async def _answer(self, call: Call, request: web.Request) -> web.StreamResponse:
        if call.surface is Surface.TOKEN:
            own = await self.act(call, request)
            return own if own is not None else self._token(call)
        account = self._account(call)
        if account is None:
            return web.json_response(unauthorized(call.vendor), status=401)
        call.account = account.id
        own = await self.act(call, request)
        if own is not None:
            return own
        if call.surface is Surface.SOCKET:
            return await self._socket(call, request, account)
        if call.surface in GENERATION:
            return await self.generate(call, request, account)
        return self._plain(call, account)

    def _account(self, call: Call) -> FakeAccount | None:
        token = call.credential
        return next((a for a in self.accounts.values() if token and a.access == token), None)

    def ident(self) -> str:
        return f"{next(self._numbers):08d}"

    async def generate(self, call: Call, request: web.Request, account: FakeAccount) -> web.StreamResponse:
        """The good answer of a generating call, with the account's quota headers."""
        pieces = self.pieces(call)
        answer = good(
            call.surface,
            call.path,
            call.query,
            call.json,
            ident=self.ident(),
            pieces=pieces,
            usage=self.usage(call, pieces),
        )
        headers = {**account.quota_headers(), "x-request-id": f"req_{self.ident()}"}
        if answer.events is None:
            return web.json_response(answer.body, headers=headers)
        return await self.stream(call, request, answer.events, headers, answer.content_type)

    async def stream(
        self,
        call: Call,
        request: web.Request,
        events: list[bytes],
        headers: dict[str, str],
        content_type: str = "text/event-stream",
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-cache", **headers})
        call.status = 200
        await response.prepare(request)
        await self.write_events(call, request, response, events)
        await response.write_eof()
        return response

    # ------------------------------------------------------------ the calls around a generation

    def _plain(self, call: Call, account: FakeAccount) -> web.Response:
        if call.surface is Surface.MODELS:
            return web.json_response(self._model_list(call), headers={"ETag": '"fake-catalogue-1"'})
        if call.surface is Surface.USAGE:
            return web.json_response(account.usage(now=self.clock()))
        if call.surface is Surface.COUNT:
            counted = {"input_tokens": 42} if account.provider is Provider.CLAUDE else {"totalTokens": 42}
            return web.json_response(counted)
        if call.surface is Surface.COMPACT:
            item = {"type": "compaction", "encrypted_content": f"sealed-for-{account.id}"}
            usage = wire.responses_usage(self.usage(call, [""]))
            return web.json_response(
                {"id": f"resp_{self.ident()}", "output": [item], "usage": usage}, headers=account.quota_headers()
            )
        if call.surface is Surface.PROFILE:
            return web.json_response({"account": {"uuid": account.account_id, "email": account.email}})
        if call.surface is Surface.CODE_ASSIST:
            return web.json_response(_code_assist(call.path.rsplit(":", 1)[1], account))
        return web.json_response({"error": {"message": f"no such call: {call.method} {call.path}"}}, status=404)

    def _model_list(self, call: Call) -> Json:
        names = self.models().get(call.provider, ()) if call.provider is not None else ()
        if "client_version=" in call.query:
            return {"models": [codex_model(name, rank) for rank, name in enumerate(names)]}
        if call.provider is Provider.GEMINI:
            return {"models": [{"name": f"models/{name}"} for name in names]}
        if call.provider is Provider.CLAUDE:
            return {"data": [{"type": "model", "id": name} for name in names], "has_more": False}
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}

    def _token(self, call: Call) -> web.Response:
        form = call.json or {key: values[0] for key, values in parse_qs(call.body.decode("latin-1")).items()}
        token = str(form.get("refresh_token", ""))
        for account in self.accounts.values():
            if account.provider == call.vendor and token == account.refresh:
                call.account = account.id
                return web.json_response(account.renew(token, now=self.clock()))
            if token in account.spent:
                call.account = account.id
        status, body = refused_refresh(call.vendor)
        return web.json_response(body, status=status)

    # ------------------------------------------------------------ Responses WebSocket

    async def _socket(self, call: Call, request: web.Request, account: FakeAccount) -> web.StreamResponse:
        if (request.headers.get("Upgrade") or "").lower() != "websocket":
            return web.json_response({"error": {"message": "POST here"}}, status=405)
        socket = web.WebSocketResponse(max_msg_size=_BODY_CAP)
        socket.headers.update(account.quota_headers())
        socket.headers["x-codex-turn-state"] = f"state-{self.ident()}"
        await socket.prepare(request)
        self.sockets.add(socket)
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    frame: Json = json.loads(message.data)
                    call.frames.append(frame)
                    await self.turn(call, request, socket, frame)
        finally:
            self.sockets.discard(socket)
        return socket

    async def turn(self, call: Call, request: web.Request, socket: web.WebSocketResponse, frame: Json) -> None:
        """Answers one `response.create`; a prewarm (`generate: false`) gets an empty answer."""
        ident, model = f"resp_{self.ident()}", str(frame.get("model", ""))
        pieces = self.pieces(call)
        frames = wire.responses_frames(ident, model, pieces, self.usage(call, pieces))
        if frame.get("generate") is False:
            empty = wire.response_object(ident, model, "completed", [], Usage(known=True))
            frames = [frames[0], {"type": "response.completed", "sequence_number": 1, "response": empty}]
        for item in frames:
            await socket.send_str(json.dumps(item))


def unauthorized(vendor: str) -> Json:
    """The 401 body of a vendor for a token that is not, or no longer, good."""
    if vendor == "claude":
        error = {"type": "authentication_error", "message": "OAuth access token has been revoked"}
        return {"type": "error", "error": error}
    if vendor in ("codeassist", "gemini"):
        message = "Request had invalid authentication credentials."
        return {"error": {"code": 401, "message": message, "status": "UNAUTHENTICATED"}}
    if vendor == "chatgpt":
        message = "Your authentication token has been invalidated. Please try signing in again."
        error = {"code": "token_invalidated", "type": "invalid_request_error", "message": message}
        return {"error": error, "status": 401}
    message = "invalid access token or token expired" if vendor == "qwen" else "Incorrect API key provided."
    return {"error": {"message": message, "type": "invalid_request_error", "code": "invalid_api_key"}}


def refused_refresh(vendor: str) -> tuple[int, Json]:
    """Status and body of a token endpoint for a refresh token that was used before or is not known."""
    if vendor == "codex":
        message = "Your refresh token has already been used to generate a new access token."
        return 401, {"error": {"code": "refresh_token_reused", "type": "invalid_request_error", "message": message}}
    return 400, {"error": "invalid_grant", "error_description": "Refresh token not found or invalid"}


def codex_model(slug: str, priority: int) -> Json:
    """One entry of the Codex catalogue: the fields the CLI needs to run a model."""
    efforts = [{"effort": name, "description": name} for name in ("low", "medium", "high")]
    return {
        "slug": slug,
        "display_name": slug,
        "description": "A made-up model",
        "default_reasoning_level": "medium",
        "supported_reasoning_levels": efforts,
        "shell_type": "unified_exec",
        "visibility": "list",
        "supported_in_api": True,
        "priority": priority,
        "upgrade": None,
        "base_instructions": "You are Codex, talking to a made-up model.",
        "supports_reasoning_summaries": True,
        "support_verbosity": True,
        "default_verbosity": "low",
        "apply_patch_tool_type": "freeform",
        "truncation_policy": {"mode": "tokens", "limit": 10000},
        "supports_parallel_tool_calls": True,
        "context_window": 272000,
        "experimental_supported_tools": [],
        "minimal_client_version": "0.1.0",
        "prefer_websockets": False,
    }


def _code_assist(verb: str, account: FakeAccount) -> Json:
    if verb == "loadCodeAssist":
        tier = {"id": "standard-tier", "name": "Gemini Code Assist", "isDefault": True}
        return {"currentTier": tier, "allowedTiers": [tier], "cloudaicompanionProject": account.project}
    if verb == "onboardUser":
        return {
            "name": "operations/1",
            "done": True,
            "response": {"cloudaicompanionProject": {"id": account.project}},
        }
    return {}
