"""Inputs from a corpus: mixed, cut, changed. The seed of an input makes it again."""

from __future__ import annotations

import random
from pathlib import Path

from tests.fuzz.targets import COOKIE, TOKEN

CORPUS = Path(__file__).parent / "corpus"
_ODD = (
    b"\0", b"\r", b"\n", b"\r\n", b"\n\n", b'"', b"\\", b"{", b"}", b"[", b"]", b"%", b"&", b"=", b":", b"//",
    b"..", b".", b"-", b"--", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"1e999", b"-0", b"NaN", b"null",
    b"\\u0000", b"\\ud800",
)  # fmt: skip


def seeds(target: str) -> list[bytes]:
    """The inputs of a target's corpus: one a line, with Python's escapes, # for a remark."""
    lines = (CORPUS / f"{target}.txt").read_text(encoding="ascii").splitlines()
    found = [line.encode().decode("unicode_escape").encode("latin-1") for line in lines if line and line[0] != "#"]
    return [*found, TOKEN.encode(), COOKIE.encode()] if target == "token" else found


def mutated(corpus: list[bytes], seed: int) -> bytes:
    """The input of this seed."""
    rng = random.Random(seed)
    data = rng.choice(corpus)
    if rng.random() < 0.2:
        other = rng.choice(corpus)
        data = data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        at = rng.randint(0, len(data))
        end = min(len(data), at + rng.choice((0, 0, 1, 2, 9)))
        part = data[at : at + rng.randint(1, 30)]
        new = rng.choice((b"", rng.choice(_ODD), rng.randbytes(rng.randint(1, 4)), part * rng.choice((1, 2, 40))))
        data = data[:at] + new + data[end:]
    return data
