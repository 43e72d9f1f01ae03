"""What could not be written is read from memory, bounded, and written with the first write that succeeds again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.storage import Store, StoreError, StoreFullError, Txn
from pool_server.storage import write_behind as module
from pool_server.storage.write_behind import RETRY_S, WriteBehind


class Flaky:
    """A store that fails while it is told to; `tries` are the writes it was asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.failing = False
        self.tries = 0

    def write(self, fn: Callable[[Txn], Any]) -> Any:
        self.tries += 1
        if self.failing:
            raise StoreFullError("no space left")
        return self._store.write(fn)

    def __getattr__(self, name: str) -> Any:
        if self.failing:
            raise StoreError("nothing can be read")
        return getattr(self._store, name)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "s", tables=("a",), durable=False)
    yield opened
    opened.close()


@pytest.fixture
def flaky(store: Store) -> Flaky:
    return Flaky(store)


@pytest.fixture
def behind(flaky: Flaky) -> WriteBehind:
    return WriteBehind(flaky, Clock())  # type: ignore[arg-type]


def later(behind: WriteBehind, seconds: float = RETRY_S) -> None:
    behind._clock.now += seconds  # type: ignore[attr-defined]


def test_what_is_owed_is_read_and_written_in_its_order(behind: WriteBehind, flaky: Flaky, store: Store) -> None:
    behind.put("a", b"before", b"1")
    flaky.failing = True
    behind.put("a", b"k", b"1")
    behind.put("a", b"k", b"2")
    behind.put("a", b"gone", b"x")
    behind.delete("a", b"gone")
    assert behind.get("a", b"k") == b"2" and behind.get("a", b"gone") is None
    assert behind.owes("a", b"k") and behind.owes("a", b"gone") and not behind.owes("a", b"before")
    assert store.get("a", b"k") is None
    flaky.failing = False
    later(behind)
    assert behind.write(lambda txn: txn.get("a", b"k")) == b"2", "whoever writes finds what was owed"
    assert (store.get("a", b"k"), store.get("a", b"gone")) == (b"2", None)
    assert not behind.owes("a", b"k")
    behind.put("a", b"k", b"3")
    assert store.get("a", b"k") == b"3"


def test_a_store_that_fails_is_left_alone_for_a_while(
    behind: WriteBehind, flaky: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    flaky.failing = True
    for number in range(50):
        behind.put("a", b"k%d" % number, b"1")
    assert flaky.tries == 1 and len(caplog.records) == 1, "tried once, told once"
    with pytest.raises(StoreError, match="no space left"):
        behind.write(lambda _: None)
    behind.settle()
    assert flaky.tries == 1
    behind.settle(now=True)
    assert flaky.tries == 2 and behind.owes("a", b"k7")
    later(behind, -3600.0)  # the clock was set back: that is no reason to wait for an hour
    behind.settle()
    assert flaky.tries == 3
    flaky.failing = False
    behind.settle(now=True)
    assert not behind.owes("a", b"k7") and flaky.tries == 4
    behind.settle()
    assert flaky.tries == 4, "nothing is owed"


def test_nothing_that_is_read_raises(behind: WriteBehind, flaky: Flaky) -> None:
    behind.put("a", b"k1", b"1")
    behind.put("a", b"k2", b"2")
    assert behind.scan("a") == [(b"k1", b"1"), (b"k2", b"2")] and behind.last("a") == b"k2"
    assert behind.after("a", b"k1") == [(b"k2", b"2")] and behind.scan("a", limit=1) == [(b"k1", b"1")]
    flaky.failing = True
    assert behind.get("a", b"k1") is None and behind.last("a") is None
    assert behind.scan("a") is None and behind.after("a", b"k1") is None


def test_memory_has_an_end(behind: WriteBehind, flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OWED", 3)
    flaky.failing = True
    for number in (0, 1, 2, 0, 3):
        behind.put("a", b"%d" % number, b"v")
    assert [behind.owes("a", b"%d" % number) for number in range(4)] == [True, False, True, True], "the oldest goes"
