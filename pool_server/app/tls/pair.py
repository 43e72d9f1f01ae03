"""A certificate and its key, as two files: read, checked against each other, made into a context for connections.

cryptography is loaded where there is one: a start without TLS need not wait for it.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pool_server.core.settings import ConfigError, Settings

if TYPE_CHECKING:
    from cryptography import x509

_MOST_BYTES = 1 << 20  # of one file
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all modern
WARNED_S = 14 * 86_400.0  # before a certificate ends; one that lasts less than twice as long: before its last quarter


class CertificatePair(NamedTuple):
    """What connections are served with: `begins` and `ends` are unix seconds, `names` the hosts it is for."""

    context: ssl.SSLContext
    begins: float
    ends: float
    names: tuple[str, ...]

    def trouble(self, now: float) -> str:
        """What is or will soon be wrong with its time, "" for nothing. Pure."""
        if now < self.begins:
            return f"the TLS certificate is not valid before {_date(self.begins)}"
        if now >= self.ends:
            return f"the TLS certificate ended at {_date(self.ends)}: clients refuse it"
        if now >= self.ends - min(WARNED_S, (self.ends - self.begins) / 4):
            return f"the TLS certificate ends at {_date(self.ends)}"
        return ""

    @property
    def until(self) -> str:
        """When it ends, for people."""
        return _date(self.ends)


def pair_files(settings: Settings) -> tuple[Path, Path] | None:
    """Where certificate and key lie; None without TLS. Raises ConfigError where one is set alone."""
    if not settings.tls_cert and not settings.tls_key:
        return None
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if not getattr(settings, other):
            raise ConfigError(f"{one} = {getattr(settings, one)!r}: {other} must be set too, or neither")
    return Path(settings.tls_cert), Path(settings.tls_key)


def load_pair(cert: Path, key: Path) -> CertificatePair:
    """Both files, fit for each other and for TLS today. Raises ConfigError with one line that names the setting."""
    certificate = _certificate(cert)
    _check_key(certificate, cert, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError as error:  # too short for OpenSSL's level of security, or the files have changed just now
        reason = (error.reason or "refused by OpenSSL").lower().replace("_", " ")
        raise ConfigError(f"tls_cert = {str(cert)!r}: TLS cannot use it: {reason}") from None
    except OSError as error:
        raise ConfigError(f"tls_key = {str(key)!r}: cannot be read: {error.strerror}") from None
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return CertificatePair(context, begins.timestamp(), ends.timestamp(), _names(certificate))


def _certificate(path: Path) -> x509.Certificate:
    """The first certificate of a file, which must be the server's own."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        found = x509.load_pem_x509_certificates(_read("tls_cert", path))[0]
        found.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        why = "holds no certificate in PEM form" if isinstance(error, ValueError) else "its kind of key is not known"
        raise ConfigError(f"tls_cert = {str(path)!r}: {why}") from None
    return found


def _check_key(certificate: x509.Certificate, cert: Path, path: Path) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    where = f"tls_key = {str(path)!r}"
    try:
        key = load_pem_private_key(_read("tls_key", path), None)
    except TypeError:
        raise ConfigError(f"{where}: is protected by a passphrase: the server needs it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: holds no private key in PEM form") from None
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"{where}: is not the key of the first certificate in {cert}")


def _read(setting: str, path: Path) -> bytes:
    where = f"{setting} = {str(path)!r}"
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{where}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{where}: is larger than 1 MiB")
    return data


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    hosts = said.get_values_for_type(x509.DNSName)
    return (*hosts, *(str(one) for one in said.get_values_for_type(x509.IPAddress)))


def is_for(names: tuple[str, ...], host: str) -> bool:
    """Whether a certificate with these names is for a host, as RFC 9525 §6.3 has it: a wildcard stands for one label.

    >>> is_for(("*.example.org", "192.0.2.1"), "pool.example.org"), is_for(("*.example.org",), "a.b.example.org")
    (True, False)
    """
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        name = host.lower().rstrip(".")
        parent = name.partition(".")[2]
        return any(one.lower() in (name, f"*.{parent}") for one in names if parent or "*" not in one)
    return str(address) in names


def _date(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
