"""Codex's sign-in in a browser or by device code: what is asked and what the answers say. Pure.

Source: the vendor's CLI (0.169) and traffic of other tools its terms tolerate; the client id is the CLI's public one.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, NamedTuple
from urllib.parse import urlencode

from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.origins import origins
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy
from pool_server.providers.base import RefreshRejectedError
from pool_server.providers.codex.module import CLIENT_ID, identity_of
from pool_server.providers.evidence.reading import message_of, read_error
from pool_server.providers.json_fields import as_object, as_text, decode
from pool_server.providers.oauth import token_answer
from pool_server.providers.requests import own_post
from pool_server.providers.times import number, rfc3339

SCOPE = "openid profile email offline_access"
DEVICE_REDIRECT = "/deviceauth/callback"
POLL_S = 5.0
POLL_MOST_S = 60.0
_TWINS = ("http://localhost:1455", "http://127.0.0.1:1455", "http://localhost:1457", "http://127.0.0.1:1457")


class DeviceStart(NamedTuple):
    """What the vendor gave for a device: `url` is the page for the person, `interval` seconds between polls."""

    device_id: str
    user_code: str
    url: str
    interval: float
    expires_in: float


class DeviceGrant(NamedTuple):
    code: str
    verifier: str


class SignInRefusedError(Exception):
    """A sign-in cannot go on. `code` is one word for programs, the text is for people."""

    def __init__(self, code: str, message: LazyText) -> None:
        super().__init__(message)
        self.code = code


def egress(settings: Settings) -> frozenset[str]:
    """The origins a sign-in may reach."""
    return origins(settings.sign_in.codex_authorize, settings.sign_in.codex_device, settings.token_urls.codex)


def redirects(settings: Settings) -> tuple[str, ...]:
    """The addresses a browser may be sent back to, the one that is asked for first: the vendor's programs know both
    names of the loopback and a second port."""
    asked = settings.sign_in.codex_redirect
    path = asked[asked.find("/", asked.find("://") + 3) :]
    return tuple(dict.fromkeys((asked, *(f"{twin}{path}" for twin in _TWINS))))


def authorize_url(settings: Settings, *, state: str, verifier: str, workspace: str = "") -> str:
    """The vendor's page for the person's browser."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": settings.sign_in.codex_redirect,
        "scope": SCOPE,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "id_token_add_organizations": "true",
        "codex_cli_simplified_flow": "true",
        "state": state,
        "originator": "pool-server",
        "prompt": "login",
    }
    if workspace:
        asked["allowed_workspace_id"] = workspace
    return f"{settings.sign_in.codex_authorize}?{urlencode(asked)}"


def device_request(settings: Settings) -> HttpRequest:
    return own_post(f"{settings.sign_in.codex_device}/usercode", {"client_id": CLIENT_ID})


def device_started(answer: HttpAnswer, settings: Settings) -> DeviceStart:
    """Raises SignInRefusedError."""
    if answer.status == 404:
        raise SignInRefusedError("device_off", lazy("the vendor offers no device code here; use the browser instead"))
    data = decode(answer.body) if answer.status == 200 else {}
    device, code = as_text(data.get("device_auth_id")), as_text(data.get("user_code") or data.get("usercode"))
    if not device or not code:
        raise _refused(answer)
    base = settings.sign_in.codex_authorize
    host = base[: base.find("/", base.find("://") + 3)]
    life = number(data.get("expires_in")) or 900.0
    life = min(max(life, 60.0), 900.0)
    return DeviceStart(device, code, f"{host}/codex/device", interval(data.get("interval")), life)


def interval(said: object) -> float:
    """Seconds between polls: a number or a text; absent or 0 is the usual pause."""
    seconds = number(said) or POLL_S
    return min(max(seconds, 1.0), POLL_MOST_S) if seconds > 0 else POLL_S


def poll_request(settings: Settings, device_id: str, user_code: str) -> HttpRequest:
    return own_post(f"{settings.sign_in.codex_device}/token", {"device_auth_id": device_id, "user_code": user_code})


