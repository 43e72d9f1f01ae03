"""OpenID Connect: the authorization code flow with PKCE, and what an identity provider's answers are worth.

Nothing of an answer is believed that was not fetched from the issuer in the settings or signed by its keys; symmetric
signatures and unsigned tokens are no signatures. Fetching is the caller's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import jwt
import msgspec

from pool_server.core.models import HttpRequest, Send
from pool_server.core.origins import origin
from pool_server.core.settings import SingleSignOn
from pool_server.language import gettext as _
from pool_server.users.identity.sign_in import SUBJECT, Identity

KEPT_S = 3600.0  # what the issuer says of itself, and its keys …
AGAIN_S = 60.0  # … but a token signed by a key that is not among them has them fetched anew
PENDING_S = 600.0  # how long a sign-in may take
LEEWAY_S = 60.0  # how far the issuer's clock may be off
MOST_BYTES = 256 * 1024  # of an answer
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_KEY_TYPES = frozenset({"RSA", "EC", "OKP"})  # no "oct": a secret that both know proves nothing
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]


class OpenIdError(Exception):
    """Why nobody is signed in: one line for people, without a secret."""


class Discovery(msgspec.Struct, frozen=True):
    """What the issuer says of itself."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class PendingSignIn(msgspec.Struct, frozen=True):
    """What the browser keeps while it is at the issuer's: it alone can finish what it began."""

    state: str
    nonce: str
    verifier: str
    until: float

    @classmethod
    def new(cls, now: float) -> PendingSignIn:
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), now + PENDING_S)

    def written(self) -> str:
        """As a cookie holds it."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> PendingSignIn | None:
        try:
            return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=cls)
        except (ValueError, msgspec.DecodeError, RecursionError):
            return None


class OpenId:
    """One issuer, as the settings name it. Keeps what it says of itself for an hour."""

    def __init__(self, settings: SingleSignOn, send: Send, clock: Callable[[], float]) -> None:
        self.settings = settings
        self._send = send
        self._clock = clock
        self._found: tuple[float, Discovery] | None = None
        self._keys: tuple[float, Mapping[str, jwt.PyJWK]] | None = None

    async def address(self, pending: PendingSignIn, redirect_uri: str) -> str:
        """Where the browser goes to sign in. Raises OpenIdError."""
        found = await self._discovery()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(pending.verifier.encode()).digest()).rstrip(b"=")
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid email profile",
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in found.authorization_endpoint else "?"
        return f"{found.authorization_endpoint}{joint}{urlencode(query)}"

    async def identity(self, code: str, pending: PendingSignIn, redirect_uri: str) -> Identity:
        """Who has signed in, for the code the browser brought back. Raises OpenIdError."""
        found = await self._discovery()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self.settings.client_id,
            "code_verifier": pending.verifier,
        }
        headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
        if self.settings.client_secret:
            if "client_secret_basic" in found.token_endpoint_auth_methods_supported:
                pair = f"{quote(self.settings.client_id, safe='')}:{quote(self.settings.client_secret, safe='')}"
                headers.append(("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"))
            else:
                form["client_secret"] = self.settings.client_secret
        answer = await self._fetch("POST", found.token_endpoint, headers, urlencode(form).encode())
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OpenIdError(_("the identity provider sent no ID token"))
        return self._believed(await self._claims(token, found), pending)

    async def _claims(self, token: str, found: Discovery) -> dict[str, Any]:
        try:
            head = jwt.get_unverified_header(token)
            algorithm = head.get("alg")
            if algorithm not in ALGORITHMS:
                raise OpenIdError(_("the ID token is not signed by a key of the identity provider"))
            key = await self._key(found, head.get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self.settings.client_id,
                issuer=self.settings.issuer,
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.PyJWTError as exc:
            raise OpenIdError(_("the ID token is not to be believed ({name})", name=type(exc).__name__)) from None
        return claims

    def _believed(self, claims: Mapping[str, Any], pending: PendingSignIn) -> Identity:
        """Who a signed token speaks of, once it is for this client, this browser and now."""
        now = self._clock()
        times = [claims["exp"], claims["iat"], claims.get("nbf", 0)]
        if any(isinstance(at, bool) or not isinstance(at, int | float) for at in times):
            raise OpenIdError(_("the ID token has no times that can be read"))
        expires, issued, begins = times
        if expires + LEEWAY_S <= now or issued - LEEWAY_S > now or begins - LEEWAY_S > now:
            raise OpenIdError(_("the ID token has expired, or is not valid yet"))
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (several or "azp" in claims) and claims.get("azp") != self.settings.client_id:
            raise OpenIdError(_("the ID token was made for another client"))
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), pending.nonce.encode()):
            raise OpenIdError(_("the ID token was made for another sign-in"))
        subject, mail = claims["sub"], claims.get("email")
        if not isinstance(subject, str) or not subject:
            raise OpenIdError(_("the ID token names nobody"))
        proven = isinstance(mail, str) and "@" in mail and claims.get("email_verified") is True
        return Identity(self.settings.issuer, subject, str(mail) if proven else f"{SUBJECT}{subject}")

    async def _discovery(self) -> Discovery:
        now = self._clock()
        if self._found is None or not 0 <= now - self._found[0] < KEPT_S:
            url = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
            try:
                found = msgspec.convert(await self._fetch("GET", url), Discovery)
            except msgspec.ValidationError:
                raise OpenIdError(_("the identity provider does not say how to sign in there")) from None
            if found.issuer != self.settings.issuer:
                raise OpenIdError(_("the identity provider calls itself another than the issuer in the settings"))
            secure = self.settings.issuer.startswith("https:")
            ends = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri)
            if not all(end.startswith("https:" if secure else "http") and origin(end) for end in ends):
                raise OpenIdError(_("an address of the identity provider is not https"))
            self._found = now, found
        return self._found[1]

    async def _key(self, found: Discovery, ident: object) -> jwt.PyJWK:
        """The key of that id; without an id the only one there is."""
        now = self._clock()
        fetched = float("-inf") if self._keys is None else self._keys[0]
        known = self._keys is not None and (ident in self._keys[1] or (ident is None and len(self._keys[1]) == 1))
        if not 0 <= now - fetched < (KEPT_S if known else AGAIN_S):
            self._keys = now, _keys(await self._fetch("GET", found.jwks_uri))
        keys = self._keys[1] if self._keys is not None else {}
        key = next(iter(keys.values())) if ident is None and len(keys) == 1 else keys.get(str(ident))
        if key is None:
            raise OpenIdError(_("the ID token is not signed by a key of the identity provider"))
        return key

    async def _fetch(
        self, method: str, url: str, headers: list[tuple[str, str]] | None = None, body: bytes = b""
    ) -> dict[str, Any]:
        egress = frozenset({origin(url)})
        asked = HttpRequest(method, url, tuple(headers or ()), body, timeout_s=10.0, egress=egress)
        answer = await self._send(asked)
        if answer.status == 0:
            raise OpenIdError(_("the identity provider cannot be reached; try again in a moment"))
        if answer.status != 200:
            raise OpenIdError(
                _("the identity provider refused this sign-in (answer {status}); start again", status=answer.status)
            )
        try:
            if len(answer.body) <= MOST_BYTES:
                return msgspec.json.decode(answer.body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            pass
        raise OpenIdError(_("the identity provider's answer cannot be read"))


def _keys(document: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """The keys that sign, by their ids; what is none, or of a kind nobody else can make, is left out."""
    found: dict[str, jwt.PyJWK] = {}
    rows = document.get("keys")
    for number, row in enumerate(rows if isinstance(rows, list) else []):
        if isinstance(row, dict) and row.get("kty") in _KEY_TYPES and row.get("use", "sig") == "sig":
            try:
                found[str(row.get("kid", f"#{number}"))] = jwt.PyJWK(row)
            except (jwt.PyJWTError, ValueError, TypeError):
                continue
    return found
