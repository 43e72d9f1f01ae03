"""What goes up, what comes down, and where credentials are looked for."""

from __future__ import annotations

from pool_server.core.enums import CredentialKind, Provider
from pool_server.gateway.http.headers import credentials, downward, query_without_key, upward
from pool_server.providers import Credential, Shield

SHIELD = Shield(Credential(Provider.OPENAI, "openai:a", CredentialKind.API_KEY, api_key="sk-Secret/of=it"))


def test_only_the_clients_own_headers_go_up_in_their_order() -> None:
    sent = [
        ("Host", "pool"),
        ("Anthropic-Version", "2023-06-01"),
        ("Authorization", "Bearer x"),
        ("X-Api-Key", "x"),
        ("X-Goog-Api-Key", "x"),
        ("Chatgpt-Account-Id", "a"),
        ("Cookie", "s=1"),
        ("Cf-Ray", "1"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("Forwarded", "for=1"),
        ("Via", "1.1 x"),
        ("X-Pool-Session", "s"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("OpenAI-Organization", "the-clients"),
        ("Proxy-Authenticate", "Basic"),
        ("Accept-Encoding", "br"),
        ("Content-Length", "3"),
        ("Anthropic-Beta", "a,b"),
        ("User-Agent", "claude-cli/2"),
    ]
    assert upward(sent) == [
        ("Anthropic-Version", "2023-06-01"),
        ("Anthropic-Beta", "a,b"),
        ("User-Agent", "claude-cli/2"),
    ]


def test_a_header_is_not_smuggled_up_in_another_spelling() -> None:
    names = ("Transfer_Encoding", "content_length", "X_Api_Key", "X_Forwarded_For", "X_Pool-Session", "Remote_User")
    assert upward([(name, "1") for name in (*names, "session_id", "X_Own")]) == [("session_id", "1"), ("X_Own", "1")]


def test_cookies_and_hop_by_hop_do_not_come_down() -> None:
    sent = [
        ("Set-Cookie", "a=1"),
        ("Transfer-Encoding", "chunked"),
        ("X-Codex-Turn-State", "t"),
        ("Content-Length", "1"),
    ]
    assert downward(sent, SHIELD) == [("X-Codex-Turn-State", "t")]


def test_a_credential_is_found_wherever_a_client_puts_it() -> None:
    assert credentials({"authorization": "bearer  abc "}, "") == ["abc"]
    assert credentials({"x-api-key": "abc"}, "") == ["abc"]
    assert credentials({"x-goog-api-key": "abc"}, "") == ["abc"]
    assert credentials({}, "alt=sse&key=a%2Bc") == ["a+c"]
    assert credentials({"authorization": "Bearer one", "x-api-key": "one"}, "key=two") == ["one", "two"]
    assert credentials({"authorization": "Basic abc"}, "keys=1") == []


def test_the_key_leaves_the_query_and_nothing_else_does() -> None:
    assert query_without_key("alt=sse&key=abc&x=%20") == "alt=sse&x=%20"
    assert query_without_key("beta=true") == "beta=true"
    assert query_without_key("monkey=1&key=") == "monkey=1"
    assert query_without_key("k%65y=abc&%6Bey&a=k%65y") == "a=k%65y", "as the provider reads it"


KEY = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl"


def test_no_header_and_no_parameter_takes_the_shown_key_along() -> None:
    sent = [
        ("X-Own", "1"),
        ("Referer", f"https://pool.example/v1/x?key={KEY}&a=1"),
        ("X-Something", KEY),
        ("X-Else", f"Token {KEY};q=1"),
        ("X-Part", KEY[:-1]),
    ]
    keys = credentials({"authorization": f"Bearer {KEY}", "x-api-key": "pool"}, "")
    assert upward(sent, keys) == [("X-Own", "1"), ("X-Part", KEY[:-1])]
    assert upward([("User-Agent", "my pool tool")], keys) == [("User-Agent", "my pool tool")], "too short to be told"
    assert query_without_key(f"a=1&token={KEY}&b={KEY.replace('.', '%2E')}&{KEY}&c=2", keys) == "a=1&c=2"
    assert query_without_key("", keys) == ""


def test_a_method_is_not_overridden() -> None:
    names = ("X-HTTP-Method-Override", "X-Http-Method", "X-METHOD-OVERRIDE")
    assert upward([(name, "DELETE") for name in names]) == []
