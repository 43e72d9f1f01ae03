"""A provider of live conversations on loopback: OpenAI's realtime sockets and calls, Gemini Live."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
from aiohttp import web

from pool_server.core.settings import Upstreams

Json = dict[str, Any]
SPOKEN: Json = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 13,
        "cached_tokens": 64,
        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}
HEARD: Json = {"type": "tokens", "total_tokens": 48, "input_tokens": 26, "output_tokens": 22}
GOOGLE: Json = {
    "promptTokenCount": 40,
    "responseTokenCount": 25,
    "totalTokenCount": 65,
    "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 30}, {"modality": "TEXT", "tokenCount": 10}],
    "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 25}],
}


class LiveProvider:
    """`opened` are the handshakes that came: path, query, headers. `heard` are all messages. `refuses` maps a key to
    (status) of its handshake, `greets` a key to what it is told in place of a welcome, `closes` to a close."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.heard: list[Json] = []
        self.asked: list[tuple[str, str, str, bytes]] = []  # method, path, key, body
        self.sockets: list[web.WebSocketResponse] = []
        self.beside: dict[str, list[web.WebSocketResponse]] = {}  # by call
        self.hung_up: list[str] = []
        self.refuses: dict[str, int] = {}
        self.greets: dict[str, Json] = {}
        self.closes: dict[str, tuple[int, str]] = {}
        self.no_sideband = False
        self.usage: Json = SPOKEN
        self._calls = 0
        self._runner: web.AppRunner

    async def __aenter__(self) -> LiveProvider:
        app = web.Application()
        app.router.add_get("/v1/realtime", self._realtime)
        app.router.add_post("/v1/realtime/calls", self._call)
        app.router.add_post("/v1/realtime/calls/{call}/{what}", self._about_call)
        app.router.add_get(
            "/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent", self._google
        )
        app.router.add_route("*", "/{rest:.*}", self._other)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *error: object) -> None:
        for socket in self.sockets:
            await socket.close()
        await self._runner.cleanup()

    @property
    def upstreams(self) -> Upstreams:
        url = f"http://127.0.0.1:{self.port}"
        return Upstreams(openai=url, gemini=url, codex=url, chatgpt=url, claude=url, code_assist=url, qwen=url)

    def _key(self, request: web.Request) -> str:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") or request.headers.get(
            "x-goog-api-key", ""
        )

    async def _accepted(self, request: web.Request) -> web.WebSocketResponse:
        self.opened.append((request.path, dict(request.query), dict(request.headers)))
        if status := self.refuses.get(self._key(request)):
            raise web.HTTPException(text="{}") if status == 200 else _refusal(status)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        self.sockets.append(socket)
        return socket

    async def _realtime(self, request: web.Request) -> web.WebSocketResponse:
        call = request.query.get("call_id", "")
        if call and (self.no_sideband or call in self.hung_up):
            raise _refusal(404)
        socket = await self._accepted(request)
        if call:
            self.beside.setdefault(call, []).append(socket)
        model = request.query.get("model", "")
        session = {"type": "realtime", "model": model, "audio": {"input": {"transcription": None}}}
        greeting = self.greets.get(self._key(request))
        await socket.send_json(greeting or {"type": "session.created", "event_id": "e1", "session": session})
        number = 0
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            event = json.loads(message.data)
            self.heard.append(event)
            if event["type"] == "response.create":
                number += 1
                await self.respond(socket, f"resp_{number}")
            elif event["type"] == "session.update":
                await socket.send_json({"type": "session.updated", "session": session | event["session"]})
            elif event["type"] == "close":
                await socket.close(code=event["code"], message=event["reason"].encode())
        return socket

    async def respond(self, socket: web.WebSocketResponse, response: str, *, ends: bool = True) -> None:
        await socket.send_json({"type": "response.created", "response": {"id": response, "status": "in_progress"}})
        await socket.send_json({"type": "response.output_audio.delta", "response_id": response, "delta": "UklGRg=="})
        if ends:
            done = {"id": response, "status": "completed", "usage": self.usage}
            await socket.send_json({"type": "response.done", "response": done})

    async def hear(self, socket: web.WebSocketResponse) -> None:
        """Tells what was said, as the transcribing model understood it."""
        kind = "conversation.item.input_audio_transcription.completed"
        await socket.send_json({"type": kind, "item_id": "item_1", "transcript": "hello", "usage": HEARD})

    async def _call(self, request: web.Request) -> web.Response:
        self._calls += 1
        call = f"rtc_{self._calls}"
        self.asked.append(("POST", request.path_qs, self._key(request), await request.read()))
        headers = {"Location": f"http://{request.host}/v1/realtime/calls/{call}?x=1"}
        return web.Response(status=201, text="v=0\r\nanswer", content_type="application/sdp", headers=headers)

    async def _about_call(self, request: web.Request) -> web.Response:
        self.asked.append(("POST", request.path_qs, self._key(request), await request.read()))
        call, what = request.match_info["call"], request.match_info["what"]
        if what == "hangup":
            self.hung_up.append(call)
            for socket in self.beside.pop(call, []):
                await socket.close()
        return web.Response()

    async def _google(self, request: web.Request) -> web.WebSocketResponse:
        socket = await self._accepted(request)
        async for message in socket:
            event = json.loads(message.data)
            self.heard.append(event)
            if "setup" in event:
                if (close := self.closes.get(self._key(request))) is not None:
                    await socket.close(code=close[0], message=close[1].encode())
                    break
                await self.tell(socket, {"setupComplete": {}})
                await self.tell(socket, {"sessionResumptionUpdate": {"newHandle": f"handle-{len(self.opened)}"}})
            elif not {"clientContent", "client_content"}.isdisjoint(event):  # clients write both
                await self.tell(socket, {"serverContent": {"modelTurn": {"parts": [{"text": "hi"}]}}})
                await self.tell(socket, {"serverContent": {"turnComplete": True}, "usageMetadata": GOOGLE})
        return socket

    @staticmethod
    async def tell(socket: web.WebSocketResponse, message: Json) -> None:
        """Google writes its JSON into binary messages."""
        await socket.send_bytes(json.dumps(message).encode())

    async def _other(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path_qs, self._key(request), await request.read()))
        return web.json_response({"data": []})


def _refusal(status: int) -> web.HTTPException:
    kinds: dict[int, type[web.HTTPException]] = {
        401: web.HTTPUnauthorized,
        404: web.HTTPNotFound,
        429: web.HTTPTooManyRequests,
        503: web.HTTPServiceUnavailable,
    }
    return kinds[status](text="{}")
