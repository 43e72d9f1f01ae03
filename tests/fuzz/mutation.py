"""Inputs from a corpus: mixed, cut, changed. The seed of an input makes it again."""

from __future__ import annotations

import json
import random
from pathlib import Path

from pool_server.dialects.translation import UpstreamKind
from tests.dialects.translation import kit
from tests.fuzz.targets import COOKIE, TOKEN
from tests.http1.test_fuzz import REQUESTS, RESPONSES

CORPUS = Path(__file__).parent / "corpus"
_ODD = (
    b"\0", b"\r", b"\n", b"\r\n", b"\n\n", b'"', b"\\", b"{", b"}", b"[", b"]", b"%", b"&", b"=", b":", b"//",
    b"..", b".", b"-", b"--", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"1e999", b"-0", b"NaN", b"null",
    b"\\u0000", b"\\ud800",
)  # fmt: skip


def _requests() -> list[bytes]:
    turns = [("user", "?"), ("call", "c1", "moon", '{"a":1}'), ("result", "c1", "moon", "full"), ("assistant", "!")]
    return [
        json.dumps(kit.request(client, turns, tools=("moon",), stream=True, system="s")).encode()
        for client in kit.CLIENTS
    ]


def _answers() -> list[bytes]:
    blocks = [("think", "Wind.", "CtcCAdHtim9k"), ("text", "Sail."), ("call", "c1", "moon", '{"a":1}')]
    kinds = list(UpstreamKind)
    return [b"".join(kit.events(kind, blocks)) for kind in kinds] + [kit.answer(kind, blocks) for kind in kinds]


_MADE = {
    "http_server": lambda: list(REQUESTS),
    "http_client": lambda: list(RESPONSES),
    "translated_request": _requests,
    "translated_answer": _answers,
}


def seeds(target: str) -> list[bytes]:
    """The inputs of a target's corpus: those of other tests, or one a line, with Python's escapes, # for a remark."""
    if target in _MADE:
        return _MADE[target]()
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
