"""What passes between the data plane and the answers it gives without a provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pool_server.core.enums import Dialect, Provider
from pool_server.users import Principal

Json = dict[str, Any]
Headers = list[tuple[str, str]]


class LocalRequest(msgspec.Struct):
    """A call the pool answers itself. `path` has no provider prefix, `headers` lower-case names, `query` no key.

    `base_url` is the pool's own origin as the client sees it, `dialect` the one errors are told in. `principal` is None
    for a call open to all.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    principal: Principal | None
    forced: Provider | None
    base_url: str
    dialect: Dialect

    def json(self) -> Any:
        """The body as JSON; {} when it is none."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}


class LocalAnswer(msgspec.Struct):
    status: int
    headers: Headers
    body: bytes = b""


def answer(body: Any, status: int = 200, *headers: tuple[str, str]) -> LocalAnswer:
    """A JSON answer."""
    return LocalAnswer(status, [("Content-Type", "application/json"), *headers], msgspec.json.encode(body))


def empty(status: int = 204) -> LocalAnswer:
    """An answer without a body."""
    return LocalAnswer(status, [])
