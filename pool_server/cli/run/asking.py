"""A pool's own API, as the programs of a friend's machine call it."""

from __future__ import annotations

import http.cookiejar
import json
import urllib.error
import urllib.request
from typing import Any, NoReturn

import click

from pool_server.cli.run import pools

TIMEOUT_S = 30.0
MODEL_TIMEOUT_S = 5.0  # a run does not wait longer for the pool to name a model


def usable_model(found: pools.PoolKey) -> tuple[str, str]:
    """The model that the pool serves somebody now through Chat Completions, and what to tell where there is none."""
    try:
        pool = PoolClient(found.url, key=found.key, timeout_s=MODEL_TIMEOUT_S)
        told = pool.call("GET", "/api/usable")
    except click.ClickException as error:
        return "", error.message
    model = told.get("model")
    model = model if isinstance(model, str) and model.isprintable() else ""
    if told.get("served") is True:
        return model, ""
    return model, f"the pool at {found.url} serves you no model now; it says more on its page"


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows nothing: what is sent is meant for one address."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> NoReturn:
        raise click.ClickException(f"the pool sends elsewhere, to {newurl[:200]!r}: use that address if it is right")


class PoolClient:
    """A pool's own API, with a session's cookies, or with a key."""

    def __init__(self, base: str, *, key: str = "", timeout_s: float = TIMEOUT_S) -> None:
        self._base, self._key, self._timeout_s = base, key, timeout_s
        self._cookies = http.cookiejar.CookieJar()
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPCookieProcessor(self._cookies), _StayHere()]
        if not pools.in_the_clear(base) and base.startswith("http://"):
            handlers.append(urllib.request.ProxyHandler({}))  # none stands between a machine and itself
        self._opener = urllib.request.build_opener(*handlers)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's JSON. Raises click.ClickException with the pool's own words."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, method=method, data=data)
        request.add_header("Content-Type", "application/json")
        request.add_header("Accept", "application/json")
        if self._key:
            request.add_header("Authorization", f"Bearer {self._key}")
        token = next((cookie.value for cookie in self._cookies if cookie.name == "_xsrf"), None)
        if token:
            request.add_header("X-XSRFToken", token)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                found = json.loads(answer.read(pools.MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise click.ClickException(f"the pool says: {_words(error)} ({error.code})") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise click.ClickException(f"no pool answers at {self._base}: {reason}") from None
        if not isinstance(found, dict):
            raise click.ClickException(f"no pool answers at {self._base}: its answer is not one's")
        return found


def _words(error: urllib.error.HTTPError) -> str:
    try:
        said = json.loads(error.read(pools.MOST_BYTES))["error"]
        words = said["message"] if isinstance(said, dict) else said
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)
    return "".join(char for char in str(words)[:500] if char.isprintable())
