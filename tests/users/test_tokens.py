from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import threading
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.settings import PoolUsers, Settings
from pool_server.users.identity import tokens
from pool_server.users.identity.tokens import Claims, Signer, load_signer

SECRET = "a secret that is as long as the longest algorithm here wants it to be" * 2
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
TOKEN = Signer(SECRET).key("u_1", "k_1", 1000.0, None)


def forged(claims: dict[str, object], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm=algorithm)


GOOD: dict[str, object] = {"iss": "pool-server", "sub": "u_1", "jti": "k_1", "iat": 1000}


def test_a_key_is_the_promised_jwt() -> None:
    token = Signer(SECRET).key("u_1", "k_1", 1000.7, 2000.0)
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    assert jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False}) == {**GOOD, "exp": 2000}
    assert Signer(SECRET).claims(token, 0.0) == Claims("u_1", "k_1", 2000.0)


def test_a_short_secret_signs_as_the_standard_says() -> None:
    token = Signer("short").key("u_1", "k_1", 1000.0, None)
    head, body, mac = token.split(".")
    expected = hmac.digest(b"short", f"{head}.{body}".encode(), hashlib.sha256)
    assert base64.urlsafe_b64decode(mac + "=") == expected


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(ALPHABET))
def test_one_changed_character_makes_a_key_worthless(place: int, char: str) -> None:
    changed = TOKEN[:place] + char + TOKEN[place + 1 :]
    found = Signer(SECRET).claims(changed, 0.0)
    assert (found is None) == (changed != TOKEN)


@given(st.text(max_size=200))
def test_anything_else_is_no_key(text: str) -> None:
    assert Signer(SECRET).claims(text, 0.0) is None
    assert Signer(SECRET).opened(text, 0.0) is None


@pytest.mark.parametrize(
    "claims",
    [
        {**GOOD, "iss": "someone-else"},
        {name: value for name, value in GOOD.items() if name != "jti"},
        {name: value for name, value in GOOD.items() if name != "iat"},
        {**GOOD, "exp": "tomorrow"},
        {**GOOD, "exp": True},
    ],
)
def test_a_signature_alone_is_not_enough(claims: dict[str, object]) -> None:
    assert Signer(SECRET).claims(forged(claims), 0.0) is None


def test_no_signature_and_other_algorithms_are_refused() -> None:
    body = TOKEN.split(".")[1]
    for header in ({"alg": "none"}, {"alg": "None", "typ": "JWT"}, {"alg": "HS256"}):
        head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        assert Signer(SECRET).claims(f"{head}.{body}.", 0.0) is None
    assert Signer(SECRET).claims(forged(GOOD, algorithm="HS512"), 0.0) is None
    assert Signer(SECRET).claims(forged(GOOD, "another secret, long enough to be used"), 0.0) is None
    assert Signer(SECRET).claims(TOKEN + "=", 0.0) is None


def test_a_replaced_secret_is_accepted_for_a_while() -> None:
    signer = Signer("new" * 12, [(SECRET, 5000.0)])
    assert signer.claims(TOKEN, 4999.0) is not None
    assert signer.claims(TOKEN, 5000.0) is None
    assert signer.opened(Signer(SECRET).cookie("value"), 4999.0) == "value"


def test_cookies_are_signed() -> None:
    signer = Signer(SECRET)
    cookie = signer.cookie("value")
    assert signer.opened(cookie, 0.0) == "value"
    assert signer.opened("other" + cookie[5:], 0.0) is None
    assert signer.opened(cookie[:-1] + ("A" if cookie[-1] != "A" else "B"), 0.0) is None
    assert Signer("other").opened(cookie, 0.0) is None


def test_a_secret_is_made_once_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    made = load_signer(Settings(), tmp_path)
    path = tmp_path / tokens.SECRET_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(Settings(), tmp_path).claims(made.key("u", "k", 0.0, None), 0.0) is not None
    assert os.listdir(tmp_path) == [tokens.SECRET_FILE]
    assert json.loads(path.read_bytes())["current"] not in repr(made) + repr(vars(made).keys())


def test_workers_that_start_together_share_one_secret(tmp_path: Path) -> None:
    signers: list[Signer] = []
    ready = threading.Barrier(8)

    def start() -> None:
        ready.wait()
        signers.append(load_signer(Settings(), tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({signer.key("u", "k", 0.0, None) for signer in signers}) == 1
    assert len(signers) == 8


def test_rotation_keeps_the_old_secret_for_thirty_days(tmp_path: Path) -> None:
    old = load_signer(Settings(), tmp_path).key("u", "k", 0.0, None)
    tokens.rotate_secret(tmp_path, 1000.0)
    fresh = load_signer(Settings(), tmp_path)
    assert fresh.key("u", "k", 0.0, None) != old
    assert fresh.claims(old, 1000.0 + tokens.PREVIOUS_S - 1) is not None
    assert fresh.claims(old, 1000.0 + tokens.PREVIOUS_S) is None
    assert stat.S_IMODE((tmp_path / tokens.SECRET_FILE).stat().st_mode) == 0o600


def test_secrets_from_the_settings_win(tmp_path: Path) -> None:
    settings = Settings(pool_users=PoolUsers(jwt_secret=SECRET, jwt_secret_previous="older secret"))
    signer = load_signer(settings, tmp_path)
    assert signer.key("u_1", "k_1", 1000.0, None) == TOKEN
    assert signer.claims(Signer("older secret").key("u", "k", 0.0, None), 1e12) is not None
    assert not (tmp_path / tokens.SECRET_FILE).exists()


def test_bad_secrets_are_one_clear_line(tmp_path: Path) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----"
    with pytest.raises(ValueError, match="jwt_secret") as info:
        load_signer(Settings(pool_users=PoolUsers(jwt_secret=pem)), tmp_path)
    assert "MFkw" not in str(info.value)
    (tmp_path / tokens.SECRET_FILE).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_signer(Settings(), tmp_path)
