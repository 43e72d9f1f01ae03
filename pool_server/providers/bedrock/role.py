"""A role that AWS access keys are traded for: the request to STS and its answer.

Source: docs.aws.amazon.com/STS, AssumeRole (version 2011-06-15; JSON where it is asked for, else XML). A session lives
an hour, which every role allows, also one that is assumed with a role's own keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.language import lazy
from pool_server.providers.base import RefreshRejectedError
from pool_server.providers.bedrock import signing
from pool_server.providers.credential import Credential, CredentialRejectedError, Fields
from pool_server.providers.oauth import OPERATOR_WAIT
from pool_server.providers.requests import FORM_TYPE, own_post
from pool_server.providers.times import HOUR, MINUTE, moment

SERVICE = "sts"
ASSUMED = "assumed"  # the field of a file that holds the session's own keys
LEAD = 5 * MINUTE
_SESSION_S = HOUR
_SESSION_NAME = "pool-server"  # stands in the account's CloudTrail
_ROLE = re.compile(r"arn:aws[a-z-]{0,20}:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}")
_EXTERNAL = re.compile(r"[A-Za-z0-9+=,.@:/_-]{2,1224}")
_KEY_ID = re.compile(r"[A-Z0-9]{16,128}")
_PARTS = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "Code", "Message")
_XML = {name: re.compile(rf"<{name}>([^<]{{1,8192}})</{name}>") for name in _PARTS}
_DEAD = frozenset(("InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException"))
_CLOCK = ("Signature expired", "Signature not yet current", "RequestExpired")


def named(fields: Fields) -> tuple[str, str]:
    """The role a file names and the external id it is assumed with, "" for none. Raises CredentialRejectedError."""
    role, external = fields.text("role_arn"), fields.text("external_id")
    if role and not _ROLE.fullmatch(role):
        raise CredentialRejectedError(lazy("role_arn must be as arn:aws:iam::123456789012:role/NAME"))
    if external and not (role and _EXTERNAL.fullmatch(external)):
        raise CredentialRejectedError(
            lazy("{name} is not a usable value", name="external_id") if role else lazy("external_id needs role_arn")
        )
    return role, external


def address(region: str, moved: str) -> str:
    """Where the role is assumed: the region's own endpoint, or the origin that stands for all of the vendor's."""
    return f"{moved or f'https://sts.{region}.amazonaws.com'}/"


def request(cred: Credential, url: str, region: str) -> HttpRequest:
    """Asks for a session, signed with the file's own keys."""
    form = {"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": cred.user_id, "RoleSessionName": _SESSION_NAME,
            "DurationSeconds": int(_SESSION_S)}  # fmt: skip
    if cred.project:
        form["ExternalId"] = cred.project
    asked = own_post(url, urlencode(form).encode())
    own = (cred.account_id, cred.private_key, cred.refresh_token)
    shown = signing.signed(own, SERVICE, region, "POST", url, asked.body, FORM_TYPE[1])
    return msgspec.structs.replace(asked, headers=(*asked.headers, *shown))


def answer(told: HttpAnswer, *, now: float) -> dict[str, Any]:
    """The session's keys as the file holds them. Raises RefreshRejectedError."""
    if not told.status:
        raise RefreshRejectedError(lazy("STS could not be reached: {error}", error=told.error or lazy("no connection")))
    found = _read(told.body)
    if not 200 <= told.status < 300:
        raise _refused(told.status, found, now)
    key_id, secret, session = (found.get(name) for name in _PARTS[:3])
    usable = all(isinstance(one, str) and one.isascii() and one.isprintable() and one for one in (secret, session))
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id) or not usable:
        raise RefreshRejectedError(lazy("STS answered no session that can be used"))
    ends = moment(found.get("Expiration")) or now + _SESSION_S
    return {"access_key_id": key_id, "secret_access_key": secret, "session_token": session, "expiration": ends}


def _read(body: bytes) -> Mapping[str, Any]:
    """The parts of an answer or an error, in JSON or XML."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:65536].decode("utf-8", "replace")
        return {name: match[1] for name, form in _XML.items() if (match := form.search(text)) is not None}
    for name in ("AssumeRoleResponse", "AssumeRoleResult", "Credentials", "Error"):
        if isinstance(data, dict) and isinstance(data.get(name), dict):
            data = data[name]
    return data if isinstance(data, dict) else {}


def _refused(status: int, found: Mapping[str, Any], now: float) -> RefreshRejectedError:
    code, words = str(found.get("Code") or status)[:80], " ".join(str(found.get("Message") or "").split())[:300]
    if any(said in words or said in code for said in _CLOCK):
        return RefreshRejectedError(lazy("STS finds this server's clock wrong: set it right"))
    said = (
        lazy("STS refuses the role ({code}): {words}", code=code, words=words)
        if words
        else lazy("STS refuses the role ({code})", code=code)
    )
    if code in _DEAD:
        return RefreshRejectedError(lazy("{said}; make new access keys", said=said), permanent=True)
    if status >= 500 or status in (408, 429) or code.startswith("Throttl"):
        return RefreshRejectedError(said)
    return RefreshRejectedError(
        lazy("{said}; see the role's trust and permissions", said=said), retry_at=now + OPERATOR_WAIT
    )