def polled(answer: HttpAnswer) -> DeviceGrant | None:
    """What the person allowed; None while they have not, which the vendor says with 403 and 404. Raises
    SignInRefusedError for what is no answer, which may be asked again."""
    if answer.status in (403, 404, 429):
        return None
    data = decode(answer.body) if answer.status == 200 else {}
    code, verifier = as_text(data.get("authorization_code")), as_text(data.get("code_verifier"))
    if not code or not verifier:
        raise _refused(answer)
    return DeviceGrant(code, verifier)


def exchange_request(settings: Settings, *, code: str, verifier: str, device: bool) -> HttpRequest:
    redirect = settings.sign_in.codex_redirect
    if device:
        redirect = settings.token_urls.codex.partition("/oauth/")[0] + DEVICE_REDIRECT
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect,
        "client_id": CLIENT_ID,
        "code_verifier": verifier,
    }
    return own_post(settings.token_urls.codex, urlencode(form).encode())


def exchanged(answer: HttpAnswer, *, now: float) -> dict[str, Any]:
    """The credential file that the tokens make. Raises SignInRefusedError."""
    try:
        data = token_answer(answer, now=now, dead_statuses=frozenset((400, 401)))
    except RefreshRejectedError as refused:
        raise _meaning(answer, refused) from None
    names = ("id_token", "access_token", "refresh_token")
    if not all(data.get(name) for name in names):
        raise SignInRefusedError("no_tokens", lazy("the vendor answered without its tokens; start again"))
    tokens = {name: data[name] for name in names}
    account = identity_of(tokens["id_token"], tokens["access_token"]).account_id
    if account:
        tokens["account_id"] = account
    return {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": rfc3339(now)}


def refused_in_browser(error: str, description: str) -> SignInRefusedError:
    """What the address says when the person or their workspace did not allow it."""
    if "missing_codex_entitlement" in description:
        return SignInRefusedError(
            "no_entitlement",
            lazy("this workspace does not let its member use it: ask its admin, or sign in to another workspace"),
        )
    if error == "access_denied":
        return SignInRefusedError("cancelled", lazy("the sign-in was cancelled on the vendor's page; start again"))
    return SignInRefusedError("refused", lazy("the vendor's page refused it ({error}); start again", error=error[:60]))


def _meaning(answer: HttpAnswer, refused: RefreshRejectedError) -> SignInRefusedError:
    if answer.unsent:
        return _refused(answer)
    facts = read_error(answer.headers, answer.body)
    if facts.says("unsupported_country_region_territory"):
        return SignInRefusedError(
            "country",
            lazy(
                "the vendor refuses the place of this server's (or the proxy's) exit, wherever your browser is: give "
                "the account a proxy elsewhere and start again; the code is spent"
            ),
        )
    if answer.status in (400, 401):
        return SignInRefusedError("bad_code", lazy("the code was used, is too old or of another sign-in; start again"))
    return SignInRefusedError("exchange", lazy("{reason}; the code may be spent: start again", reason=refused.reason))


def _refused(answer: HttpAnswer) -> SignInRefusedError:
    if not answer.status:
        return SignInRefusedError(
            "unreachable", lazy("the vendor could not be reached ({error})", error=answer.error or lazy("no answer"))
        )
    facts = read_error(answer.headers, answer.body)
    what = lazy("a web page") if facts.html else message_of(facts, answer.status)[:240]
    return SignInRefusedError("refused", lazy("the vendor answered {status}: {what}", status=answer.status, what=what))


def workspace_of(data: dict[str, Any]) -> dict[str, str]:
    """Who signed in, for people: "who" (an e-mail address), "plan", "org" (the workspace)."""
    tokens = as_object(data.get("tokens"))
    found = identity_of(as_text(tokens.get("id_token")), as_text(tokens.get("access_token")))
    return {"who": found.email, "plan": found.plan, "org": found.account_id}
