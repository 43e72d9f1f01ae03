"""A credential as a file in the pool folder holds it, and the careful reading of such files."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pool_server.core.enums import CredentialKind, Dialect, Provider
from pool_server.language import LazyText, lazy
from pool_server.providers.redact import HIDDEN
from pool_server.providers.times import moment, number

_LONGEST = 65536  # no token or field of a credential is longer
_SHORTEST = 6  # characters of a secret worth looking for; a shorter one would be found in ordinary words

_MOST_NAMES, _LONGEST_NAME = 200, 200  # of models an account calls otherwise, and of one


class CredentialRejectedError(Exception):
    """A credential file that cannot be used. The text is one line without anything secret."""

    def __init__(self, said: LazyText) -> None:
        super().__init__(said)


class KeyAuth(StrEnum):
    """How an API key is shown to its endpoint: the header, or a bearer token in `Authorization`."""

    X_API_KEY = "x-api-key"
    BEARER = "bearer"
    API_KEY = "api-key"
    GOOGLE = "x-goog-api-key"
    NONE = "none"
    SIGNED = "sigv4"  # the key signs each request and is not in it


class Credential(msgspec.Struct, frozen=True):
    """What is needed to speak for one account. Times are unix seconds; `repr` shows nothing secret.

    `account` is the id ("claude:work"). `account_id` is the ChatGPT account (workspace) id, `project` the Code Assist
    project, `tier` the provider's finer word for the plan. `models` are the names or fnmatch patterns it is limited to;
    empty = all; `renames` the models it has under names of its own, as (asked for, sent up). Of an API key: `base_url`
    is the endpoint of its own ("" = the vendor's; `exact_base` = nothing but the operation is appended), `dialects` it
    is asked in, `guessed` those of them its file does not name and which are asked for only where no other account
    serves them, `places` what stands for the variable parts of its vendor's hosts; `public_only`: its endpoint was
    named by somebody who may not reach the pool's own network. `expires_at` and `issued_at` speak of the access token;
    None = not known. `last_refresh` is what the file says.
    `private_key` (PEM) of a service account, whose e-mail address is `user_id`, is traded for access tokens. `key_id`
    is its vendor's name for that key, or for an API key that signs requests (AWS; `access_token` is its session's). Of
    an AWS role (`user_id`, with `project` as its external id) these and `api_key` are the session's, traded for the
    file's own key: `account_id`, `private_key` and, where it is a session's, `refresh_token`.
    `admin_key` is the API key's companion: it is shown to the vendor's report of what was spent, and to nothing else.
    `login_ends` is when the sign-in itself ends, which no refresh puts off.
    """

    provider: Provider
    account: str
    kind: CredentialKind
    access_token: str = ""
    refresh_token: str = ""
    private_key: str = ""
    key_id: str = ""
    expires_at: float | None = None
    issued_at: float | None = None
    last_refresh: float | None = None
    login_ends: float | None = None
    api_key: str = ""
    admin_key: str = ""
    base_url: str = ""
    exact_base: bool = False
    public_only: bool = False
    dialects: tuple[Dialect, ...] = ()
    guessed: tuple[Dialect, ...] = ()
    auth: KeyAuth = KeyAuth.BEARER
    places: tuple[tuple[str, str], ...] = ()
    models: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    plan: str = ""
    tier: str = ""
    account_id: str = ""
    user_id: str = ""
    project: str = ""
    resource_url: str = ""
    email: str = ""
    fedramp: bool = False
    scopes: tuple[str, ...] = ()

    @property
    def secret(self) -> str:
        """The value that goes upstream."""
        return self.api_key if self.kind is CredentialKind.API_KEY else self.access_token

    def own_name(self, model: str) -> str:
        """What the account itself calls a model."""
        return next((own for asked, own in self.renames if asked == model), model)

    @property
    def can_refresh(self) -> bool:
        return bool(self.private_key or (self.kind is CredentialKind.OAUTH and self.refresh_token))

    @property
    def grant(self) -> str:
        """What is traded for access tokens: a refresh token, or a service account or role where it works; "" for
        none."""
        if self.private_key:
            return "\0".join((self.private_key, self.user_id, self.project, *(value for _, value in self.places)))
        return self.refresh_token if self.can_refresh else ""

    @property
    def grant_key(self) -> str:
        """The name of its grant, which tells nothing of it; "" when there is none."""
        grant = self.grant
        return hashlib.sha256(grant.encode("utf-8", "surrogatepass")).hexdigest()[:32] if grant else ""

    @property
    def sign_in_ends(self) -> float | None:
        """When its owner has to sign in again whatever the pool does (unix seconds); None = nobody knows of an end."""
        return self.expires_at if self.kind is CredentialKind.SETUP_TOKEN else self.login_ends

    @property
    def traits(self) -> tuple[Any, ...]:
        """Everything a provider looks at to tell which models and operations an account serves: accounts of one
        provider with equal traits are alike for that question."""
        return (
            self.kind, self.base_url, self.exact_base, self.dialects, self.guessed, self.auth, self.places,
            self.models, self.renames, self.plan, self.tier, self.resource_url, self.fedramp, self.scopes,
            bool(self.project),
        )  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """A short name of the very token that goes upstream; it tells nothing of the token."""
        return fingerprint(self.secret)

    def hide(self, data: bytes) -> bytes:
        """`data` without this account's own tokens and keys, whatever their form: a careless upstream may echo what
        it was sent. Data that holds none comes back as it is."""
        for value in self._secrets():
            if (raw := value.encode("utf-8", "replace")) in data:
                data = data.replace(raw, HIDDEN.encode())
        return data

    def hide_text(self, text: str) -> str:
        """The same for text."""
        for value in self._secrets():
            text = text.replace(value, HIDDEN)
        return text

    def _secrets(self) -> list[str]:
        return [
            one
            for one in (self.access_token, self.refresh_token, self.private_key, self.api_key, self.admin_key)
            if len(one) >= _SHORTEST
        ]

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [
            ("account", self.account),
            ("kind", self.kind.value),
            ("plan", self.plan),
            ("expires_at", self.expires_at),
            ("fingerprint", self.fingerprint),
        ]

    def __repr__(self) -> str:
        return f"Credential({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def fingerprint(token: str) -> str:
    """Twelve hex digits naming a token, "" for no token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()[:12] if token else ""


