"""A database's URL: what is refused, and that its password is in no text."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.storage import StoreError
from pool_server.storage.postgres.url import parse

SECRET = "sesame-4711"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://pool@db/pool", "mysql is another engine"),
        ("redis://db", "redis is another engine"),
        ("pool", "this is none"),
        (f"{SECRET}://db/pool", "this is none"),
        ("postgresql://[::1/pool", "cannot be read"),
        ("postgresql://pool@db.example/pool", "needs sslmode=verify-full"),
        ("postgresql://pool@127.0.0.1,db.example/pool", "needs sslmode=verify-full"),
        ("postgresql://pool@/pool?host=db.example", "needs sslmode=verify-full"),
        ("postgresql://pool@db.example/pool?sslmode=always", "sslmode is one of"),
        (
            "postgresql://pool@db.example/pool?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
            "'ca.pem' cannot be read",
        ),
        ("postgresql://pool@127.0.0.1/pool?statement_timeout=1", "is not a parameter"),
        ("postgresql://pool@127.0.0.1/pool?pooler=session", "pooler is transaction"),
    ],
)
def test_a_url_is_refused_in_one_line(url: str, told: str) -> None:
    with pytest.raises(StoreError, match=told) as refused:
        parse(url, {})
    assert "\n" not in str(refused.value) and SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://pool@localhost/pool",
        "postgres://pool@127.0.0.1:5433/pool",
        "postgresql://pool@[::1]:5433/pool",
        "postgresql:///pool?host=/var/run/postgresql",
        "postgresql://pool@%2Fvar%2Frun%2Fpostgresql/pool",
        "postgresql:///pool",
    ],
)
def test_this_machine_needs_no_tls(url: str) -> None:
    assert not parse(url, {}).remote
    assert parse(url, {}).tls is False


def test_a_lesser_mode_may_be_written_out() -> None:
    weak = parse("postgresql://pool@db.example/pool?sslmode=require", {})
    assert (weak.remote, weak.mode, weak.tls) == (True, "require", "require")
    strong = parse("postgresql://pool@a.example,b.example/pool?sslmode=verify-full&target_session_attrs=read-write", {})
    assert isinstance(strong.tls, ssl.SSLContext)
    assert strong.tls.check_hostname and strong.tls.verify_mode == ssl.CERT_REQUIRED


def test_the_environment_s_password_counts_and_none_is_shown() -> None:
    for url in (
        f"postgresql://pool:{SECRET}@db/pool?sslmode=require",
        f"postgresql://pool@db/pool?sslmode=require&password={SECRET}",
    ):
        place = parse(url, {})
        assert place.password == SECRET
        assert SECRET not in repr(place) + place.redacted + str(place) + place.dsn
        assert parse(url, {"POOL_STORE_PASSWORD": "other"}).password == "other"


@given(st.text(max_size=80), st.sampled_from(["", "postgresql://", "postgresql://a:b@", "postgres:///x?"]))
def test_any_text_is_a_url_or_refused(text: str, start: str) -> None:
    try:
        place = parse(start + text, {})
    except StoreError as exc:
        assert "\n" not in str(exc)
    else:
        assert place.dsn.startswith("postgresql:")
