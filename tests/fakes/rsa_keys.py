"""RSA keys of the fakes: making one costs a tenth of a second, so each is made once a process."""

from __future__ import annotations

import functools

from cryptography.hazmat.primitives.asymmetric import rsa


def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    """The same key for the same number."""
    return _made(number)


@functools.cache
def _made(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
