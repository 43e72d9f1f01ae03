"""Every worker takes in every change once, in order, or is told that it missed some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.storage import Store, StoreError
from pool_server.storage.change_feed import ChangeFeed, append, next_number
from pool_server.storage.write_behind import WriteBehind

MOST = 4


class Memory:
    """A table as a follower reads it."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.readable = True

    def last(self, _: str) -> bytes | None:
        return max(self.rows, default=None) if self.readable else None

    def after(self, _: str, key: bytes) -> list[tuple[bytes, bytes]] | None:
        return sorted((k, v) for k, v in self.rows.items() if k > key) if self.readable else None

    def put(self, _: str, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def delete(self, _: str, key: bytes) -> None:
        self.rows.pop(key, None)


@given(st.lists(st.sampled_from(["append", "own", "read", "some", "broken"]), max_size=40))
def test_nothing_is_missed_silently_and_nothing_comes_twice(steps: list[str]) -> None:
    table = Memory()
    feed = ChangeFeed(table, "log")
    told: list[bytes | None] = []
    own: set[bytes] = set()
    number = 0
    for step in [*steps, "read"]:
        table.readable = step != "broken"
        if step in ("append", "own"):
            entry = b"%d" % (number := number + 1)
            given_number = append(table, "log", entry, most=MOST)  # type: ignore[arg-type]
            if step == "own":
                feed.made(given_number)
                own.add(entry)
        elif step == "some":
            told += [entry for _, entry in zip(range(1), feed.news(), strict=False)]
        else:
            told += feed.news()
    entries = [int(entry) for entry in told if entry is not None]
    assert entries == sorted(set(entries)), "each once, in order"
    missed = set(range(1, number + 1)) - set(entries)
    assert None in told or missed <= {int(entry) for entry in own}
    assert len(table.rows) <= MOST


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "s", tables=("log", "other"), durable=False)
    yield opened
    opened.close()


def test_workers_begin_where_the_table_stands_and_hear_what_follows(store: Store) -> None:
    store.write(lambda txn: append(txn, "log", b"before", most=MOST))
    one, two = ChangeFeed(store, "log"), ChangeFeed(WriteBehind(store, lambda: 0.0), "log")
    assert list(one.news()) == list(two.news()) == []
    store.write(lambda txn: [append(txn, "log", b"%d" % n, most=MOST) for n in range(3)])
    assert list(one.news()) == list(two.news()) == [b"0", b"1", b"2"]
    store.write(lambda txn: [append(txn, "log", b"%d" % n, most=MOST) for n in range(9)])
    assert list(one.news()) == [None, b"5", b"6", b"7", b"8"] and list(one.news()) == []
    with store.read() as txn:
        assert txn.count("log") == MOST and next_number(txn, "log") == 14 and next_number(txn, "other") == 1


def test_an_entry_that_fails_is_taken_and_the_next_one_not(store: Store) -> None:
    feed = ChangeFeed(store, "log")
    store.write(lambda txn: [append(txn, "log", b"%d" % n, most=MOST) for n in range(3)])
    with pytest.raises(RuntimeError):
        for _ in feed.news():
            raise RuntimeError
    assert list(feed.news()) == [b"1", b"2"]


def test_a_store_that_cannot_be_read_has_no_news_and_all_of_it_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = ChangeFeed(WriteBehind(store, lambda: 0.0), "log")
    store.write(lambda txn: append(txn, "log", b"x", most=MOST))

    def broken(*_: object) -> None:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", broken)
        assert list(feed.news()) == []
    assert list(feed.news()) == [b"x"]
