"""A fake identity provider: OpenID Connect's code flow with PKCE, and the ways in which one lies."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from aiohttp import web

from tests.fakes.rsa_keys import rsa_key
from tests.loop_thread import LoopbackApp

CLIENT, SECRET = "pool", "client-secret-of-the-pool"


class FakeIdentityProvider:
    """`claims` are put over those of a good ID token (None leaves one out); `sign` makes the token of them. `discovery`
    is put over what it says of itself. `asked` holds the paths in the order of arrival."""

    def __init__(self) -> None:
        self.key = rsa_key()
        self.kid = "first"
        self.claims: dict[str, Any] = {}
        self.discovery: dict[str, Any] = {}
        self.keys: list[dict[str, Any]] | None = None
        self.sign = self.signed
        self.status = 200
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._app = LoopbackApp(self._answer)

    async def start(self) -> None:
        self.issuer = await self._app.start()

    async def close(self) -> None:
        await self._app.close()

    def agree(self, address: str) -> str:
        """The person signs in on the page of that address: the query they come back with."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert (query["response_type"], query["client_id"], query["code_challenge_method"]) == ("code", CLIENT, "S256")
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return f"code={code}&state={query['state']}"

    def signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.kid})

    def jwk(self) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {**row, "kid": self.kid, "use": "sig", "alg": "RS256"}

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == "/.well-known/openid-configuration":
            ends = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "keys"}
            found = {name: f"{self.issuer}/{end}" for name, end in ends.items()}
            return web.json_response({"issuer": self.issuer, **found, **self.discovery})
        if request.path == "/keys":
            return web.json_response({"keys": [self.jwk()] if self.keys is None else self.keys})
        if request.path == "/token" and self.status == 200:
            return self._token({name: str(value) for name, value in (await request.post()).items()}, request)
        return web.json_response({"error": "invalid_request", "secret": SECRET}, status=self.status)

    def _token(self, form: dict[str, str], request: web.Request) -> web.Response:
        begun = self._codes.pop(form["code"], None)  # each code once
        if begun is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        assert challenge.decode() == begun["code_challenge"]
        assert (form["grant_type"], form["redirect_uri"]) == ("authorization_code", begun["redirect_uri"])
        assert request.headers["Authorization"] == f"Basic {base64.b64encode(f'{CLIENT}:{SECRET}'.encode()).decode()}"
        now = time.time()
        good = {
            "iss": self.issuer, "sub": "ada-1", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": begun["nonce"],
            "email": "ada@example.org", "email_verified": True,
        }  # fmt: skip
        claims = {name: value for name, value in {**good, **self.claims}.items() if value is not None}
        return web.json_response({"access_token": "at", "token_type": "Bearer", "id_token": self.sign(claims)})
