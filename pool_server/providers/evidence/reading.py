"""Reading error answers: what a body says, whatever its shape. Source of the shapes: the vendors' observed answers."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.lenient_json import BLANK, page_title, read_any
from pool_server.providers.redact import short

_TEXTS = ("message", "error_description", "description", "status_msg")
READ = 262144  # an error body is read no further
_CHALLENGE = re.compile(
    rb"cf-chl|cf_chl|challenge-platform|just a moment\.\.\.|attention required! \| cloudflare", re.I
)


class ErrorFacts(msgspec.Struct, frozen=True):
    """What an error body says. `code`, `kind` and `reason` are lower case ("" when absent); `error` is the error
    object, `data` the whole body."""

    code: str = ""
    kind: str = ""  # error.type, or Google's error.status
    message: str = ""
    html: bool = False
    error: dict[str, Any] = {}
    reason: str = ""  # of Google's ErrorInfo
    data: dict[str, Any] = {}

    def says(self, *words: str) -> bool:
        """Is one of `words` the code or the type?"""
        return self.code in words or self.kind in words

    def at(self, path: str) -> object:
        """The value at a dotted path of the error object, or else of the body; None when there is none."""
        for root in (self.error, self.data):
            value: object = root
            for name in path.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            if value is not None:
                return value
        return None


def read_error(headers: Mapping[str, str], body: bytes) -> ErrorFacts:
    """The facts of an error body: JSON objects in the vendors' shapes, wrapped in a list or a stream event, with a
    JSON text as message; plain text; HTML. Never raises."""
    head = body[:READ]
    kind = headers.get("content-type", "").lower()
    start = head[:512].lstrip(BLANK).lower()
    page = page_title(head, labelled="text/html" in kind)
    data = _decode(body) if start[:1] in (b"{", b"[") else None
    if data is None:
        data = _header_error(headers)
    code = _word(headers.get("x-openai-authorization-error")) or _word(headers.get("x-amzn-errortype"))
    if data is None:
        message = head[:4096].decode("utf-8", "replace") if page is None else page
        return ErrorFacts(code=code, message=message, html=page is not None)
    return _object_facts(data, code)


def _decode(raw: bytes | str) -> dict[str, Any] | None:
    if len(raw) > 8 * READ:
        return None
    data = read_any(raw)
    while isinstance(data, list) and data:
        data = data[0]
    return data if isinstance(data, dict) else None


def _header_error(headers: Mapping[str, str]) -> dict[str, Any] | None:
    """ChatGPT's backend puts the error of some answers into a header, base64 JSON."""
    value = headers.get("x-error-json", "")
    if not value:
        return None
    try:
        return _decode(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return None


def _object_facts(data: dict[str, Any], code: str) -> ErrorFacts:
    error = _error_object(data)
    message = next((text for key in _TEXTS if (text := _text(error.get(key)))), "")
    inner = _decode(message) if message.lstrip()[:1] in ("{", "[") else None
    if inner is not None:  # Google wraps an error in an error's message
        nested = _error_object(inner)
        error = {**error, **nested}
        message = _text(nested.get("message")) or message
    return ErrorFacts(
        code=_word(error.get("code")) or _word(error.get("status_code")) or code,
        kind=_word(error.get("type")) or _word(error.get("status")),
        message=message,
        error=error,
        reason=_reason(error),
        data=data,
    )


def _error_object(data: dict[str, Any]) -> dict[str, Any]:
    response = data.get("response")
    candidates = (
        data.get("error"),
        response.get("error") if isinstance(response, dict) else None,
        data.get("detail"),
    )
    for found in candidates:
        if isinstance(found, dict):
            return found
        if isinstance(found, str) and found:
            more = data.get("error_description") or data.get("message")
            text = more if isinstance(more, str) else found
            code = data.get("code") or (found if " " not in found else "")
            return {"code": code, "type": data.get("type"), "message": text}
    body = data.get("body")
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return dict(body["error"])
    base = data.get("base_resp")
    return base if isinstance(base, dict) else data


def _reason(error: dict[str, Any]) -> str:
    details = error.get("details")
    for detail in details[:50] if isinstance(details, list) else ():
        if isinstance(detail, dict) and _text(detail.get("@type")).endswith(".ErrorInfo"):
            return _word(detail.get("reason"))
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _word(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 600 <= value < 10**12 else ""  # lower ones repeat the status
    return value.strip().lower()[:120] if isinstance(value, str) else ""


def message_of(facts: ErrorFacts, status: int) -> str:
    """A short redacted line for people, also when the provider sent none."""
    return short(facts.message) or short((facts.code or facts.kind)[:120]) or untold(status)


def untold(status: int) -> str:
    """What stands for the words of a provider that sent none."""
    return f"status {status}"


def is_challenge(status: int, headers: Mapping[str, str], body: bytes, facts: ErrorFacts) -> bool:
    """A bot check instead of an answer: `cf-mitigated`, a challenge page, or any HTML with 403."""
    if status not in (403, 429, 503):
        return False
    if "cf-mitigated" in headers:
        return True
    return facts.html and (status == 403 or _CHALLENGE.search(body[:READ]) is not None)
