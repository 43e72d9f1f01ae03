"""The TLS certificate: what of its files can be served, what is said of the rest, and how a change is followed."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pool_server.app.tls.pair import CertificatePair, is_for, load_pair, pair_files
from pool_server.app.tls.served import ServedCertificate
from pool_server.core.settings import ConfigError
from pool_server.core.settings_file import load
from tests.certificates import DAY_S, Authority, key_pem


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def cert(tmp_path: Path) -> Path:
    return tmp_path / "cert.pem"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "key.pem"


def test_a_pair_says_when_it_ends_and_whom_it_is_for(authority: Authority, cert: Path, key: Path) -> None:
    authority.issue(cert, key, hosts=("pool.example.org", "192.0.2.7", "2001:db8::1"))
    pair = load_pair(cert, key)
    assert pair.names == ("pool.example.org", "192.0.2.7", "2001:db8::1")
    assert pair.ends == pytest.approx(time.time() + 90 * DAY_S, abs=60)
    assert pair.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert pair.context.options & ssl.OP_NO_RENEGOTIATION
    names = {one["name"] for one in pair.context.get_ciphers()}
    assert names and all(name.startswith(("TLS_", "ECDHE-")) for name in names)
    assert all("GCM" in name or "CHACHA20" in name or name.startswith("TLS_") for name in names)


def test_one_file_may_hold_both(authority: Authority, cert: Path, key: Path) -> None:
    authority.issue(cert, key)
    both = cert.with_name("both.pem")
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    assert load_pair(both, both).names == ("localhost", "127.0.0.1")


def _swap(cert: Path, key: Path) -> None:
    cert.write_bytes(key.read_bytes())


def _folder(cert: Path, key: Path) -> None:
    cert.unlink()
    cert.mkdir()


def _foreign_key(cert: Path, key: Path) -> None:
    key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))


def _locked(cert: Path, key: Path) -> None:
    key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"open sesame"))


def _chain_upside_down(cert: Path, key: Path) -> None:
    leaf, _, authority = cert.read_bytes().partition(b"-----END CERTIFICATE-----\n")
    cert.write_bytes(authority + leaf + b"-----END CERTIFICATE-----\n")


BROKEN: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no certificate file": (lambda cert, key: cert.unlink(), "tls_cert = '.*': there is no such file"),
    "no key file": (lambda cert, key: key.unlink(), "tls_key = '.*': there is no such file"),
    "a folder": (_folder, "tls_cert = '.*': cannot be read: Is a directory"),
    "empty": (lambda cert, key: cert.write_bytes(b""), "tls_cert = '.*': holds no certificate in PEM form"),
    "cut off": (lambda cert, key: cert.write_bytes(cert.read_bytes()[:200]), "holds no certificate in PEM form"),
    "binary": (lambda cert, key: cert.write_bytes(bytes(range(256)) * 9), "holds no certificate in PEM form"),
    "swapped": (_swap, "tls_cert = '.*': holds no certificate in PEM form"),
    "key cut off": (lambda cert, key: key.write_bytes(key.read_bytes()[:60]), "tls_key = '.*': holds no private key"),
    "key is text": (lambda cert, key: key.write_text("SECRET"), "tls_key = '.*': holds no private key in PEM form"),
    "huge": (lambda cert, key: key.write_bytes(b"x" * (2 << 20)), "tls_key = '.*': is larger than 1 MiB"),
    "another's key": (_foreign_key, "is not the key of the first certificate in .*cert.pem"),
    "passphrase": (_locked, "is protected by a passphrase"),
    "authority first": (_chain_upside_down, "is not the key of the first certificate"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_pair_that_cannot_be_served_is_one_clear_line(
    authority: Authority, cert: Path, key: Path, broken: str
) -> None:
    authority.issue(cert, key)
    spoil, words = BROKEN[broken]
    spoil(cert, key)
    with pytest.raises(ConfigError, match=words) as told:
        load_pair(cert, key)
    assert "\n" not in str(told.value)
    assert "SECRET" not in str(told.value)


@pytest.mark.parametrize("bits", [1024, 2048])
def test_a_key_too_short_for_today_is_refused(authority: Authority, cert: Path, key: Path, bits: int) -> None:
    authority.issue(cert, key, own=rsa.generate_private_key(65537, bits))
    if bits == 2048:
        assert load_pair(cert, key).names
    else:
        with pytest.raises(ConfigError, match=r"tls_cert = '.*': TLS cannot use it: ee key too small"):
            load_pair(cert, key)


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (-DAY_S, 90 * DAY_S, ""),
        (-80 * DAY_S, 13 * DAY_S, "the TLS certificate ends at "),
        (-5 * DAY_S, 2 * DAY_S, ""),
        (-6 * DAY_S, 1 * DAY_S, "the TLS certificate ends at "),
        (-90 * DAY_S, -60.0, "the TLS certificate ended at .*: clients refuse it"),
        (DAY_S, 90 * DAY_S, "the TLS certificate is not valid before "),
    ],
)
def test_the_operator_is_told_of_its_end_in_time(begins: float, ends: float, words: str) -> None:
    now = 1_800_000_000.0
    pair = CertificatePair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), now + begins, now + ends, ())
    if words:
        with pytest.raises(ConfigError, match=words):
            raise ConfigError(pair.trouble(now))
    else:
        assert pair.trouble(now) == ""


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("pool.example.org", True), ("POOL.Example.org.", True), ("a.wild.example.org", True),
        ("a.b.wild.example.org", False), ("wild.example.org", False), ("example.org", False), ("192.0.2.1", True),
        ("192.0.2.2", False), ("[2001:db8::1]", True), ("2001:DB8:0::1", True), ("localhost", False), ("", False),
    ],
)  # fmt: skip
def test_whom_a_certificate_is_for(host: str, fits: bool) -> None:
    assert is_for(("pool.example.org", "*.wild.example.org", "*", "192.0.2.1", "2001:db8::1"), host) is fits


@pytest.mark.parametrize(("given", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
@pytest.mark.parametrize("where", ["file", "environment"])
def test_both_settings_or_neither(tmp_path: Path, given: str, missing: str, where: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'{given} = "x.pem"\n' if where == "file" else "")
    env = {} if where == "file" else {f"POOL_{given.upper()}": "x.pem"}
    with pytest.raises(ConfigError, match=f"{given} = 'x.pem': {missing} must be set too, or neither"):
        pair_files(load(file, env).settings)
    both = load(file, env | {f"POOL_{missing.upper()}": "y.pem"}).settings
    assert {one.name for one in pair_files(both) or ()} == {"x.pem", "y.pem"}
    assert both.scheme == "https"
    assert pair_files(load(None, {}).settings) is None


def later(*files: Path) -> None:
    """As if they had been written a while after: two writes may fall into one tick of the file system's clock."""
    for number, file in enumerate(files):
        if file.exists():
            stamp = time.time() + 5 + number
            os.utime(file, (stamp, stamp))


