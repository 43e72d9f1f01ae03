"""Errors of one dialect told in another: the vendor's words in the client's own form."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pool_server.core.enums import ApiFamily, Dialect
from pool_server.core.lenient_json import page_title, read_answer
from pool_server.dialects.chat import STATUS as CHAT_STATUS
from pool_server.dialects.chat import fault_in
from pool_server.dialects.gemini import STATUS as GEMINI_STATUS
from pool_server.dialects.messages import STATUS as MESSAGES_STATUS
from pool_server.dialects.specs import SPECS
from pool_server.dialects.translation.fields import JSON
from pool_server.dialects.translation.neutral import ErrorInfo
from pool_server.dialects.types import status_of

# What vendors say of a prompt that is longer than the model reads, or than one minute of the account's plan allows.
_TOO_LONG = re.compile(
    r"context.?(?:length|window|size|limit)|maximum (?:context|prompt|model) length|max_seq_len|max message tokens"
    r"|(?:prompt|input) (?:is too long|exceeds? max)|input token (?:count|length)|too many (?:input )?tokens"
    r"|prompt token count|range of input length|exceed(?:s|ed)? model token limit|total message size"
    r"|`?inputs`? (?:tokens \+|must have less)|request exceeds the maximum|request too large for "
    r"|(?<!output )(?<!completion )\btokens? exceeds? the max",
    re.IGNORECASE,
)
_TOO_LONG_CODES = ("exceed_context_size_error", "model_max_prompt_tokens_exceeded", "1261")
_TOKENS = re.compile(r"tokens?\b", re.IGNORECASE)
_STATUS = MESSAGES_STATUS | GEMINI_STATUS | CHAT_STATUS
_ANTHROPIC = {status: name for name, status in reversed(MESSAGES_STATUS.items())}
_GOOGLE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
_OPENAI = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("invalid_request_error", "not_found"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
_LONGEST = 4000  # characters of a vendor's message
_SAID = ("message", "Message", "msg", "error_msg", "errorMessage", "status_msg", "error", "errors", "detail", "title")
_DEEPEST = 4


def read_error(status: int, body: bytes | dict[str, Any]) -> ErrorInfo:
    """What a vendor's error says, in any dialect. `status` 0 takes the status from the error's own labels."""
    found: Any = body
    if isinstance(body, bytes):
        found = read_answer(body, JSON)
        if found is None:
            title = page_title(body)
            found = body[:_LONGEST].decode("utf-8", "replace").strip() if title is None else _page(title)
    if isinstance(found, list) and found:  # Google sends a list where a stream was asked for
        found = found[0]
    if isinstance(found, dict) and isinstance(found.get("response"), dict) and found["response"].get("error"):
        found = found["response"]
    outer = found if isinstance(found, dict) else {}
    error = fault_in(outer)
    inner = error if isinstance(error, dict) else outer
    message = _message(inner, error, outer.get("detail"), found)
    kind, code = _label(inner.get("type")), _label(inner.get("code"))
    told = status or status_of(_STATUS, inner.get("code"), inner.get("status"), inner.get("type"), default=500)
    if _too_long(told, message, kind, code):
        # A client cuts its conversation short after 400; 413 and 422 it repeats, or takes for too many bytes.
        told, code = told if told == 413 and not _TOKENS.search(message) else 400, "context_length_exceeded"
    return ErrorInfo(told, message, kind, code, _retry_after(inner))


def _page(title: str) -> str:
    return f"{title or 'No reason was given'} (a page of something before the vendor's API, not of the API itself)"


def _too_long(status: int, message: str, kind: str, code: str) -> bool:
    if status == 429:  # one request alone is more than a minute's tokens: no wait makes it smaller
        return kind == "tokens" and message.startswith("Request too large for ")
    if status not in (400, 413, 422):
        return False
    return kind in _TOO_LONG_CODES or code in _TOO_LONG_CODES or _TOO_LONG.search(message) is not None


def _message(inner: dict[str, Any], error: Any, detail: Any, found: Any) -> str:
    for value in (inner, error, detail, found):
        if said := _words(value):
            return said[:_LONGEST]
    if isinstance(detail, (dict, list)):
        return msgspec.json.encode(detail).decode()[:_LONGEST]
    return "The upstream gave no reason."


def _words(value: Any, deep: int = 0) -> str:
    """What an error says, under whatever name; a relay may have put the error of another within a text."""
    if isinstance(value, str):
        said = value.strip()
        within = read_answer(said[:_LONGEST].encode("utf-8", "replace"), JSON) if said.startswith("{") else None
        return (_words(within, deep + 1) if isinstance(within, dict) else "") or said
    if deep > _DEEPEST:
        return ""
    if isinstance(value, list) and value:
        if isinstance(value[0], dict) and "loc" in value[0]:  # pydantic's: where it is says as much as what
            return msgspec.json.encode(value).decode()
        return _words(value[0], deep + 1)
    if isinstance(value, dict):
        return next((said for name in _SAID if (said := _words(value.get(name), deep + 1))), "")
    return ""


def _label(value: Any) -> str:
    return value[:100] if isinstance(value, str) else ""


def _retry_after(error: dict[str, Any]) -> float | None:
    """Seconds an error's own body says to wait: Codex's `resets_in_seconds`, Google's RetryInfo."""
    seconds = error.get("resets_in_seconds")
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < 1e9:
        return float(seconds)
    details = error.get("details")
    for each in details if isinstance(details, list) else ():
        delay = each.get("retryDelay") if isinstance(each, dict) else None
        if isinstance(delay, str) and re.fullmatch(r"\d{1,9}(\.\d+)?s", delay):
            return float(delay[:-1])
    return None


def error_body(client: Dialect, error: ErrorInfo, *, field: str | None = None) -> dict[str, Any]:
    """The error as the client's dialect writes one; `field` is the parameter at fault."""
    family = SPECS[client].family
    if family is ApiFamily.ANTHROPIC:
        return {"type": "error", "error": {"type": anthropic_type(error.status), "message": _for_claude(error)}}
    if family is ApiFamily.GOOGLE:
        status = _GOOGLE.get(error.status, "UNAVAILABLE" if error.status >= 500 else "FAILED_PRECONDITION")
        shape: dict[str, Any] = {"code": error.status, "message": error.message, "status": status}
        if error.retry_after is not None:
            kind = "type.googleapis.com/google.rpc.RetryInfo"
            shape["details"] = [{"@type": kind, "retryDelay": f"{error.retry_after:g}s"}]
        return {"error": shape}
    kind, code = openai_labels(error)
    return {"error": {"message": error.message, "type": kind, "param": field, "code": code}}


def openai_labels(error: ErrorInfo) -> tuple[str, str]:
    """(type, code)."""
    fallback = ("server_error", "server_error") if error.status >= 500 else ("invalid_request_error", "invalid_request")
    kind, code = _OPENAI.get(error.status, fallback)
    return kind, error.code or code


def anthropic_type(status: int) -> str:
    if status in _ANTHROPIC:
        return _ANTHROPIC[status]
    if status in (502, 503):
        return "overloaded_error"
    return "api_error" if status >= 500 else "invalid_request_error"


def _for_claude(error: ErrorInfo) -> str:
    """Clients of the Messages API know a full context by these words."""
    if error.code == "context_length_exceeded" and "prompt is too long" not in error.message.lower():
        return f"prompt is too long: {error.message}"
    return error.message
