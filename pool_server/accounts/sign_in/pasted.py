"""The address or code that somebody pastes after signing in with a browser. Pure; nothing of it is ever logged."""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from html import unescape
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from pool_server.language import LazyText, lazy

MOST = 8192
_UNSEEN = re.compile("[\u0000-\u0020\u007f-\u00a0\u00ad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]")
_LABEL = re.compile(r"^(?:code|authorizationcode|url|address|callback)[:=](?!//)", re.IGNORECASE)
_CODE = re.compile(r"[A-Za-z0-9._~+/=-]{8,4096}")


class PastedCodeError(Exception):
    """What was pasted is no code of this sign-in. `code` is one word for programs."""

    def __init__(self, code: str, message: LazyText) -> None:
        super().__init__(message)
        self.code = code


class PastedCode(NamedTuple):
    """`error` is the vendor's own word where its page refused; then there is no code."""

    code: str = ""
    error: str = ""
    description: str = ""


def read_code(text: str, *, redirects: Collection[str], state: str | None, others: Collection[str] = ()) -> PastedCode:
    """The code in a pasted text. `redirects` are the addresses the browser may have been sent to, `state` this
    sign-in's own, `others` those of other sign-ins that are open. Raises PastedCodeError."""
    if len(text) > MOST:
        raise PastedCodeError("too_long", lazy("that is too long; copy the browser's address alone"))
    value = _LABEL.sub("", unescape(_UNSEEN.sub("", text)).strip("\"'`<>“”‘’"))
    if words := _instead(value):
        raise PastedCodeError(*words)
    if "://" in value[:12]:
        return _of_address(value, redirects, state, others)
    if value.startswith("?") or re.match(r"(?:code|state|error)=", value):
        return _of_query(value.lstrip("?"), state, others)
    value = re.sub(r"%(23|26|3[dD])", lambda found: chr(int(found[1], 16)), value)
    code, hash_, given = value.partition("#")
    if hash_:
        _check_state(given.partition("&")[0].removeprefix("state="), state, others)
    if not _CODE.fullmatch(code):
        raise PastedCodeError("no_code", lazy("there is no code in it; copy the whole address from the browser"))
    return PastedCode(code)


def _instead(value: str) -> tuple[str, LazyText] | None:
    """What a text is that cannot be a code: (word, sentence)."""
    if not value:
        return "empty", lazy("nothing was pasted")
    if "id_token=" in value:
        return (
            "caught",
            lazy(
                "another sign-in on that machine caught the answer, and this address holds its tokens: close that "
                "sign-in and start again"
            ),
        )
    if value[0] in "{[":
        return "file", lazy("this is a credential file: add it by pasting it as a credential")
    if value.startswith("sk-"):
        return "key", lazy("this is a key or a token: add it by pasting it as a credential")
    if value.isdigit() and 4 <= len(value) <= 10:
        return "phone", lazy("this is the code of an e-mail or a phone: it belongs into the vendor's page")
    if value.lower().startswith("mailto:") or "@" in value.partition("?")[0].partition("/")[0]:
        return "mail", lazy("this is an e-mail address or link; copy the browser's address")
    return None


def _of_address(value: str, redirects: Collection[str], state: str | None, others: Collection[str]) -> PastedCode:
    try:
        parts = urlsplit(value)
    except ValueError:
        raise PastedCodeError("no_address", lazy("this address cannot be read; copy it again")) from None
    place = f"{parts.scheme}://{parts.netloc}{parts.path}".lower()
    if place not in {one.lower() for one in redirects}:
        wanted = min(redirects, key=len) if redirects else "localhost"
        raise PastedCodeError(
            "other_page",
            lazy(
                "this is the address of another page; copy the one that begins with {host}",
                host=urlsplit(wanted).netloc,
            ),
        )
    return _of_query("&".join(filter(None, (parts.query, parts.fragment))), state, others)


def _of_query(query: str, state: str | None, others: Collection[str]) -> PastedCode:
    pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=64) if query.count("&") < 64 else []
    fields: dict[str, str] = {}
    for name, given in pairs:
        if name in ("code", "state") and name in fields:
            raise PastedCodeError("twice", lazy("this address names its code twice; copy it again"))
        fields[name] = given
    if "state" in fields:  # without it the code is a bare one, which this sign-in's own verifier binds
        _check_state(fields["state"], state, others)
    if error := fields.get("error", ""):
        return PastedCode(error=error, description=fields.get("error_description", ""))
    if not _CODE.fullmatch(fields.get("code", "")):
        raise PastedCodeError("no_code", lazy("there is no code in it; copy the whole address from the browser"))
    return PastedCode(fields["code"])


def _check_state(given: str, state: str | None, others: Collection[str]) -> None:
    if state is None or hmac.compare_digest(given.encode("utf-8", "replace"), state.encode()):
        return
    if any(hmac.compare_digest(given.encode("utf-8", "replace"), other.encode()) for other in others):
        raise PastedCodeError("other_sign_in", lazy("this address is of another sign-in of yours; paste it there"))
    raise PastedCodeError(
        "state", lazy("this address is of another sign-in or an earlier try; start here and copy the new one")
    )
