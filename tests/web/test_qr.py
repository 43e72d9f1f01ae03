"""QR codes: as another implementation draws them, and of the standard's structure for any text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.web.sign_ins import qr

# Full codes of every version, whose modules an independent library drew alike: bytes → the beginning of a hash.
DRAWN = {
    14: "96ce395ec907ea0b", 26: "228eb4d717b6fcf0", 42: "cdd5e93a8ab1f397", 62: "3ca8432f66d9f716",
    84: "efef873375ea5c3b", 106: "c474bdfc26940cbb", 122: "b764d90389c264f5", 152: "da0663a1f8739722",
    180: "3dbfca4077292549", 213: "a27382bba2ab1cda",
}  # fmt: skip
FINDER = [[max(abs(r - 3), abs(c - 3)) in (0, 1, 3) for c in range(7)] for r in range(7)]


@pytest.mark.parametrize("length", DRAWN)
def test_codes_are_drawn_as_others_draw_them(length: int) -> None:
    cells = qr.matrix(("https://pool.example/?code=" * 9)[:length])
    drawn = "".join("#" if cell else "." for row in cells for cell in row)
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == DRAWN[length]


@settings(max_examples=15)
@given(st.text(max_size=60))
def test_every_code_has_its_finders_and_timing(text: str) -> None:
    cells = qr.matrix(text)
    size = len(cells)
    for top, left in ((0, 0), (0, size - 7), (size - 7, 0)):
        assert [row[left : left + 7] for row in cells[top : top + 7]] == FINDER
    assert [cells[6][n] for n in range(8, size - 8)] == [n % 2 == 0 for n in range(8, size - 8)]
    assert cells[size - 8][8], "the dark module"


def test_a_text_that_is_too_long_has_no_code() -> None:
    with pytest.raises(ValueError, match="too long"):
        qr.matrix("x" * 214)
    assert qr.drawn("x" * 214) is None
    drawn = qr.drawn("a link")
    assert drawn is not None and drawn.size == 29, "with a margin of four"


def test_a_terminal_shows_the_same_modules() -> None:
    told = qr.blocks("otpauth://totp/pool").splitlines()
    cells = qr.matrix("otpauth://totp/pool")
    upper = {"█": False, "▀": False, "▄": True, " ": True}
    lower = {"█": False, "▀": True, "▄": False, " ": True}
    rows = [[table[char] for char in line] for line in told for table in (upper, lower)]
    inner = [row[qr.QUIET : -qr.QUIET] for row in rows[qr.QUIET : qr.QUIET + len(cells)]]
    assert inner == cells
    assert not any(any(row) for row in rows[: qr.QUIET])
    assert qr.blocks("x" * 300) == ""
