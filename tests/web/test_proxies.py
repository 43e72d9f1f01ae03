"""Who is behind a proxy, and which addresses may end up in a script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.web.base.proxies import base_url, networks, real_peer, real_scheme

TRUSTED = networks(["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "spoofed, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "[2001:4860::8]", "2001:4860::8"),
    ],
)
def test_the_nearest_address_that_is_not_ours_counts(peer: str, forwarded: str, found: str) -> None:
    assert real_peer(peer, {"X-Forwarded-For": forwarded}, TRUSTED) == found


@given(st.text(), st.ip_addresses())
def test_an_untrusted_peers_header_changes_nothing(forwarded: str, peer: object) -> None:
    assert real_peer(str(peer), {"X-Forwarded-For": forwarded}, ()) == str(peer)
    assert real_scheme("http", str(peer), {"X-Forwarded-Proto": "https"}, ()) == "http"


def test_the_scheme_is_a_trusted_proxys_to_say() -> None:
    assert real_scheme("http", "10.1.2.3", {"X-Forwarded-Proto": " HTTPS"}, TRUSTED) == "https"
    assert real_scheme("http", "10.1.2.3", {"X-Forwarded-Proto": "gopher"}, TRUSTED) == "http"


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ({"X-Forwarded-Proto": "https, http"}, "https"),
        ({"X-Forwarded-Proto": "http, https"}, "http"),
        ({"X-Forwarded-Proto": "http", "Forwarded": "proto=https"}, "http"),
        ({"Forwarded": "for=192.0.2.7;proto=https;by=10.0.0.1"}, "https"),
        ({"Forwarded": 'for="[2001:db8::1]:443"; Proto="HTTPS", for=10.0.0.2;proto=http'}, "https"),
        ({"Forwarded": "for=x, proto=https"}, "http"),
        ({"Forwarded": "notproto=https"}, "http"),
    ],
)
def test_the_scheme_by_several_proxies_and_by_the_standard_s_header(headers: dict[str, str], scheme: str) -> None:
    assert real_scheme("http", "10.1.2.3", headers, TRUSTED) == scheme
    assert real_scheme("http", "192.0.2.1", headers, TRUSTED) == "http"


@pytest.mark.parametrize(
    ("forwarded", "found"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ("For=198.51.100.1, for=203.0.113.7;proto=https", "203.0.113.7"),
        ("for=203.0.113.7;by=10.0.0.9, for=10.0.0.2", "203.0.113.7"),
        ('for="[2001:4860::8]:443"', "2001:4860::8"),
        ('for="203.0.113.7:4711"', "203.0.113.7"),
        ("for=unknown", "10.0.0.1"),
        ("for=_hidden, for=10.0.0.2", "10.0.0.2"),
        ("by=203.0.113.7", "10.0.0.1"),
        ('for="1.2.3.4, for=203.0.113.7', "203.0.113.7"),  # what a visitor left open hides nobody
        ("", "10.0.0.1"),
    ],
)
def test_the_standard_s_header_names_the_nearest_address_too(forwarded: str, found: str) -> None:
    assert real_peer("10.0.0.1", {"Forwarded": forwarded}, TRUSTED) == found
    assert real_peer("192.0.2.1", {"Forwarded": forwarded}, TRUSTED) == "192.0.2.1"
    both = {"Forwarded": forwarded, "X-Forwarded-For": "198.51.100.9"}
    assert real_peer("10.0.0.1", both, TRUSTED) == "198.51.100.9"


@pytest.mark.parametrize("host", ["pool.example", "pool.example:8989", "10.0.0.1:80", "[::1]:8989", "localhost"])
def test_a_plain_host_is_taken_over(host: str) -> None:
    assert base_url("", "https", host) == f"https://{host}"


@pytest.mark.parametrize(
    "host", ["", "a b", "x'y", "x;y", "$(x)", "x/y", "x\\y", "-x", "x\n", "x:port", "x@y", "[::1", "x?y", "é.example"]
)
def test_anything_else_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="public_url"):
        base_url("", "http", host)
    assert base_url("https://pool.example/", "http", host) == "https://pool.example"


@pytest.mark.parametrize(
    ("told", "peer"),
    [
        ("1.1.1.1:443", "1.1.1.1"),
        ("1.1.1.1", "1.1.1.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("9.9.9.9, 1.1.1.1:443 , 10.0.0.9:80", "1.1.1.1"),
        ("::ffff:1.1.1.1", "1.1.1.1"),
        ("[::ffff:1.1.1.1]:8", "1.1.1.1"),
        ("1.1.1.1:", "10.0.0.1"),
        ("1.1.1.1:x", "10.0.0.1"),
        ("1.1.1.1:4:5", "10.0.0.1"),
        ("[2001:db8::1", "10.0.0.1"),
        ("[2001:db8::1]x", "10.0.0.1"),
        ("unknown", "10.0.0.1"),
        ("_hidden:80", "10.0.0.1"),
        ("", "10.0.0.1"),
        (":443", "10.0.0.1"),
    ],
)
def test_balancers_write_ports_too(told: str, peer: str) -> None:
    assert real_peer("10.0.0.1", {"X-Forwarded-For": told}, networks(["10.0.0.0/8"])) == peer
