"""Origins of addresses, and which hosts are one owner's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.origins import origin, origins, registrable, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com", "https://api.openai.com"),
        ("https://API.OpenAI.com:443/v1/x?y#z", "https://api.openai.com"),
        ("https://api.openai.com./v1", "https://api.openai.com"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://host:80/", "http://host"),
        ("https://host:80/", "https://host:80"),
        ("ws://host:9/x", "http://host:9"),
        ("wss://host/x", "https://host"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
        ("https://a@b/", ""),
        ("https://a:b@c/", ""),
        ("ftp://host/", ""),
        ("https://", ""),
        ("https://host:99999/", ""),
        ("host/v1", ""),
        ("", ""),
    ],
)
def test_an_origin(url: str, expected: str) -> None:
    assert origin(url) == expected


def test_origins_leave_out_what_is_no_address() -> None:
    assert origins("https://a/x", "https://a/y", "nothing", "") == {"https://a"}
    assert shown("https://a") == "a" and shown("http://a:1") == "http://a:1"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("portal.qwen.ai", "qwen.ai"),
        ("qwen.ai", "qwen.ai"),
        ("a.b.c.example.com", "example.com"),
        ("api.example.co.uk", "example.co.uk"),
        ("example.co.uk", "example.co.uk"),
        ("x.example.com.cn", "example.com.cn"),
        ("LOCALHOST", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("evil.oss-cn-hangzhou.aliyuncs.com", "evil.oss-cn-hangzhou.aliyuncs.com"),
        ("dashscope.aliyuncs.com", "dashscope.aliyuncs.com"),
        ("me.github.io", "me.github.io"),
        ("b.s3.amazonaws.com", "b.s3.amazonaws.com"),
    ],
)
def test_what_somebody_registered(host: str, expected: str) -> None:
    assert registrable(host) == expected


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=5), LABEL)
def test_a_look_alike_is_another_owner(labels: list[str], extra: str) -> None:
    host = ".".join(labels)
    assert registrable(f"{host}.evil{extra}.example") != registrable(host)
    assert registrable(host) in host and registrable(registrable(host)) == registrable(host)
