"""Reads all of an environment in a process of its own: the engine may die of damage instead of saying so."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import lmdb

from pool_server.storage.errors import StoreDamagedError

DATA_FILE = "data.mdb"
TIMEOUT_S = 600.0
_SCRIPT = (
    f"import sys, pathlib; from {__name__} import read_all; "
    "print(read_all(pathlib.Path(sys.argv[1]), live=sys.argv[2] == 'live'))"
)
_MIN_MAP = 1 << 30

# The engine's file format (LMDB 0.9, 64-bit): header of a page, header of a node, and where a record of a table (48
# bytes) and the first two pages, which hold those of the two main trees and the transaction's number, have their parts.
_page = struct.Struct("=QHHHH")  # number, padding, flags, end of the node pointers, begin of the nodes
_node = struct.Struct("=HHHH")  # size (leaf) or page number (branch) low and middle, flags or page high, key size
_ENTRIES, _FLAGS = 32, 4 if sys.byteorder == "little" else 5  # of a record, behind which its root; of a node
_META_FREE = _page.size + 24
_META_MAIN = _META_FREE + 48
_META_TXN = _META_MAIN + 48 + 8
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04  # kinds of pages
_BIG_DATA, _TABLE = 0x01, 0x02  # kinds of nodes: the value lies in pages of its own, or is a table's record
_NO_PAGE = (1 << 64) - 1


def verify(folder: Path, *, live: bool = False) -> int:
    """The number of keys in the environment, all of them read. `live`: other processes may write to it meanwhile.

    Raises StoreDamaged. Blocks as long as reading takes.
    """
    command = [sys.executable, "-c", _SCRIPT, str(folder), "live" if live else "alone"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise StoreDamagedError(f"{folder / DATA_FILE} could not be read within {TIMEOUT_S:.0f} s") from None
    if done.returncode or not done.stdout.strip().isdigit():
        why = (done.stderr.strip().splitlines() or [f"reading it ended with {done.returncode}"])[-1]
        raise StoreDamagedError(f"{folder / DATA_FILE} is damaged: {why}")
    return int(done.stdout)


class Walked(NamedTuple):
    """What was found in use: pages, keys of the tables, and entries of the tree itself, which names tables or pages."""

    pages: int
    keys: int
    entries: int = 0


_UNREAD = Walked(0, 0)


def read_all(folder: Path, *, live: bool = False) -> int:
    """Count the keys of every table, and see that each page is whole, those of the list of free pages too, without
    which nothing can be written. Raises what the engine raises, or ValueError."""
    data = folder / DATA_FILE
    map_size = max(_MIN_MAP, 2 * data.stat().st_size)
    with lmdb.open(str(folder), readonly=True, lock=live, max_dbs=64, map_size=map_size) as env, env.begin() as txn:
        with data.open("rb") as file:
            found = walk(file.fileno(), int(env.stat()["psize"]), txn.id())
        if found.pages:
            return found.keys
        tables = [env.open_db(name, txn=txn, create=False) for name, _ in txn.cursor()]
        return sum(sum(1 for _ in txn.cursor(db=table)) for table in tables)


def read_pages(descriptor: int, page_size: int, txn: int) -> int:
    """How many pages transaction `txn` left in use; see `walk`."""
    return walk(descriptor, page_size, txn).pages


def walk(descriptor: int, page_size: int, txn: int) -> Walked:
    """What transaction `txn` left in use, each page of it read from the file.

    The engine itself takes the missing end of a page for zeros, and offers no way to read its list of free pages.
    Raises ValueError when a page is cut off or is not what it should be, or a table has not as many entries as it says.
    Nothing when later transactions have overwritten where this one's trees begin: then another process is at work on
    the file already.
    """

    def page(number: int, count: int = 1) -> bytes:
        found = os.pread(descriptor, count * page_size, number * page_size)
        if len(found) < count * page_size:
            raise ValueError(f"page {number} is cut off")
        return found

    if sys.maxsize < 1 << 32:
        return _UNREAD  # a format of its own, with smaller numbers
    for meta in (page(0), page(1)):
        if struct.unpack_from("=Q", meta, _META_TXN)[0] == txn:
            free, main = (_walk(page, page_size, meta, record) for record in (_META_FREE, _META_MAIN))
            return Walked(free.pages + main.pages, main.keys)
    return _UNREAD


def _walk(page: Callable[..., bytes], page_size: int, raw: bytes, record: int) -> Walked:
    """The tree whose record stands at `record` of `raw`."""
    entries, root = struct.unpack_from("=QQ", raw, record + _ENTRIES)
    found = _UNREAD if root == _NO_PAGE else _walk_page(page, page_size, root)
    if found.entries != entries:
        raise ValueError(f"a tree holds {found.entries} entries and says {entries}")
    return found


def _walk_page(page: Callable[..., bytes], page_size: int, number: int) -> Walked:
    raw = page(number)
    found, _, kind, lower, _ = _page.unpack_from(raw)
    if found != number or not kind & (_BRANCH | _LEAF):
        raise ValueError(f"page {number} holds something else")
    nodes = memoryview(raw)[_page.size : lower].cast("H") if _page.size < lower < page_size else ()
    if not nodes or min(nodes) < lower or max(nodes) > page_size - _node.size:
        raise ValueError(f"page {number} has no whole nodes")
    if kind & _BRANCH:
        return _walk_branch(page, page_size, raw, nodes)
    pages, keys = 1, 0
    for at in nodes:
        if not (flags := raw[at + _FLAGS]):  # nearly all: what is read here of each costs a large store seconds
            continue
        if flags & _BIG_DATA:
            low, middle, _, key_size = _node.unpack_from(raw, at)
            (first,) = struct.unpack_from("=Q", raw, at + _node.size + key_size)
            pages += _overflow(page, first, -(-(_page.size + (low | middle << 16)) // page_size))
        elif flags & _TABLE:
            key_size = _node.unpack_from(raw, at)[3]
            table = _walk(page, page_size, raw, at + _node.size + key_size)
            pages, keys = pages + table.pages, keys + table.entries
    return Walked(pages, keys, len(nodes))


def _walk_branch(page: Callable[..., bytes], page_size: int, raw: bytes, nodes: Sequence[int]) -> Walked:
    pages, keys, entries = 1, 0, 0
    for at in nodes:
        low, middle, high, _ = _node.unpack_from(raw, at)
        below = _walk_page(page, page_size, low | middle << 16 | high << 32)
        pages, keys, entries = pages + below.pages, keys + below.keys, entries + below.entries
    return Walked(pages, keys, entries)


def _overflow(page: Callable[..., bytes], first: int, count: int) -> int:
    begun, _, kind, _, _ = _page.unpack_from(page(first, count))
    if begun != first or not kind & _OVERFLOW:
        raise ValueError(f"page {first} holds something else")
    return count
