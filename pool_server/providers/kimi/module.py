"""Kimi Code: an API key as any preset's, or the sign-in of the vendor's own program.

Source: the open source of kimi-cli and kimi-code: the credential file, the refresh, two editions whose tokens are good
at their own hosts alone.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from pool_server.core.enums import CredentialKind, Provider
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings
from pool_server.language import lazy
from pool_server.providers.base import Refreshed, RefreshRejectedError
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields, KeyAuth, lifetime_end
from pool_server.providers.json_fields import as_text, decode
from pool_server.providers.oauth import lead_seconds, token_answer
from pool_server.providers.presets.data import Preset
from pool_server.providers.presets.module import PresetModule
from pool_server.providers.requests import bearer, own_get, own_post
from pool_server.providers.times import HOUR, MINUTE

CLIENT_ID = "17e5f671-d194-4dfb-9706-5516cb48c098"  # public, of the vendor's programs
LIFE_UNKNOWN = 15 * MINUTE
_HOME = "//auth.kimi.com/"  # the other edition's host differs in its last part
_REFUSED = frozenset((401, 403))
_CONSENT = (
    "Kimi's servers may refuse a sign-in that is used by any program but Kimi's own, and what its terms say of sharing "
    "is not known. An API key of Kimi Code is the safe kind."
)


class Kimi(PresetModule):
    def __init__(self, provider: Provider, preset: Preset) -> None:
        super().__init__(provider, preset)
        self.spec = msgspec.structs.replace(
            self.spec, owned=("access_token", "refresh_token", "expires_at", "user_id"), consent=_CONSENT
        )

    def parse(self, data: object, account: str, *, now: float) -> Credential:
        fields = Fields(data)
        access, refresh = fields.token("access_token"), fields.token("refresh_token")
        if not access and not refresh:
            return super().parse(data, account, now=now)
        if fields.given("api_key"):
            raise CredentialRejectedError(lazy("it holds api_key and a sign-in: one of them must go"))
        cred = self._read(fields, account, "")
        return msgspec.structs.replace(
            cred,
            kind=CredentialKind.OAUTH if refresh else CredentialKind.SETUP_TOKEN,
            access_token=access,
            refresh_token=refresh,
            expires_at=fields.when("expires_at") if access else 0.0,
            account_id=dict(cred.places)["region"],
            user_id=fields.text("user_id"),
            plan=fields.text("plan_type").lower(),
        )

    def consent_for(self, cred: Credential) -> str:
        return "" if cred.kind is CredentialKind.API_KEY else self.spec.consent

    def addresses(self, cred: Credential, settings: Settings) -> tuple[str, ...]:
        found = super().addresses(cred, settings)
        return found if cred.kind is CredentialKind.API_KEY else (*found, _token_url(cred, settings))

    def _shown(self, cred: Credential, auth: KeyAuth) -> list[tuple[str, str]]:
        if cred.kind is CredentialKind.API_KEY:
            return super()._shown(cred, auth)
        return [bearer(cred.access_token)]

    def profile_request(self, cred: Credential, settings: Settings) -> HttpRequest | None:
        if cred.kind is CredentialKind.API_KEY or self.identity(cred):
            return None
        return own_get(f"{self._base(cred, settings)}/me", *self._own(cred))

    def profile_updates(self, cred: Credential, answer: HttpAnswer) -> dict[str, Any]:
        told = as_text(decode(answer.body).get("user_id")) if answer.status == 200 else ""
        return {"user_id": told} if told and len(told) <= 100 and told.isprintable() else {}

    def refresh_request(self, cred: Credential, settings: Settings, *, now: float) -> HttpRequest | None:
        if not cred.can_refresh:
            return None
        form = {"grant_type": "refresh_token", "refresh_token": cred.refresh_token, "client_id": CLIENT_ID}
        return own_post(_token_url(cred, settings), urlencode(form).encode())

    def refresh_answer(self, cred: Credential, answer: HttpAnswer, *, now: float) -> Refreshed:
        data = token_answer(answer, now=now, dead_statuses=_REFUSED)
        if not data.get("access_token"):
            raise RefreshRejectedError(lazy("the token endpoint answered no token"))
        expires_at = lifetime_end(data.get("expires_in"), now=now, default=LIFE_UNKNOWN)
        fresh = {name: data[name] for name in ("access_token", "refresh_token") if data.get(name)}
        credential = msgspec.structs.replace(cred, expires_at=expires_at, issued_at=now, **fresh)
        return Refreshed({**fresh, "expires_at": int(expires_at)}, credential)

    def refresh_due_at(self, cred: Credential, *, now: float) -> float | None:
        if not cred.can_refresh or cred.expires_at is None:
            return None
        return cred.expires_at - lead_seconds(cred.expires_at, cred.issued_at, longest=HOUR, unknown=5 * MINUTE)


def _token_url(cred: Credential, settings: Settings) -> str:
    return settings.token_urls.kimi.replace(_HOME, f"//auth.kimi.{cred.account_id}/")