def jwt_claims(token: str) -> dict[str, Any]:
    """The claims inside a JWT, unverified (the vendor verifies its own); {} for anything else."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST:
        return {}
    try:
        raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(raw)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


class Fields:
    """Reads typed fields of one JSON object of a credential file; a wrong type is `CredentialRejectedError` by the
    field's
    name."""

    def __init__(self, data: object, where: str = "") -> None:
        if not isinstance(data, Mapping):
            what = where.rstrip(".") or lazy("the file")
            raise CredentialRejectedError(lazy("{what} is not a JSON object", what=what))
        self.data = data
        self._where = where

    def text(self, *names: str) -> str:
        """The first of `names` that holds text, stripped; "" when none is there."""
        for name in names:
            value = self.data.get(name)
            if value is None:
                continue
            if not isinstance(value, str):
                raise CredentialRejectedError(lazy("{name} must be a text", name=self._where + name))
            value = value.strip()
            if len(value) > _LONGEST or not value.isprintable():
                raise CredentialRejectedError(lazy("{name} is not a usable value", name=self._where + name))
            if value:
                return value
        return ""

    def token(self, *names: str) -> str:
        """Like `text`, for what travels in a header: printable ASCII without spaces."""
        value = self.text(*names)
        if not value.isascii() or " " in value:
            raise CredentialRejectedError(lazy("{name} is not a usable token", name=self._where + names[0]))
        return value

    def when(self, name: str) -> float | None:
        """A moment (seconds, milliseconds or RFC 3339) as unix seconds; absent, null, 0 or "" = None."""
        value = self.data.get(name)
        if value is None or value == "" or (value == 0 and not isinstance(value, bool)):
            return None
        at = moment(value)
        if at is None:
            raise CredentialRejectedError(lazy("{name} is not a moment in time", name=self._where + name))
        return at

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; one text with spaces between, as OAuth writes scopes, is a list too."""
        value = self.data.get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            return tuple(value.split())
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise CredentialRejectedError(lazy("{name} must be a list of texts", name=self._where + name))
        return tuple(item for item in value if item)

    def names_for(self, name: str) -> tuple[tuple[str, str], ...]:
        """An object of texts, each name with what stands for it."""
        value = self.data.get(name)
        if value is None:
            return ()
        if not isinstance(value, dict) or len(value) > _MOST_NAMES:
            raise CredentialRejectedError(
                lazy(
                    "{name} must be an object of at most {most} texts",
                    name=self._where + name,
                    most=_MOST_NAMES,
                )
            )
        for asked, own in value.items():
            if not (asked and isinstance(own, str) and own and max(len(asked), len(own)) <= _LONGEST_NAME):
                raise CredentialRejectedError(
                    lazy(
                        "{name} must hold names of 1 to {most} characters",
                        name=self._where + name,
                        most=_LONGEST_NAME,
                    )
                )
        return tuple(value.items())

    def inner(self, name: str) -> Fields | None:
        """The object in `name`, None when absent or null."""
        value = self.data.get(name)
        return None if value is None else Fields(value, f"{self._where}{name}.")

    def url(self, *names: str, scheme: str = "") -> str:
        """An http or https address without a trailing slash; `scheme` is added where none is written."""
        value = self.text(*names)
        if not value:
            return ""
        if scheme and "://" not in value:
            value = f"{scheme}://{value}"
        if not usable_url(value):
            raise CredentialRejectedError(lazy("{name} is not an http or https address", name=self._where + names[0]))
        return value.rstrip("/")

    def has(self, name: str) -> bool:
        return name in self.data

    def given(self, name: str) -> bool:
        """Is there a value that says something?"""
        return self.data.get(name) not in (None, "")

    def names(self) -> list[str]:
        return [name for name in self.data if isinstance(name, str)]


def model_listed(cred: Credential, model: str) -> bool:
    """Is the model among those the credential is limited to (names or fnmatch patterns)?"""
    return not cred.models or not model or any(fnmatchcase(model.lower(), item.lower()) for item in cred.models)


def google_login(provider: Provider, account: str, fields: Fields) -> Credential | None:
    """The sign-in in the form of Gemini's CLI, which Qwen's has taken over; None when neither token is there.

    Without a refresh token it serves until it ends; without an access token it is refreshed at once.
    """
    access, refresh = fields.token("access_token"), fields.token("refresh_token")
    if not access and not refresh:
        return None
    return Credential(
        provider,
        account,
        CredentialKind.OAUTH if refresh else CredentialKind.SETUP_TOKEN,
        access_token=access,
        refresh_token=refresh,
        expires_at=fields.when("expiry_date") if access else 0.0,
    )


def usable_url(value: str) -> bool:
    """An http(s) address of a host, without user, query and fragment."""
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port_ok and plain and " " not in value


def lifetime_end(expires_in: object, *, now: float, default: float) -> float:
    """When a token ends that an OAuth answer gave `expires_in` (seconds, number or text) to live."""
    seconds = number(expires_in)
    if seconds is None or seconds <= 0:
        seconds = default
    return now + min(seconds, 10 * 365 * 86400)
