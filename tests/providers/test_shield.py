"""An account's secrets in what an upstream sends, in every form and cut anywhere."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import CredentialKind, Provider
from pool_server.providers import Credential, Shield

TOKEN, REFRESH, WORKSPACE = "ya29.Aa-b_c/d+e=", "1//0refresh-of-it", "0b9f7d1e-workspace"


def shield(**fields: Any) -> Shield:
    known = {"access_token": TOKEN, "refresh_token": REFRESH, "account_id": WORKSPACE} | fields
    return Shield(Credential(Provider.CODEX, "codex:a", CredentialKind.OAUTH, **known))


FORMS = [
    TOKEN,
    REFRESH,
    WORKSPACE,
    json.dumps(TOKEN).replace("/", "\\/")[1:-1],
    TOKEN.replace("=", "\\u003d").replace("+", "\\u002b"),
    quote(TOKEN, safe=""),
    f"Bearer {TOKEN}",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_masked_and_keeps_its_length(form: str) -> None:
    said = f'{{"error":"no access for {form}, ask again"}}'
    for masked in (shield().whole(said.encode()).decode(), shield().text(said)):
        assert len(masked) == len(said) and masked != said
        assert not any(secret in masked for secret in (TOKEN, REFRESH, WORKSPACE, form.removeprefix("Bearer ")))
        assert "[hidden]" in masked and json.loads(masked)


PLAIN = st.sampled_from(["ya29", ".", "A", "1//", "0refresh", "\n", " word ", TOKEN[:-1], REFRESH[1:], "y"])


@given(st.lists(st.one_of(PLAIN, st.sampled_from(FORMS)), max_size=12), st.lists(st.integers(1, 20), min_size=1))
def test_however_it_is_cut_no_secret_passes_and_no_byte_is_lost(parts: list[str], sizes: list[int]) -> None:
    said = "".join(parts).encode()
    one, rest, out, number = shield(), said, b"", 0
    while rest:
        size = sizes[number % len(sizes)]
        number += 1
        out += one.feed(rest[:size])
        rest = rest[size:]
    out += one.rest()
    assert out == shield().whole(said)
    assert len(out) == len(said)
    assert not any(needle in out for needle in one.needles)


def test_what_holds_no_secret_is_not_copied_and_not_kept_back() -> None:
    one, said = shield(), b'data: {"choices":[]}\n\n'
    assert one.whole(said) is said and one.feed(said) is said and one.rest() == b""
    text = said.decode()
    assert one.text(text) is text
    headers = [("Content-Type", "text/plain")]
    assert one.headers(headers) is headers


def test_headers_are_masked_in_either_case_and_never_named_after_a_secret() -> None:
    told = shield().headers(
        [("X-Request-Id", f"r-{TOKEN.upper()}-{TOKEN}"), (f"X-Codex-{REFRESH}", "1"), ("Etag", "e")]
    )
    assert [name for name, _ in told] == ["X-Request-Id", "Etag"]
    assert TOKEN.lower() not in told[0][1].lower() and len(told[0][1]) == len(TOKEN) * 2 + 3


@pytest.mark.parametrize("word", ["ollama", "not-needed", "lm-studio", "none", "sk-no-key-required", "", "abc"])
def test_what_stands_where_no_key_is_wanted_is_no_secret(word: str) -> None:
    said = f"you run {word} here".encode()
    assert shield(access_token="", refresh_token="", account_id="", api_key=word).whole(said) is said


@pytest.mark.parametrize("key", ["sk-aaaaaa", "AIza-bbbb", "hunter2-local", "a" * 20])
def test_a_short_key_is_a_secret(key: str) -> None:
    assert key.encode() not in shield(api_key=key).whole(f"key={key};".encode())
