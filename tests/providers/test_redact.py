"""Redaction: every kind of secret goes, ordinary words stay, and no text makes it slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.providers import HIDDEN, redact, short
from tests.providers.make import jwt

LONG = "a1b2c3d4e5" * 5


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer [hidden]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [hidden]"),
        ("Authorization: opaque9", "Authorization: [hidden]"),
        ('{"access_token":"abc","x":1}', '{"access_token":"[hidden]","x":1}'),
        ('{\\"refresh_token\\":\\"abc\\"}', '{\\"refresh_token\\":\\"[hidden]\\"}'),
        ('{"key":"v","n":2}', '{"key":"[hidden]","n":2}'),
        ("refreshToken='foo'", "refreshToken='[hidden]'"),
        ("https://host/v1beta/models?key=abc&alt=sse", "https://host/v1beta/models?key=[hidden]&alt=sse"),
        ("proxy http://joe:pw@10.0.0.1:3128/ failed", "proxy http://[hidden]@10.0.0.1:3128/ failed"),
        ("Incorrect API key provided: sk-proj-abcd1234.", "Incorrect API key provided: [hidden]."),
        ("token sk-ant-oat01-AbC_d-9 was revoked", "token [hidden] was revoked"),
        (f"got {jwt({'sub': 'x'})} here", "got [hidden] here"),
        ("ya29.a0Abc_-x.y is old", "[hidden] is old"),
        ("grant 1//0gAbCdEfGh gone", "grant [hidden] gone"),
        ("AIzaSyA-1234567890abc", "[hidden]"),
        ("GOCSPX-abc_def", "[hidden]"),
        ("gho_16charslong12345", "[hidden]"),
        ("rt_abcdefghijklmnop.qrs", "[hidden]"),
        ("mail joe.doe+x@mail.example.com now", "mail [hidden] now"),
        ("set-cookie: a=b; session=c\nnext", "set-cookie: [hidden]\nnext"),
        (f"opaque {LONG} value", "opaque [hidden] value"),
    ],
)
def test_secrets_are_hidden(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert redact(clean) == clean, "redacting twice changes nothing"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "invalid token: expired",
        "Bearer token is missing",
        "max_tokens=5 and prompt_cache_key=thread-1",
        "Previous response with id 'resp_0123456789abcdef0123456789abcdef0123456789abcdef' not found.",
        "a task-force-of-12 met at https://example.com/path?beta=true",
        "0190b3c2-7a5e-7cc3-98c4-dc0c0c07398f",
        "rate limited: retry in 12.5s (429)",
        "-" * 60 + " " + "=" * 60,
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == text


def test_short_is_one_printable_line_of_bounded_length() -> None:
    assert short("  a\n\tb\x00c \x1b[31m d ") == "a b c [31m d"
    assert short("x " * 500, 20) == "x x x x x x x x x x…"
    assert short("Bearer " + LONG + " and " + "y " * 1000).startswith(f"Bearer {HIDDEN} and y y")
    assert len(short("é" * 5000)) == 300


def test_a_secret_at_the_cut_is_hidden_whole() -> None:
    assert "sk-" not in short("w " * 140 + "sk-ant-api03-abcdefghijklmnopqrstuvwxyz")


@given(st.text(max_size=400))
def test_any_text_can_be_redacted_again(text: str) -> None:
    once = redact(text)
    assert redact(once) == redact(redact(once))
    assert "\n" not in short(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    ["a", "a@", "eyJ", "key=", "Bearer ", "a.a@", "://a:", '"token":"', "1-a_", "access_token ", "cookie:"],
)
def test_time_is_linear_in_the_length(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        best = 9.0
        for _ in range(3):
            begun = time.thread_time()  # of this thread alone, whatever else runs
            redact(text)
            best = min(best, time.thread_time() - begun)
        return best

    small = max(seconds(20_000), 1e-4)
    assert seconds(200_000) < 60 * small, "ten times the text took more than sixty times as long"
