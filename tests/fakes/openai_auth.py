"""A fake of the vendor's sign-in service: device codes, the exchange of a code, the end of a sign-in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import time
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from aiohttp import web

from pool_server.core.settings import SignInUrls
from tests.fakes import FakeAccount
from tests.loop_thread import LoopbackApp, LoopThread

CALLBACK = "http://localhost:1455/auth/callback"


class FakeSignInService:
    """`people` are (account, user id) of those who sign in; `calls` holds (path, fields) in the order of arrival.

    `device` are the answers (status, body) of the device endpoint, in turn, then "allowed". `exchange` are answers of
    the token endpoint in turn, before the good one.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.at: list[tuple[str, float]] = []
        self.usercode: tuple[int, Any] | None = None
        self.interval: Any = "1"
        self.device: list[tuple[int, Any]] = []
        self.exchange: list[tuple[int, Any]] = []
        self.gate: threading.Event | None = None
        self.revoked: list[str] = []
        self._codes: dict[str, tuple[FakeAccount, str, str]] = {}
        self._challenges: dict[str, str] = {}
        self.person: FakeAccount | None = None
        self._app = LoopbackApp(self._answer)
        self._thread = LoopThread("fake-sign-in")

    def __enter__(self) -> FakeSignInService:
        self._thread.start()
        self.origin = self._thread.call(self._app.start())
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.call(self._app.close())
        self._thread.stop()

    def urls(self) -> SignInUrls:
        return SignInUrls(f"{self.origin}/oauth/authorize", f"{self.origin}/api/accounts/deviceauth", CALLBACK)

    def consent(self, url: str, person: FakeAccount) -> str:
        """Somebody allows it on the page at `url`: the address their browser ends at."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["response_type"] == "code" and asked["redirect_uri"] == CALLBACK and len(asked["state"]) >= 32
        code = self._grant(person, asked["redirect_uri"])
        self._challenges[code] = asked["code_challenge"]
        return f"{CALLBACK}?code={code}&scope=openid+profile&state={asked['state']}"

    def _grant(self, person: FakeAccount, redirect: str) -> str:
        code = f"ac_{len(self._codes)}_{person.stem}-0123456789"
        self._codes[code] = (person, redirect, "")
        return code

    async def _answer(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            return web.json_response({}, status=405)
        raw = await request.text()
        fields = json.loads(raw) if raw.startswith("{") else {k: v[0] for k, v in parse_qs(raw).items()}
        self.calls.append((request.path, fields))
        self.at.append((request.path, time.monotonic()))
        match request.path:
            case "/api/accounts/deviceauth/usercode":
                status, body = self.usercode or (200, {"device_auth_id": "dev-1", "user_code": "ABCD-1234"})
                return web.json_response({**body, "interval": self.interval} if status == 200 else body, status=status)
            case "/api/accounts/deviceauth/token":
                return self._device()
            case "/oauth/token":
                return await self._token(fields)
            case "/oauth/revoke":
                self.revoked.append(fields["token"])
                return web.json_response({})
        return web.json_response({}, status=404)

    def _device(self) -> web.Response:
        if self.device:
            status, body = self.device.pop(0)
            return web.json_response(body, status=status)
        if self.person is None:
            return web.json_response({"error": {"code": "deviceauth_authorization_pending"}}, status=403)
        verifier = "device-verifier-0123456789-0123456789-0123456789"
        code = self._grant(self.person, f"{self.origin}/deviceauth/callback")
        self._challenges[code] = _challenge(verifier)
        return web.json_response(
            {"authorization_code": code, "code_challenge": _challenge(verifier), "code_verifier": verifier}
        )

    async def _token(self, fields: dict[str, Any]) -> web.Response:
        if self.gate is not None:
            await asyncio.to_thread(self.gate.wait, 20)
        if self.exchange:
            status, body = self.exchange.pop(0)
            if isinstance(body, str):
                return web.Response(status=status, text=body, content_type="text/html")
            return web.json_response(body, status=status)
        person, redirect, _ = self._codes.pop(fields.get("code", ""), (None, "", ""))
        good = person is not None and fields.get("redirect_uri") == redirect
        if not good or _challenge(fields.get("code_verifier", "")) != self._challenges.get(fields["code"]):
            return web.json_response({"error": "invalid_grant"}, status=400)
        assert person is not None
        tokens = person.file()["tokens"]
        return web.json_response({name: tokens[name] for name in ("id_token", "access_token", "refresh_token")})


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
