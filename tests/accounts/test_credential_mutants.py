"""Credentials of every shape that is taken, spoilt in every way: a file and a pasted text get the same answer, an
unusable one gets one line of words, and no secret is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.credentials import files
from pool_server.core.enums import Provider
from pool_server.providers import CredentialRejectedError, provider_module
from pool_server.providers.keys.pasted import recognise
from tests.accounts.kit import NOW
from tests.fakes import account

SECRET = "SECRETsecret0123456789"
SHAPES: dict[str, dict[str, Any]] = {
    **{one: account(f"{one}:x").file() for one in ("codex", "claude", "gemini", "qwen")},
    "kimi": {
        "access_token": f"kimi-{SECRET}", "refresh_token": f"r-{SECRET}", "expires_at": 2_000_000_000,
        "scope": "kimi-code", "token_type": "Bearer", "expires_in": 900,
    },
    "codex of CLIProxyAPI": {
        "type": "codex", "id_token": f"a.{SECRET}.c", "access_token": f"x.{SECRET}.y", "refresh_token": SECRET,
        "account_id": "ac", "email": "a@b.example", "last_refresh": "2026-01-01T00:00:00Z",
    },
    "a key": {"api_key": f"sk-ant-api03-{SECRET}"},
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, 1, -1, 1.5, True, "", "1234567890", [], {}, "x\ny\r", f"\u202e{SECRET}", [SECRET], {"a": SECRET}, "é" * 50,
    f"{SECRET}\x00", 10**30,
)  # fmt: skip


def places(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*at, name)
            yield from places(inner, (*at, name))


def secrets_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from secrets_of(inner)
    elif isinstance(value, str) and len(value) >= 20:
        yield value


def with_value(file: dict[str, Any], at: tuple[str, ...], value: Any) -> bytes:
    copy = inner = json.loads(json.dumps(file))
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = value
    return json.dumps(copy).encode()


def mutants(file: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    text = json.dumps(file)
    raw = text.encode()
    yield "whole", raw
    yield "byte order mark", b"\xef\xbb\xbf" + raw
    yield "UTF-16", text.encode("utf-16")
    yield "CRLF", json.dumps(file, indent=1).replace("\n", "\r\n").encode()
    yield from ((f"cut off at {at}", raw[:at]) for at in range(0, len(raw), max(1, len(raw) // 25)))
    yield "every key twice", raw[:-1] + b"," + raw[1:]
    yield "a list", b"[" + raw + b"]"
    yield "two of them", raw + b"\n" + raw
    yield "words behind it", raw + b"\n\n x"
    yield "nested", b'{"x":' * 3000 + b"1" + b"}" * 3000
    yield "lists in lists", b"[" * 100_000
    yield "huge", raw[:-1] + b',"z":"' + b"a" * (2 << 20) + b'"}'
    yield "NUL", b"{\x00" + raw[1:]
    yield "Latin 1", raw[:-1] + b',"n":"\xff\xfe"}'
    yield "half a character", raw[:-1] + b',"n":"\\ud800"}'
    yield "not a number", raw[:-1] + b',"expires_at":NaN}'
    yield "endless", raw[:-1] + b',"expires_at":1e400,"expiry_date":1e400}'
    yield "a long number", raw[:-1] + b',"expires_at":' + b"9" * 5000 + b"}"
    for at in places(file):
        for value in ODD:
            yield f"{'.'.join(at)} = {value!r}", with_value(file, at, value)


def answer(read: Any) -> str:
    """ "" for what is taken, else the words."""
    try:
        read()
    except CredentialRejectedError as refused:
        return str(refused) or "no words"
    return ""


@pytest.mark.parametrize("shape", SHAPES)
def test_an_unusable_credential_gets_one_line_without_its_secret(tmp_path: Path, shape: str) -> None:
    file, path = SHAPES[shape], tmp_path / "a.json"
    secrets = {*secrets_of(file), SECRET}
    for how, raw in mutants(file):
        path.write_bytes(raw)
        told = [answer(partial(files.read, path))]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            assert told[0], how
        else:
            told.append(answer(partial(recognise, text, now=NOW)))
        if not told[0]:
            data = files.read(path)[0]
            told += [answer(partial(provider_module(one).parse, data, f"{one.value}:x", now=NOW)) for one in Provider]
        for words in told:
            assert "\n" not in words and "\r" not in words and len(words) < 300, (how, words)
            assert not any(secret in words for secret in secrets), (how, words)


@pytest.mark.parametrize("shape", [one for one in SHAPES if one in ("codex", "claude", "gemini", "qwen", "kimi")])
def test_a_file_and_a_pasted_text_get_the_same_answer(tmp_path: Path, shape: str) -> None:
    """What the one takes as a credential of its vendor the other takes too; control characters, which terminals put
    between, are dropped of a pasted text alone."""
    path, module = tmp_path / "a.json", provider_module(Provider(shape))
    for how, raw in mutants(SHAPES[shape]):
        if how == "NUL":
            continue
        path.write_bytes(raw)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            continue

        def pasted(text: str = text) -> None:
            module.parse(recognise(text, now=NOW)[1], f"{shape}:x", now=NOW)

        dropped = answer(lambda: module.parse(files.read(path)[0], f"{shape}:x", now=NOW))
        assert bool(answer(pasted)) == bool(dropped), (how, answer(pasted), dropped)
