"""The hosts of vendors, by their own names and over TLS, for programs that know no others: within a jail."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from tests.certificates import Authority
from tests.fakes import FakeAccount
from tests.loop_thread import LoopThread

CLAUDE = ("claude.com", "claude.ai", "platform.claude.com", "api.anthropic.com")
GOOGLE = ("accounts.google.com", "oauth2.googleapis.com", "www.googleapis.com", "cloudcode-pa.googleapis.com")
QWEN = ("chat.qwen.ai", "portal.qwen.ai")
HOSTS = (*CLAUDE, *GOOGLE, *QWEN)


class VendorPages:
    """`person` has allowed the sign-in that shows one of `codes`; each is good once. `calls` are (host, path)."""

    def __init__(self, folder: Path, person: FakeAccount) -> None:
        self.person = person
        self.codes: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        authority = Authority(folder)
        self.authority = authority.file
        self._files = (folder / "vendors.pem", folder / "vendors.key")
        authority.issue(*self._files, hosts=HOSTS)
        self._thread = LoopThread("vendors")

    def code(self) -> str:
        """What the vendor's page shows to somebody who allowed it."""
        made = f"4/0A{secrets.token_urlsafe(24)}"
        self.codes.add(made)
        return made

    def start(self, listening: socket.socket) -> None:
        self._thread.start()
        self._thread.call(self._start(listening))

    async def _start(self, listening: socket.socket) -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*self._files)
        await web.SockSite(self._runner, listening, ssl_context=tls).start()

    def stop(self) -> None:
        self._thread.call(self._runner.cleanup())
        self._thread.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        self.calls.append((request.host, request.path))
        match request.path:
            case "/v1/oauth/token":
                return self._claude(msgspec.json.decode(await request.read()))
            case "/api/oauth/profile":
                return web.json_response(self._profile(request))
            case "/token":
                return self._google({name: one[-1] for name, one in parse_qs(await request.text()).items()})
            case "/oauth2/v2/userinfo":
                return web.json_response({"email": self.person.email, "id": self.person.user_id})
            case "/v1internal:loadCodeAssist":
                tier = {"id": "standard-tier", "isDefault": True}
                project = {"currentTier": tier, "allowedTiers": [tier], "cloudaicompanionProject": "project-1"}
                return web.json_response(project)
        return web.json_response({})

    def _spent(self, code: str) -> bool:
        good = code in self.codes
        self.codes.discard(code)
        return not good

    def _claude(self, asked: dict[str, Any]) -> web.Response:
        who = self.person
        if not asked.get("state") or not asked.get("code_verifier") or self._spent(asked.get("code", "")):
            return web.json_response({"error": "invalid_grant", "error_description": "Invalid code"}, status=400)
        return web.json_response(
            {
                "token_type": "Bearer", "access_token": who.access, "refresh_token": who.refresh, "expires_in": 28_800,
                "scope": asked.get("scope") or "user:inference user:profile",
                "account": {"uuid": who.user_id, "email_address": who.email},
                "organization": {"uuid": who.account_id, "name": "Org"},
            }
        )  # fmt: skip

    def _profile(self, request: web.Request) -> dict[str, Any]:
        who = self.person
        assert request.headers["Authorization"] == f"Bearer {who.access}"
        account = {
            "uuid": who.user_id,
            "email": who.email,
            "full_name": "A",
            "display_name": "A",
            "has_claude_max": True,
        }
        tier = {"organization_type": "claude_max", "rate_limit_tier": "default_claude_max_5x"}
        return {"account": account, "organization": {"uuid": who.account_id, "name": "Org", **tier}}

    def _google(self, asked: dict[str, Any]) -> web.Response:
        if not asked.get("code_verifier") or self._spent(asked.get("code", "")):
            return web.json_response(
                {"error": "invalid_grant", "error_description": "Malformed auth code."}, status=400
            )
        scope = "https://www.googleapis.com/auth/cloud-platform https://www.googleapis.com/auth/userinfo.email"
        return web.json_response(
            {
                "access_token": self.person.access, "refresh_token": self.person.refresh, "expires_in": 3599,
                "scope": scope, "token_type": "Bearer", "id_token": f"e30.e30.{int(time.time())}",
            }
        )  # fmt: skip
