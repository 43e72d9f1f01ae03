"""Amazon Bedrock: an API key as any preset's, or AWS access keys, with which each request is signed.

Source: docs.aws.amazon.com, "AWS Signature Version 4 for API requests"; anthropic-sdk-python `lib/bedrock` (service
"bedrock" at bedrock-runtime).
"""

from __future__ import annotations

import re
from functools import partial

import msgspec

from pool_server.core.models import ClientCall, HttpRequest, UpstreamRequest
from pool_server.core.settings import Settings
from pool_server.providers.bedrock import signing
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields, KeyAuth
from pool_server.providers.presets.module import PresetModule
from pool_server.providers.requests import JSON_TYPE

SERVICE = "bedrock"
_ID, _SECRET, _SESSION, _ENDS = "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_expiration"
_KEY_ID = re.compile(r"[A-Z0-9]{16,128}")


class Bedrock(PresetModule):
    def parse(self, data: object, account: str, *, now: float) -> Credential:
        fields = Fields(data)
        if not any(fields.given(name) for name in (_ID, _SECRET, _SESSION)):
            return super().parse(data, account, now=now)
        key_id, secret = fields.token(_ID), fields.token(_SECRET)
        if not _KEY_ID.fullmatch(key_id):
            raise CredentialRejectedError(f"{_ID} is {'not a usable value' if key_id else 'missing'}")
        if not secret:
            raise CredentialRejectedError(f"{_SECRET} is missing")
        if fields.given("api_key"):
            raise CredentialRejectedError(f"it holds api_key and {_ID}: one of them must go")
        if not signing.available():
            raise CredentialRejectedError(signing.INSTALL)
        cred = super().parse({**fields.data, "api_key": secret}, account, now=now)
        return msgspec.structs.replace(
            cred,
            auth=KeyAuth.SIGNED,
            key_id=key_id,
            access_token=fields.token(_SESSION),
            expires_at=fields.when(_ENDS),
        )

    def build(self, cred: Credential, call: ClientCall, settings: Settings) -> UpstreamRequest:
        if cred.auth is not KeyAuth.SIGNED:
            return super().build(cred, call, settings)
        kept = [pair for pair in call.headers if not pair[0].lower().startswith("x-amz-")]
        prepared = super().build(cred, msgspec.structs.replace(call, headers=kept), settings)
        kind = next((value for name, value in prepared.headers if name.lower() == "content-type"), "")
        prepared.sign = partial(self._signed, cred, prepared.method, prepared.url, kind)
        return prepared

    def models_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        return self._sign_own(cred, super().models_request(cred, settings))

    def test_request(self, cred: Credential, settings: Settings) -> HttpRequest:
        return self._sign_own(cred, super().test_request(cred, settings))

    def _sign_own(self, cred: Credential, request: HttpRequest) -> HttpRequest:
        if cred.auth is not KeyAuth.SIGNED or any(name.lower() == "authorization" for name, _ in request.headers):
            return request
        kind = JSON_TYPE[1] if request.body else ""
        shown = self._signed(cred, request.method, request.url, kind, request.body)
        return msgspec.structs.replace(request, headers=(*request.headers, *shown))

    @staticmethod
    def _signed(cred: Credential, method: str, url: str, kind: str, body: bytes) -> list[tuple[str, str]]:
        return signing.signed(cred, SERVICE, dict(cred.places)["region"], method, url, body, kind)