def test_a_new_pair_is_taken(authority: Authority, cert: Path, key: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority.issue(cert, key, ends=20 * DAY_S)
    caplog.set_level(logging.INFO)

    async def test() -> None:
        served = ServedCertificate(cert, key, clock=time.time)
        first = served.context()
        await served.look()
        assert served.context() is first
        authority.issue(cert, key, ends=80 * DAY_S)
        later(cert, key)
        await served.look()
        assert served.context() is not first
        assert served.pair.ends == pytest.approx(time.time() + 80 * DAY_S, abs=60)
        assert (served.fault, served.trouble) == ("", "")

    asyncio.run(test())
    assert "the TLS certificate was read again" in caplog.text


@pytest.mark.parametrize("broken", BROKEN)
def test_a_bad_new_pair_keeps_the_one_before_and_says_so(
    authority: Authority, cert: Path, key: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority.issue(cert, key)

    async def test() -> None:
        served = ServedCertificate(cert, key, clock=time.time)
        first = served.context()
        BROKEN[broken][0](cert, key)
        later(cert, key)
        for _ in range(3):
            await served.look()
        assert served.context() is first
        assert served.trouble.startswith("the TLS certificate stays the one before, until ")
        assert caplog.text.count("stays the one before") == 1, "told once"
        if cert.is_dir():
            cert.rmdir()
        authority.issue(cert, key)
        later(key, cert)
        await served.look()
        assert served.context() is not first
        assert served.trouble == ""

    asyncio.run(test())


@pytest.mark.parametrize(("begins", "ends"), [(-90 * DAY_S, -60.0), (DAY_S, 90 * DAY_S)])
def test_a_new_pair_whose_time_is_not_now_replaces_none_that_is_valid(
    authority: Authority, cert: Path, key: Path, begins: float, ends: float
) -> None:
    authority.issue(cert, key)

    async def test() -> None:
        served = ServedCertificate(cert, key, clock=time.time)
        first = served.context()
        authority.issue(cert, key, begins=begins, ends=ends)
        later(cert, key)
        await served.look()
        assert served.context() is first
        assert served.fault

        expired = ServedCertificate(cert, key, clock=time.time)
        assert expired.trouble, "served all the same at the start, and told"
        before = expired.context()
        authority.issue(cert, key, begins=begins, ends=ends)
        later(key, cert)
        await expired.look()
        assert expired.context() is not before

    asyncio.run(test())
