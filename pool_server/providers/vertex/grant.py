"""The exchange of a service account's signed assertion for an access token (RFC 7523).

Source: developers.google.com/identity/protocols/oauth2/service-account. The assertion is good for an hour at most and
names Google's own token endpoint as its audience, whatever stands in for that. cryptography and PyJWT are loaded with
the first such account: a start without one need not wait for them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.language import lazy
from pool_server.providers.base import RefreshRejectedError
from pool_server.providers.credential import Credential, CredentialRejectedError
from pool_server.providers.oauth import token_answer
from pool_server.providers.requests import own_post
from pool_server.providers.times import HOUR

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

AUDIENCE = "https://oauth2.googleapis.com/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_CLOCK = "iat and exp"  # of the vendor's sentence for an assertion made by a clock that is wrong


@lru_cache(maxsize=256)
def signing_key(pem: str) -> RSAPrivateKey:
    """The key of a file. Raises CredentialRejectedError."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        key = None
    except Exception as wrong:  # cryptography's own exceptions have no common base
        raise CredentialRejectedError(lazy("private_key cannot be read: {name}", name=type(wrong).__name__)) from None
    if not isinstance(key, RSAPrivateKey):
        raise CredentialRejectedError(lazy("private_key is no RSA key in PEM form: use the file as Google made it"))
    return key


def request(cred: Credential, token_url: str, *, now: float) -> HttpRequest:
    """Asks for a token, with an assertion made now."""
    import jwt

    claims = {"iss": cred.user_id, "scope": SCOPE, "aud": AUDIENCE, "iat": int(now), "exp": int(now + HOUR)}
    headers = {"kid": cred.key_id} if cred.key_id else None
    assertion = jwt.encode(claims, signing_key(cred.private_key), algorithm="RS256", headers=headers)
    return own_post(token_url, urlencode({"grant_type": GRANT, "assertion": assertion}).encode())


def answer(told: HttpAnswer, *, now: float) -> tuple[str, object]:
    """The access token and its life in seconds as the vendor wrote it. Raises RefreshRejectedError."""
    try:
        data = token_answer(told, now=now, dead_statuses=frozenset((401,)))
    except RefreshRejectedError as refused:
        raise _worded(refused) from None
    if not data.get("access_token"):
        raise RefreshRejectedError(lazy("the token endpoint answered no token"))
    return data["access_token"], data.get("expires_in")


def _worded(refused: RefreshRejectedError) -> RefreshRejectedError:
    """The same in the words of a service account: there is no sign-in that could be made anew."""
    if _CLOCK in refused.reason:
        return RefreshRejectedError(lazy("the token endpoint finds this server's clock wrong: set it right"))
    if refused.permanent and not refused.suspended:
        reason = refused.reason.replace("the refresh token is refused", "the service account's key is refused")
        return RefreshRejectedError(
            lazy("{reason}; make a new key in the Google Cloud console", reason=reason), permanent=True
        )
    return refused
