"""Fakes of the clouds that rent out models: Vertex AI, whose tokens are traded for signed assertions, and Bedrock,
whose requests are signed. Both verify what they are shown by the vendors' documents and not by the pool's own code."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from pool_server.core.models import Usage
from pool_server.demo.surfaces import Surface, good
from tests.fakes.rsa_keys import rsa_key
from tests.loop_thread import LoopbackApp, LoopThread

USAGE = Usage(input=20, output=5, known=True)
TOKEN_URI = "https://oauth2.googleapis.com/token"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Seen:
    """One request as it came, and how it was answered (0: not yet)."""

    def __init__(self, request: web.Request, body: bytes) -> None:
        self.method, self.path, self.query = request.method, request.rel_url.raw_path, request.rel_url.query_string
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        self.body = body
        self.status = 0

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class FakeCloud:
    """A server in a thread of its own. `calls` holds what came in, `next` the answers (status, headers, body) that
    come before good ones."""

    def __init__(self) -> None:
        self.calls: list[Seen] = []
        self.next: list[tuple[int, dict[str, str], Any]] = []
        self._app = LoopbackApp(self._take)
        self._thread = LoopThread("fake-cloud")

    def __enter__(self) -> Self:
        self._thread.start()
        self.origin = self._thread.call(self._app.start())
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.call(self._app.close())
        self._thread.stop()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request, await request.read())
        self.calls.append(seen)
        answer = self.answer(seen)
        if isinstance(answer, list):
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for event in answer:
                await response.write(event)
            await response.write_eof()
            seen.status = 200
            return response
        seen.status = answer.status
        return answer

    def answer(self, seen: Seen) -> web.Response | list[bytes]:
        raise NotImplementedError

    def generated(self, surface: Surface, seen: Seen, body: dict[str, Any]) -> web.Response | list[bytes]:
        """The good answer, or one of `next`."""
        if self.next:
            status, headers, told = self.next.pop(0)
            raw = told if isinstance(told, bytes) else json.dumps(told).encode()
            return web.Response(status=status, headers={"Content-Type": "application/json", **headers}, body=raw)
        ident = f"{len(self.calls):04d}"
        made = good(surface, seen.path, seen.query, body, ident=ident, pieces=["Hello ", "world"], usage=USAGE)
        return made.events if made.events is not None else web.json_response(made.body)


def google_error(status: int, word: str, message: str, **detail: Any) -> dict[str, Any]:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", **detail}] if detail else []
    return {"error": {"code": status, "message": message, "status": word, "details": details}}


class FakeVertex(FakeCloud):
    """`granted` are the tokens in the order they were given, of which `good` is taken; `refusals` are answers (status,
    body) of the token endpoint before good ones; `life_s` is what a token lives."""

    def __init__(self, *, life_s: int = 3599) -> None:
        super().__init__()
        self.granted: list[str] = []
        self.refusals: list[tuple[int, Any]] = []
        self.life_s = life_s
        self.address = "pool@project-one.iam.gserviceaccount.com"

    @property
    def good(self) -> str:
        return self.granted[-1] if self.granted else ""

    def file(self, *, key: int = 0, **more: Any) -> dict[str, Any]:
        """The JSON of the service account as the console makes it; the second `key` is none that the vendor knows."""
        pem = rsa_key(key).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account", "project_id": "project-one", "private_key_id": "key-1",
            "private_key": pem.decode(), "client_email": self.address, "client_id": "1042", "token_uri": TOKEN_URI,
            "auth_uri": "https://accounts.google.com/o/oauth2/auth", "universe_domain": "googleapis.com", **more,
        }  # fmt: skip

    def revoke(self) -> None:
        """No token that was given is taken any more."""
        self.granted.append("")

    def answer(self, seen: Seen) -> web.Response | list[bytes]:
        if seen.path == "/token":
            return self._grant(seen)
        if not self.good or seen.headers.get("authorization") != f"Bearer {self.good}":
            return self._refuse(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        named = re.fullmatch(
            r"/v1/projects/project-one/locations/([a-z0-9-]+)/publishers/(google|anthropic)/models/([^/:]+):(\w+)",
            seen.path,
        )
        if seen.method != "POST" or named is None:
            return self._refuse(404, "NOT_FOUND", "no such address")
        _, publisher, model, method = named.groups()
        if publisher == "google":
            return self._google(seen, method)
        return self._anthropic(seen, model, method)

    def _grant(self, seen: Seen) -> web.Response:
        form = dict(urllib.parse.parse_qsl(seen.body.decode()))
        if self.refusals:
            status, told = self.refusals.pop(0)
            if isinstance(told, str):
                return web.Response(status=status, text=told, content_type="text/html")
            return web.json_response(told, status=status)
        try:
            assert form.keys() == {"grant_type", "assertion"}
            assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
            assert jwt.get_unverified_header(form["assertion"])["kid"] == "key-1"
            claims = jwt.decode(form["assertion"], rsa_key().public_key(), algorithms=["RS256"], audience=TOKEN_URI)
            assert claims["iss"] == self.address and claims["scope"] == SCOPE
            assert 0 < claims["exp"] - claims["iat"] <= 3600 and abs(claims["iat"] - time.time()) < 300
        except (AssertionError, jwt.InvalidTokenError) as wrong:
            told = {"error": "invalid_grant", "error_description": f"Invalid JWT Signature. {type(wrong).__name__}"}
            return web.json_response(told, status=400)
        self.granted.append(f"ya29.c.fake-token-{len(self.granted)}-of-the-service-account")
        return web.json_response({"access_token": self.good, "expires_in": self.life_s, "token_type": "Bearer"})

    def _google(self, seen: Seen, method: str) -> web.Response | list[bytes]:
        if method == "countTokens":
            return web.json_response({"totalTokens": 7})
        if "model" in seen.json or "contents" not in seen.json:
            return self._refuse(400, "INVALID_ARGUMENT", "Invalid JSON payload received.")
        return self.generated(Surface.GENERATE, seen, seen.json)

    def _anthropic(self, seen: Seen, model: str, method: str) -> web.Response | list[bytes]:
        body = seen.json
        if body.get("anthropic_version") != "vertex-2023-10-16" or "@" not in urllib.parse.unquote(model) + "@":
            return self._words(400, "invalid_request_error", "anthropic_version: Field required")
        if urllib.parse.unquote(model) == "count-tokens":
            if "@" not in body.get("model", ""):
                return self._words(400, "invalid_request_error", "model: Field required")
            return web.json_response({"input_tokens": 11})
        if "model" in body:
            return self._words(400, "invalid_request_error", "model: Extra inputs are not permitted")
        if "@" not in urllib.parse.unquote(model):
            return self._refuse(404, "NOT_FOUND", f"Publisher Model `projects/project-one/{model}` was not found")
        if (method == "streamRawPredict") is not bool(body.get("stream")):
            return self._words(400, "invalid_request_error", "stream does not fit the method")
        return self.generated(Surface.MESSAGES, seen, {**body, "model": urllib.parse.unquote(model)})

    @staticmethod
    def _refuse(status: int, word: str, message: str) -> web.Response:
        return web.json_response(google_error(status, word, message), status=status)

    @staticmethod
    def _words(status: int, kind: str, message: str) -> web.Response:
        return web.json_response({"type": "error", "error": {"type": kind, "message": message}}, status=status)


class FakeBedrock(FakeCloud):
    """Takes requests signed with `secret` (and `session`, where one is set) for `region`, or the API key `key`."""

    key_id = "AKIAFAKEFAKEFAKEFAKE"
    secret = "fake/secret+access0key1of2the3account4"
    key = "bedrock-api-key-of-the-account"
    region = "eu-central-1"
    session = ""

    def file(self, **more: Any) -> dict[str, Any]:
        keys = {"aws_access_key_id": self.key_id, "aws_secret_access_key": self.secret, "region": self.region}
        return keys | ({"aws_session_token": self.session} if self.session else {}) | more

    def answer(self, seen: Seen) -> web.Response | list[bytes]:
        if wrong := self._unsigned(seen):
            return web.json_response({"message": wrong}, status=403, headers={"x-amzn-errortype": "AccessDenied"})
        match seen.path:
            case "/openai/v1/models":
                return web.json_response({"object": "list", "data": [{"id": "openai.gpt-oss-120b-1:0"}]})
            case "/openai/v1/chat/completions":
                return self.generated(Surface.CHAT, seen, seen.json)
            case "/openai/v1/responses":
                return self.generated(Surface.RESPONSES, seen, seen.json)
            case "/anthropic/v1/messages" if seen.headers.get("anthropic-version"):
                return self.generated(Surface.MESSAGES, seen, seen.json)
        return web.json_response({"message": "unknown operation"}, status=404)

    def _unsigned(self, seen: Seen, service: str = "bedrock") -> str:
        """Why the request is not let in, "" where it is."""
        shown = seen.headers.get("authorization", "")
        if shown == f"Bearer {self.key}":
            return ""
        found = re.fullmatch(
            rf"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{{8}})/([^/]+)/{service}/aws4_request, "
            r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
            shown,
        )
        if found is None or self.secret in json.dumps(seen.headers):
            return "The request is not signed."
        key_id, day, region, names, signature = found.groups()
        stamp = seen.headers.get("x-amz-date", "")
        try:
            at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            return "x-amz-date is missing."
        if (
            key_id != self.key_id
            or region != self.region
            or stamp[:8] != day
            or abs(at.timestamp() - time.time()) > 300
        ):
            return "The security token included in the request is invalid."
        if seen.headers.get("x-amz-security-token", "") != self.session:
            return "The security token included in the request is invalid."
        signed = names.split(";")
        if "host" not in signed or any(one.startswith("x-amz-") and one not in signed for one in seen.headers):
            return "A header that must be signed is not."
        wanted = _signature(self.secret, seen.headers, seen, signed, stamp, f"{day}/{region}/{service}/aws4_request")
        return "" if hmac.compare_digest(wanted, signature) else "The request signature we calculated does not match."


class FakeRole(FakeBedrock):
    """Bedrock, and STS at the same address: it takes the keys of a session alone, of which `sessions` were given for
    the file's own. `refusals` are answers (status, body) of STS before good ones; `xml`: it speaks no JSON."""

    arn = "arn:aws:iam::123456789012:role/pool/Bedrock"
    external = "an-external-id"

    def __init__(self, *, life_s: float = 3600.0, xml: bool = False) -> None:
        super().__init__()
        self.own = (self.key_id, self.secret, "")
        self.sessions: list[tuple[str, str, str]] = []
        self.refusals: list[tuple[int, Any]] = []
        self.life_s, self.xml = life_s, xml

    def file(self, **more: Any) -> dict[str, Any]:
        keys = {"aws_access_key_id": self.own[0], "aws_secret_access_key": self.own[1], "region": self.region}
        return {**keys, "role_arn": self.arn, "external_id": self.external, **more}

    def expire(self) -> None:
        """No session that was given is taken any more."""
        self.sessions.append(("", "", ""))

    def answer(self, seen: Seen) -> web.Response | list[bytes]:
        if seen.path == "/":
            return self._assumed(seen)
        self.key_id, self.secret, self.session = self.sessions[-1] if self.sessions else ("", "", "")
        if not self.key_id:
            told = {"message": "The security token included in the request is expired"}
            return web.json_response(told, status=403, headers={"x-amzn-errortype": "ExpiredTokenException"})
        return super().answer(seen)

    def _assumed(self, seen: Seen) -> web.Response:
        if self.refusals:
            status, told = self.refusals.pop(0)
            return web.Response(status=status, text=told if isinstance(told, str) else json.dumps(told))
        self.key_id, self.secret, self.session = self.own
        wrong, form = self._unsigned(seen, "sts"), dict(urllib.parse.parse_qsl(seen.body.decode()))
        asked = (form.get("Action"), form.get("Version"), form.get("RoleArn"), form.get("ExternalId"))
        if wrong or asked != ("AssumeRole", "2011-06-15", self.arn, self.external) or not form["RoleSessionName"]:
            error = {"Error": {"Code": "AccessDenied", "Message": wrong or "not authorized to perform sts:AssumeRole"}}
            return web.json_response(error, status=403)
        number = len(self.sessions)
        made = (f"ASIAFAKEFAKEFAKE{number:04d}", f"secret/of+session{number}", f"token+of/session{number}==")
        self.sessions.append(made)
        names, ends = ("AccessKeyId", "SecretAccessKey", "SessionToken"), time.time() + self.life_s
        if self.xml:
            stamp = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            rows = "".join(f"<{name}>{value}</{name}>" for name, value in zip(names, made, strict=True))
            text = f'<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>{rows}<Expiration>{stamp}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>'
            return web.Response(text=text, content_type="text/xml")
        keys = {**dict(zip(names, made, strict=True)), "Expiration": ends}
        return web.json_response({"AssumeRoleResponse": {"AssumeRoleResult": {"Credentials": keys}}})


def _signature(secret: str, headers: Mapping[str, str], seen: Seen, signed: list[str], stamp: str, scope: str) -> str:
    """Signature Version 4 as docs.aws.amazon.com describes it."""
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed]
    path = urllib.parse.quote(seen.path, safe="/~-._")
    digest = hashlib.sha256(seen.body).hexdigest()
    canonical = "\n".join([seen.method, path, seen.query, *lines, "", ";".join(signed), digest])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
