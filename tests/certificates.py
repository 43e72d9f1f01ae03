"""Certificates for tests: an authority of one's own, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

DAY_S = 86_400.0
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def key_pem(key: Key, passphrase: bytes = b"") -> bytes:
    kept = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept)


class Authority:
    """Signs certificates; `file` is what clients are to trust."""

    def __init__(self, folder: Path, name: str = "an authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key, time.time() - DAY_S, time.time() + 3650 * DAY_S)
        signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
        self.pem = signed.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.pem)

    def _builder(self, subject: x509.Name, key: Key, begins: float, ends: float) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.fromtimestamp(int(begins), datetime.UTC))
            .not_valid_after(datetime.datetime.fromtimestamp(int(ends), datetime.UTC))
        )

    def issue(
        self,
        cert: Path,
        key: Path,
        *,
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        begins: float = -DAY_S,
        ends: float = 90 * DAY_S,
        own: Key | None = None,
    ) -> Key:
        """Writes a certificate, with the authority's behind it, and its key; times are seconds from now."""
        own = own or ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a pool")])
        builder = self._builder(subject, own, time.time() + begins, time.time() + ends)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        ).sign(self._key, hashes.SHA256())
        cert.write_bytes(signed.public_bytes(Encoding.PEM) + self.pem)
        key.write_bytes(key_pem(own))
        key.chmod(0o600)
        return own
