"""A text as a QR code (ISO/IEC 18004): byte mode, error correction M, versions 1 to 10. Pure.

The order of work is the standard's: the bytes become codewords, each block gets its Reed-Solomon remainder, the blocks
are interleaved, the bits go into the matrix in zigzag around the patterns, and the mask with the lowest penalty is laid
over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

Matrix = list[list[bool]]
Cell = tuple[int, int, bool]  # row, column, dark

# Per version from 1: error correction codewords a block, and the data codewords of each block.
_BLOCKS: tuple[tuple[int, tuple[int, ...]], ...] = (
    (10, (16,)),
    (16, (28,)),
    (26, (44,)),
    (18, (32,) * 2),
    (24, (43,) * 2),
    (16, (27,) * 4),
    (18, (31,) * 4),
    (22, (38, 38, 39, 39)),
    (22, (36, 36, 36, 37, 37)),
    (26, (43, 43, 43, 43, 44)),
)
_ALIGNED = ((), (6, 18), (6, 22), (6, 26), (6, 30), (6, 34), (6, 22, 38), (6, 24, 42), (6, 26, 46), (6, 28, 50))
_MASKS: tuple[Callable[[int, int], bool], ...] = (
    lambda row, col: (row + col) % 2 == 0,
    lambda row, col: row % 2 == 0,
    lambda row, col: col % 3 == 0,
    lambda row, col: (row + col) % 3 == 0,
    lambda row, col: (row // 2 + col // 3) % 2 == 0,
    lambda row, col: row * col % 2 + row * col % 3 == 0,
    lambda row, col: (row * col % 2 + row * col % 3) % 2 == 0,
    lambda row, col: ((row + col) % 2 + row * col % 3) % 2 == 0,
)
_LIKE_A_FINDER = (
    [True, False, True, True, True, False, True, False, False, False, False],
    [False, False, False, False, True, False, True, True, True, False, True],
)
QUIET = 4  # modules of margin


def _powers() -> tuple[list[int], list[int]]:
    """Exponents and logarithms of GF(256) with the polynomial 0x11d."""
    exp, log, value = [0] * 512, [0] * 256, 1
    for power in range(255):
        exp[power] = exp[power + 255] = value
        log[value] = power
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return exp, log


_EXP, _LOG = _powers()


def matrix(text: str) -> Matrix:
    """The modules, dark = True, without a margin. Raises ValueError for a text that is too long."""
    data = text.encode()
    version = next((n for n, (_, sizes) in enumerate(_BLOCKS, 1) if _room(n, sizes) >= len(data)), 0)
    if not version:
        raise ValueError("too long for a QR code")
    bits = list(_bits(_interleaved(version, _codewords(version, data))))
    cells, fixed = _patterns(version)
    _place(cells, fixed, bits)
    best: tuple[int, Matrix] | None = None
    for number, mask in enumerate(_MASKS):
        tried = [
            [cell if fixed[r][c] else cell ^ mask(r, c) for c, cell in enumerate(row)] for r, row in enumerate(cells)
        ]
        _format(tried, number)
        found = _penalty(tried)
        if best is None or found < best[0]:
            best = (found, tried)
    assert best is not None
    return best[1]


def _room(version: int, sizes: tuple[int, ...]) -> int:
    """Bytes that fit: the mode and the length take 12 bits, from version 10 on 20."""
    return (sum(sizes) * 8 - (12 if version < 10 else 20)) // 8


def _codewords(version: int, data: bytes) -> list[int]:
    total = sum(_BLOCKS[version - 1][1])
    length = 8 if version < 10 else 16
    value, width = 0b0100 << length | len(data), 4 + length
    value, width = value << 8 * len(data) | int.from_bytes(data, "big"), width + 8 * len(data)
    ending = min(4, total * 8 - width)
    value, width = value << ending, width + ending
    value, width = value << -width % 8, width + -width % 8
    words = list(value.to_bytes(width // 8, "big"))
    return words + [0xEC if n % 2 == 0 else 0x11 for n in range(total - len(words))]


def _remainder(data: list[int], count: int) -> list[int]:
    """The Reed-Solomon codewords of a block."""
    generator = [1]
    for power in range(count):
        longer = [*generator, 0]
        for at, factor in enumerate(generator):
            longer[at + 1] ^= _times(factor, _EXP[power])
        generator = longer
    rest = data + [0] * count
    for at in range(len(data)):
        lead = rest[at]
        for step, factor in enumerate(generator):
            rest[at + step] ^= _times(factor, lead)
    return rest[len(data) :]


def _times(one: int, other: int) -> int:
    return _EXP[_LOG[one] + _LOG[other]] if one and other else 0


def _interleaved(version: int, words: list[int]) -> list[int]:
    count, sizes = _BLOCKS[version - 1]
    blocks, at = [], 0
    for size in sizes:
        blocks.append(words[at : at + size])
        at += size
    checks = [_remainder(block, count) for block in blocks]
    data = [block[n] for n in range(max(sizes)) for block in blocks if n < len(block)]
    return data + [check[n] for n in range(count) for check in checks]


def _bits(words: list[int]) -> Iterator[bool]:
    for word in words:
        for place in range(7, -1, -1):
            yield bool(word >> place & 1)


def _patterns(version: int) -> tuple[Matrix, Matrix]:
    """The matrix with its fixed patterns, and where they are."""
    size = 17 + 4 * version
    cells = [[False] * size for _ in range(size)]
    fixed = [[False] * size for _ in range(size)]

    def put(row: int, col: int, dark: bool) -> None:
        if 0 <= row < size and 0 <= col < size:
            cells[row][col], fixed[row][col] = dark, True

    for row, col, dark in (*_timing(size), *_finders(size), *_alignments(version, size)):
        put(row, col, dark)
    for n in range(9):  # kept for the format
        put(8, n, cells[8][n] if fixed[8][n] else False)
        put(n, 8, cells[n][8] if fixed[n][8] else False)
    for n in range(8):
        put(8, size - 1 - n, False)
        put(size - 1 - n, 8, n == 7)
    for row, col, dark in _version_bits(version, size):
        put(row, col, dark)
    return cells, fixed


def _timing(size: int) -> Iterator[Cell]:
    for n in range(size):
        yield 6, n, n % 2 == 0
        yield n, 6, n % 2 == 0


def _finders(size: int) -> Iterator[Cell]:
    for top, left in ((0, 0), (0, size - 7), (size - 7, 0)):
        for r, c in product(range(-1, 8), repeat=2):
            yield top + r, left + c, max(abs(r - 3), abs(c - 3)) in (0, 1, 3)


def _alignments(version: int, size: int) -> Iterator[Cell]:
    ends = {(6, 6), (6, size - 7), (size - 7, 6)}
    for row, col in product(_ALIGNED[version - 1], repeat=2):
        if (row, col) not in ends:
            for r, c in product(range(-2, 3), repeat=2):
                yield row + r, col + c, max(abs(r), abs(c)) != 1


def _version_bits(version: int, size: int) -> Iterator[Cell]:
    """The version itself, twice; the smaller ones do without."""
    if version >= 7:
        told = version << 12 | _bch(version, 0x1F25, 12)
        for n in range(18):
            yield n // 3, size - 11 + n % 3, bool(told >> n & 1)
            yield size - 11 + n % 3, n // 3, bool(told >> n & 1)


def _bch(value: int, generator: int, bits: int) -> int:
    rest = value << bits
    while rest.bit_length() > bits:
        rest ^= generator << rest.bit_length() - generator.bit_length()
    return rest


def _place(cells: Matrix, fixed: Matrix, bits: list[bool]) -> None:
    """The bits in columns of two, from the right, upwards and downwards in turn; what is left over stays light."""
    size, at = len(cells), 0
    columns = [col for col in range(size - 1, 0, -2) if col > 6] + [5, 3, 1]
    for turn, right in enumerate(columns):
        for step in range(size):
            row = step if turn % 2 else size - 1 - step
            for col in (right, right - 1):
                if not fixed[row][col]:
                    cells[row][col] = at < len(bits) and bits[at]
                    at += 1


def _format(cells: Matrix, mask: int) -> None:
    """Level M (00) and the mask, twice around the finders."""
    size = len(cells)
    told = (mask << 10 | _bch(mask, 0x537, 10)) ^ 0x5412
    for n in range(15):
        dark = bool(told >> n & 1)
        first = (n + (n > 5), 8) if n < 8 else (8, 7 if n == 8 else 14 - n)
        second = (8, size - 1 - n) if n < 8 else (size - 15 + n, 8)
        for row, col in (first, second):
            cells[row][col] = dark


def _penalty(cells: Matrix) -> int:
    size, found = len(cells), 0
    for line in (*cells, *(list(column) for column in zip(*cells, strict=True))):
        run = 1
        for before, now in zip(line, [*line[1:], None], strict=True):
            if now is before:
                run += 1
                continue
            found += run - 2 if run >= 5 else 0
            run = 1
        found += sum(40 for n in range(size - 10) if line[n : n + 11] in _LIKE_A_FINDER)
    for r in range(size - 1):
        for c in range(size - 1):
            found += 3 * (cells[r][c] == cells[r][c + 1] == cells[r + 1][c] == cells[r + 1][c + 1])
    dark = sum(map(sum, cells)) * 100 / size**2
    return found + 10 * int(abs(dark - 50) / 5)


class DrawnCode(NamedTuple):
    """A code for an SVG: the length of its sides with the margin, and its dark modules as a path."""

    size: int
    path: str


def drawn(text: str) -> DrawnCode | None:
    """None for a text that is too long."""
    try:
        cells = matrix(text)
    except ValueError:
        return None
    path = "".join(
        f"M{c + QUIET} {r + QUIET}h1v1h-1z" for r, row in enumerate(cells) for c, dark in enumerate(row) if dark
    )
    return DrawnCode(len(cells) + 2 * QUIET, path)


def blocks(text: str) -> str:
    """The code for a terminal, two modules a character, light on whatever the terminal has: "" for a text too long."""
    try:
        cells = matrix(text)
    except ValueError:
        return ""
    wide = len(cells) + 2 * QUIET
    edge = [[False] * wide for _ in range(QUIET)]
    rows = [*edge, *([False] * QUIET + row + [False] * QUIET for row in cells), *edge]
    rows += [[False] * wide] * (len(rows) % 2)
    shown = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
    return "\n".join(
        "".join(shown[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
