"""Amazon Bedrock: an API key as any preset's, or AWS access keys, with which each request is signed, or which are
traded for a role's.

Source: docs.aws.amazon.com, "AWS Signature Version 4 for API requests"; anthropic-sdk-python `lib/bedrock` (service
"bedrock" at bedrock-runtime).
"""

from __future__ import annotations

import re
from functools import partial

import msgspec

from pool_server.core.enums import Provider
from pool_server.core.models import ClientCall, HttpAnswer, HttpRequest, UpstreamRequest
from pool_server.core.settings import Settings
from pool_server.language import lazy
from pool_server.providers.base import Refreshed
from pool_server.providers.bedrock import role, signing
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields, KeyAuth
from pool_server.providers.oauth import lead_seconds
from pool_server.providers.presets.data import Preset
from pool_server.providers.presets.module import PresetModule
from pool_server.providers.requests import JSON_TYPE

SERVICE = "bedrock"
_ID, _SECRET, _SESSION, _ENDS = "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_expiration"
_KEY_ID = re.compile(r"[A-Z0-9]{16,128}")


class Bedrock(PresetModule):
    def __init__(self, provider: Provider, preset: Preset) -> None:
        super().__init__(provider, preset)
        self.spec = msgspec.structs.replace(self.spec, owned=(role.ASSUMED,))

    def parse(self, data: object, account: str, *, now: float) -> Credential:
        fields = Fields(data)
        if not any(fields.given(name) for name in (_ID, _SECRET, _SESSION)):
            return super().parse(data, account, now=now)
        key_id, secret = fields.token(_ID), fields.token(_SECRET)
        if not _KEY_ID.fullmatch(key_id):
            raise CredentialRejectedError(
                lazy("{name} is not a usable value", name=_ID) if key_id else lazy("{name} is missing", name=_ID)
            )
        if not secret:
            raise CredentialRejectedError(lazy("{name} is missing", name=_SECRET))
        if fields.given("api_key"):
            raise CredentialRejectedError(lazy("it holds api_key and {id}: one of them must go", id=_ID))
        if not signing.available():
            raise CredentialRejectedError(signing.INSTALL)
        cred = super().parse({**fields.data, "api_key": secret}, account, now=now)
        arn, external = role.named(fields)
        own = msgspec.structs.replace(
            cred,
            auth=KeyAuth.SIGNED,
            key_id=key_id,
            access_token=fields.token(_SESSION),
            expires_at=fields.when(_ENDS),
        )
        return _in_role(own, arn, external, fields) if arn else own

    def addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        found = super().addresses(cred, settings)
        return (*found, self._sts(cred, settings)) if cred.can_refresh else found

    def _sts(self, cred: Credential, settings: Settings) -> str:
        return role.address(_region(cred), settings.upstreams.presets.get(self.spec.provider.value, ""))

    def identity(self, cred: Credential) -> str:
        """Each role and region has quotas of its own, whichever keys it is assumed with."""
        return f"{cred.user_id}/{_region(cred)}" if cred.can_refresh else super().identity(cred)

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
        return role.request(cred, self._sts(cred, settings), _region(cred)) if cred.can_refresh else None

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        session = role.answer(answer, now=now)
        return Refreshed({role.ASSUMED: session}, _with_session(cred, Fields(session), issued_at=now))

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh or cred.expires_at is None:
            return None
        return cred.expires_at - lead_seconds(cred.expires_at, cred.issued_at, longest=role.LEAD, unknown=role.LEAD)

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
        key = (cred.key_id, cred.api_key, cred.access_token)
        return signing.signed(key, SERVICE, _region(cred), method, url, body, kind)


def _region(cred: Credential) -> str:
    return dict(cred.places)["region"]


def _in_role(own: Credential, arn: str, external: str, fields: Fields) -> Credential:
    """The role that the file's own keys are traded for, with the session it has now."""
    cred = msgspec.structs.replace(
        own,
        account_id=own.key_id,
        private_key=own.api_key,
        refresh_token=own.access_token,
        user_id=arn,
        project=external,
    )
    return _with_session(cred, Fields(fields.data.get(role.ASSUMED) or {}, f"{role.ASSUMED}."))


def _with_session(cred: Credential, session: Fields, issued_at: float | None = None) -> Credential:
    token = session.token("session_token")
    return msgspec.structs.replace(
        cred,
        key_id=session.token("access_key_id"),
        api_key=session.token("secret_access_key"),
        access_token=token,
        expires_at=session.when("expiration") if token else 0.0,
        issued_at=issued_at,
    )
