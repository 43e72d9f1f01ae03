"""The code of an authenticator app, by RFC 6238's own figures."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.settings import ConfigError
from pool_server.core.settings_file import typed
from pool_server.users.identity.passwords import totp, totp_step

SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("now", "digits"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"), (2000000000, "279037"),
     (20000000000, "353130")],
)  # fmt: skip
def test_the_figures_of_the_rfc(now: int, digits: str) -> None:
    assert totp(SECRET, now // 30) == digits
    assert totp_step(SECRET, f"{digits[:3]} {digits[3:]}", now) == now // 30


@given(st.integers(120, 4 * 10**9), st.text(max_size=12))
def test_only_codes_of_now_and_its_neighbours_count(now: int, said: str) -> None:
    for step in (now // 30 - 3, now // 30 + 3):
        if totp(SECRET, step) not in {totp(SECRET, now // 30 + near) for near in (-1, 0, 1)}:
            assert totp_step(SECRET, totp(SECRET, step), now) is None
    assert totp_step(SECRET.lower(), totp(SECRET, now // 30 - 1), now) is not None
    if not "".join(said.split()).isdigit():
        assert totp_step(SECRET, said, now) is None


def test_a_secret_is_base32_and_long_enough() -> None:
    assert typed("pool_users.admin_totp", SECRET) == SECRET
    for wrong in ("SHORT234", "not base32 at all!", "1" * 32):
        with pytest.raises(ConfigError, match="Base32"):
            typed("pool_users.admin_totp", wrong)
