"""HTML forms: their fields as the JSON a program would send, and the answer to one that is sent a second time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import zlib
from asyncio import Future
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tornado.httputil import HTTPConnection, HTTPHeaders, RequestStartLine, ResponseStartLine
from tornado.web import RequestHandler

from pool_server.http1.tornado import TornadoConnection
from pool_server.users.identity.tickets import Tickets

_LISTS = frozenset({"providers", "models"})  # limits that name things; every other limit is a number
_KEPT_EMPTY = frozenset(
    {"name", "note", "new", "current", "label", "owner", "proxy_url", "models", "people", "groups", "wait"}
)  # empty says something; elsewhere it means "not given"


def nested(fields: Mapping[str, str]) -> dict[str, Any]:
    """`{"limits.tokens_day": "5"}` → `{"limits": {"tokens_day": 5}}`.

    Names that begin with `_` are the page's own; `_limits` says that these are all limits, were every field empty.
    `none.limits.X` (a ticked box) means no limit; what `_cleared` names is taken away where it is empty, and
    what `_percent` names is a share that a person writes in percent. Raises
    ValueError in one line for a limit that is no number.
    """
    percent = fields.get("_percent", "").split()
    body: dict[str, Any] = {"limits": {}} if "_limits" in fields else {}
    for name, value in fields.items():
        if name.startswith(("_", "none.")) or (value == "" and name not in _KEPT_EMPTY):
            continue
        group, _, limit = name.partition(".")
        if limit:
            body.setdefault(group, {})[limit] = _term(value) if group == "terms" else _limit(limit, value)
        else:
            body[name] = _number(name, value) / 100 if name in percent else value
    body |= {name: None for name in fields.get("_cleared", "").split() if fields.get(name) == ""}
    for name in fields:
        if name.startswith("none."):
            group, _, limit = name.removeprefix("none.").partition(".")
            body.setdefault(group, {})[limit] = None
    return body


def _term(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value, value)


def _limit(name: str, value: str) -> int | float | list[str]:
    return value.replace(",", " ").split() if name in _LISTS else _number(name, value)


def _number(name: str, value: str) -> int | float:
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number") from None


SENT_S = 300.0  # how long the answer to a form is kept
WAIT_S = 60.0  # how long one that is sent again waits for the first one's answer
_LOOK_S = 0.1
_UNDONE = "undone"  # in place of an answer: it was refused or failed, and may be tried again
_NONCE = 12  # bytes


class FormAnswer(msgspec.Struct, array_like=True):
    """An answer as it went out: its status, headers with cookies, and body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def give(self, handler: RequestHandler) -> None:
        """Finish `handler` with this."""
        handler.set_status(self.status)
        for name, value in self.headers:
            (handler.add_header if name == "Set-Cookie" else handler.set_header)(name, value)
        handler.finish(self.body)


class KeptConnection(HTTPConnection):
    """Passes an answer on, and keeps it as `answer`."""

    def __init__(self, connection: TornadoConnection) -> None:
        self.answer: FormAnswer | None = None
        self._connection = connection

    def write_headers(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders, chunk: bytes | None = None
    ) -> Future[None]:
        assert isinstance(start_line, ResponseStartLine)
        self.answer = FormAnswer(start_line.code, list(headers.get_all()), chunk or b"")
        return self._connection.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> Future[None]:
        if self.answer is not None:
            self.answer.body += chunk
        return self._connection.write(chunk)

    def finish(self) -> None:
        self._connection.finish()

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        self._connection.set_close_callback(callback)


class Sending:
    """One form that must not do twice what it does: of a double click the browser keeps the second answer alone.

    It is known by all that it says, its own name included, in every process and machine. Its answer may hold a
    secret, and is kept under a key that only the form's name gives.
    """

    def __init__(self, tickets: Tickets, path: str, form: bytes, name: str) -> None:
        self.kept: KeptConnection | None = None  # what it is answered by
        self._tickets = tickets
        self._mark = "form " + hashlib.sha256(path.encode() + b"\0" + form).hexdigest()
        self._cipher = AESGCM(hashlib.sha256(b"answer to a form\0" + name.encode("utf-8", "surrogatepass")).digest())

    async def earlier(self) -> FormAnswer | None:
        """The answer it got before; None for the first time, or after it did nothing. Raises TimeoutError where
        neither is known in time: its process has died, or still works on it."""
        if await self._tickets.once(self._mark, SENT_S):
            return None
        async with asyncio.timeout(WAIT_S):
            said = await self._tickets.left(self._mark)
            while said is None:  # the other may be another process: nothing here can tell when it is done
                await asyncio.sleep(_LOOK_S)
                said = await self._tickets.left(self._mark)
        if said == _UNDONE:
            return None
        await self._tickets.leave(self._mark, said, SENT_S)
        return self._opened(said)

    async def done(self) -> None:
        """What was sent is what it gets whenever it comes again; a refusal is asked for anew."""
        sent = self.kept.answer if self.kept is not None else None
        kept = _UNDONE if sent is None or sent.status >= 400 else self._sealed(sent)
        await self._tickets.leave(self._mark, kept, SENT_S)

    def _sealed(self, sent: FormAnswer) -> str:
        nonce = secrets.token_bytes(_NONCE)
        body = self._cipher.encrypt(nonce, zlib.compress(msgspec.msgpack.encode(sent), 1), None)
        return base64.b64encode(nonce + body).decode()

    def _opened(self, said: str) -> FormAnswer:
        raw = base64.b64decode(said)
        return msgspec.msgpack.decode(
            zlib.decompress(self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], None)), type=FormAnswer
        )
