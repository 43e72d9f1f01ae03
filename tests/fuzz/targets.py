"""What reads what others write: each target takes any bytes and says, by an assertion, what must be true of them."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.scan import CredentialFile
from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.dialects import BadBodyError, peek
from pool_server.dialects.translation import TranslationError, refusal_body
from pool_server.dialects.wire import multipart
from pool_server.dialects.wire.sse import Scanner, data_of
from pool_server.gateway.http.headers import credentials, query_without_key
from pool_server.gateway.routes import match
from pool_server.gateway.websocket.frames import BadFrameError, judge
from pool_server.providers import CredentialRejectedError
from pool_server.users.identity.tokens import Signer
from tests.dialects.translation import kit
from tests.dialects.translation.grammar import hear
from tests.http1.test_fuzz import answered, first, served
from tests.http1.wire import run

NOW = 1_800_000_000.0
SIGNER = Signer("a secret of the tests that is long enough")
TOKEN = SIGNER.key("u_1", "k_1", NOW, None)
COOKIE = SIGNER.cookie("s_1")


class _Events:
    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def event(self, event: bytes) -> int:
        self.seen.append(data_of(event))
        return 1

    def wanted(self, head: bytes) -> bool:
        return True

    def passed_over(self, head: bytes) -> int:
        return 1


def sse(data: bytes) -> None:
    """Events are the same however the bytes are cut."""
    outcomes = []
    for size in (len(data) or 1, 1, 7):
        events = _Events()
        scanner = Scanner(events)
        for at in range(0, len(data), size):
            scanner.feed(data[at : at + size])
        outcomes.append((events.seen, scanner.at_boundary))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def frames(data: bytes) -> None:
    """What passes is what another parser reads: one object, each top-level key once, a known type."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        kind = judge(text)
    except BadFrameError:
        return
    keys: list[str] = []

    def take(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys[:] = [key for key, _ in pairs]  # the outermost object is the last one
        return dict(pairs)

    read = json.loads(text, object_pairs_hook=take, parse_constant=_never)
    assert read["type"] == kind.value and len(keys) == len(set(keys))


def _never(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


_NEED_A_KEY = (Provider.CLAUDE, Provider.CODEX, Provider.GEMINI, Provider.QWEN)  # a host of one's own may need none
_folder = tempfile.TemporaryDirectory()


def credential_file(data: bytes) -> None:
    """A file is an account with a secret that nothing shows, or rejected in one line."""
    path = Path(_folder.name) / "file.json"
    path.write_bytes(data)
    try:
        found, _ = files.read(path)
        files.options(found)
    except CredentialRejectedError as refused:
        _one_line(refused)
        return
    for provider in Provider:
        try:
            file = CredentialFile(f"{provider.value}:x", provider, path, path.name)
            credential = files.parse(found, file, now=NOW)
        except CredentialRejectedError as refused:
            _one_line(refused)
            continue
        secrets = [one for one in (credential.secret, credential.refresh_token) if len(one) >= 8]
        assert credential.secret or credential.can_refresh or provider not in _NEED_A_KEY
        assert not any(secret in repr(credential) for secret in secrets)


def _one_line(refused: CredentialRejectedError) -> None:
    assert str(refused).isprintable() and len(str(refused)) < 400


def token(data: bytes) -> None:
    """Of all texts one is the key, and one the cookie."""
    text = data.decode("latin-1")
    assert SIGNER.claims(text, NOW) is None or text == TOKEN
    assert SIGNER.opened(text, NOW) is None or text == COOKIE


def query(data: bytes) -> None:
    """No key goes up, under whatever spelling, and everything else as it came."""
    text = data.decode("latin-1")
    shown = [key for key in credentials({}, text) if len(key) >= 20]
    up = query_without_key(text, shown)
    kept = iter(text.split("&"))
    assert all(part in kept for part in up.split("&")) or not up
    for name, value in parse_qsl(up, keep_blank_values=True, encoding="latin-1"):
        assert name != "key", up
        assert not any(key in value for key in shown)


def form(data: bytes) -> None:
    """A form is whole parts in their order, or refused."""
    try:
        parts = multipart.parts(data, b"mark")
    except BadBodyError:
        return
    at = 0
    for part in parts:
        assert at < part.start <= part.end <= len(data)
        at = part.end
        assert part.value is None or part.value.encode() == data[part.start : part.end]


def content_type(data: bytes) -> None:
    """A type has one boundary, or is refused."""
    try:
        mark = multipart.boundary(data.decode("latin-1"))
    except BadBodyError:
        return
    assert mark is None or mark


def path(data: bytes) -> None:
    """No path is a call that climbs, or two calls at once."""
    text = "/" + data.decode("latin-1").split("?")[0]
    for method in ("GET", "POST"):
        route = match(method, text, {})
        if route is not None and route.model_call:
            assert ".." not in route.path.split("/") and "//" not in route.path and not set("\\#\0 ") & set(route.path)


def body(data: bytes) -> None:
    """What a body asks for is read, or the body is refused."""
    for dialect in (Dialect.RESPONSES, Dialect.MESSAGES, Dialect.CHAT, Dialect.GEMINI):
        try:
            found = peek(Operation.GENERATE, dialect, "/v1/x", {}, data)
        except BadBodyError:
            continue
        assert isinstance(found.model, str) and isinstance(found.stream, bool)


def http_server(data: bytes) -> None:
    """A server answers in HTTP, or not at all, and the first answer is the same however the bytes were cut."""

    async def test() -> None:
        whole, _ = await served([data])
        apart, _ = await served([data[at : at + 3] for at in range(0, len(data), 3)])
        assert not whole or whole.startswith(b"HTTP/1.1 ")
        assert bool(whole) == bool(apart) and first(whole)[:3] == first(apart)[:3]

    run(test)


def http_client(data: bytes) -> None:
    """What a client takes for whole has a status, and is the same however the bytes were cut."""

    async def test() -> None:
        status, body, whole = await answered([data])
        again = await answered([data[at : at + 3] for at in range(0, len(data), 3)])
        assert not whole or status >= 200
        assert (status, body, whole) == again or not (whole or again[2])

    run(test)


def translated_request(data: bytes) -> None:
    """Any body goes up as JSON in the other dialect, or is refused in one line."""
    for client, kind in kit.PAIRS:
        try:
            json.loads(kit.translate(client, kind, data).body)
        except TranslationError as refused:
            told = refusal_body(client, refused)
            assert "\n" not in str(refused) and len(told) < 20_000 and json.loads(told)


def translated_answer(data: bytes) -> None:
    """A stream or a body is told whole or as an error, the same however it was cut."""
    client, kind = kit.PAIRS[zlib.crc32(data) % len(kit.PAIRS)]
    body = kit.request(client, [("user", "?")], stream=True)
    outcomes = []
    for size in (len(data) or 1, 5):
        told = kit.translate(client, kind, body, stream=True).response
        raw = b"".join(told.feed(data[at : at + size]) for at in range(0, len(data), size)) + told.finish()
        assert told.complete == (told.fault is None)
        assert not told.begun or (hear(client, raw).error is None) == told.complete
        outcomes.append((raw, told.complete, told.begun))
    assert outcomes[0] == outcomes[1]
    one = kit.translate(client, kind, kit.request(client, [("user", "?")])).response
    one.whole(data)
    assert one.complete == (one.fault is None)


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        sse, frames, credential_file, token, query, form, content_type, path, body,
        http_server, http_client, translated_request, translated_answer,
    )
}  # fmt: skip
