"""Transactions that are gathered in memory: seen at once, in the store together, all of a change or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.storage import Store, StoreFullError
from pool_server.storage.lmdb.gathered_writes import GatheredWrites, RowChanges

WITHIN_S = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path, tables=("a", "urgent"), durable=False, map_size=1 << 24)
    yield store
    store.close()


def gathering(store: Store, within_s: float = WITHIN_S) -> GatheredWrites:
    return GatheredWrites(store, within_s=within_s, at_once=frozenset(("urgent",)))


def puts(table: str, key: bytes, value: bytes) -> Callable[[RowChanges], None]:
    return lambda txn: txn.put(table, key, value)


def deletes(table: str, key: bytes) -> Callable[[RowChanges], bool]:
    return lambda txn: txn.delete(table, key)


def test_a_change_is_read_at_once_and_committed_with_those_after_it(store: Store) -> None:
    async def main() -> None:
        rows = gathering(store)
        rows.write(puts("a", b"1", b"one"))
        rows.write(puts("a", b"2", b"two"))
        assert rows.write(lambda txn: txn.delete("a", b"1"))
        assert (rows.get("a", b"1"), rows.get("a", b"2"), rows.gathered("a", b"2")) == (None, b"two", True)
        assert store.get("a", b"2") is None
        rows.write(puts("urgent", b"k", b""))
        assert (store.get("a", b"1"), store.get("a", b"2"), store.get("urgent", b"k")) == (None, b"two", b"")
        assert not rows.gathered("a", b"2")

    asyncio.run(main())


def test_it_is_in_the_store_in_time_and_at_once_where_no_loop_runs(store: Store) -> None:
    async def main() -> None:
        rows = gathering(store, 0.001)
        rows.write(puts("a", b"1", b"one"))
        while store.get("a", b"1") is None:
            await asyncio.sleep(0.001)

    asyncio.run(main())
    rows = gathering(store)
    rows.write(puts("a", b"2", b"two"))
    assert store.get("a", b"2") == b"two"


def test_a_change_that_breaks_off_leaves_nothing(store: Store) -> None:
    def breaks(txn: RowChanges) -> None:
        txn.put("a", b"1", b"half")
        raise ValueError

    async def main() -> None:
        rows = gathering(store)
        rows.write(puts("a", b"1", b"one"))
        with pytest.raises(ValueError):
            rows.write(breaks)
        assert rows.get("a", b"1") == b"one"

    asyncio.run(main())


def test_while_the_store_fails_a_change_is_told_and_what_was_gathered_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fn: Callable[..., Any]) -> Any:
        raise StoreFullError("no space left")

    async def main() -> None:
        rows = gathering(store, 0.001)
        with monkeypatch.context() as broken:
            broken.setattr(store, "write", full)
            rows.write(puts("a", b"1", b"one"))
            with pytest.raises(StoreFullError):
                rows.write(puts("urgent", b"k", b""))
            assert (rows.get("a", b"1"), rows.get("urgent", b"k")) == (b"one", None)
            while not rows._fails:
                await asyncio.sleep(0.001)
            with pytest.raises(StoreFullError):
                rows.write(puts("a", b"2", b"two"))
            assert (rows.get("a", b"1"), rows.get("a", b"2")) == (b"one", None)
        rows.write(puts("a", b"3", b"three"))
        assert (store.get("a", b"1"), store.get("a", b"2"), store.get("a", b"3")) == (b"one", None, b"three")

    asyncio.run(main())


KEYS = st.sampled_from([b"1", b"2", b"3"])
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["put", "delete", "commit", "through", "urgent"]), KEYS, st.binary(min_size=1, max_size=3)
    ),
    max_size=30,
)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(CHANGES)
def test_any_order_reads_as_if_each_had_been_committed(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, bytes, bytes]]
) -> None:
    store = Store.open(tmp_path_factory.mktemp("rows"), tables=("a", "urgent"), durable=False, map_size=1 << 22)

    async def main() -> None:
        rows, model = gathering(store), dict[bytes, bytes]()
        for what, key, value in changes:
            if what == "commit":
                rows.commit()
                continue
            if what == "delete":
                assert rows.write(deletes("a", key)) == (model.pop(key, None) is not None)
            else:
                model[key] = value
                table = "urgent" if what == "urgent" else "a"
                rows.write(puts("a", key, value), gather=what != "through")
                if table == "urgent":
                    rows.write(puts("urgent", b"k", b""))
            assert {one: found for one in (b"1", b"2", b"3") if (found := rows.get("a", one)) is not None} == model
            if what in ("through", "urgent"):
                with store.read() as txn:
                    assert dict(txn.scan("a")) == model
        rows.commit()
        with store.read() as txn:
            assert dict(txn.scan("a")) == model

    try:
        asyncio.run(main())
    finally:
        store.close()


def test_what_the_store_says_is_remembered_until_another_may_change_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        rows, reads = gathering(store), list[bytes]()
        get = store.get

        def counted(table: str, key: bytes) -> bytes | None:
            reads.append(key)
            return get(table, key)

        monkeypatch.setattr(store, "get", counted)
        look: Callable[[RowChanges], bytes | None] = lambda txn: txn.get("a", b"1")  # noqa: E731
        assert [rows.write(look), rows.write(look)] == [None, None] and len(reads) == 1
        rows.write(puts("a", b"1", b"one"))
        rows.commit()
        assert rows.write(look) == b"one" and len(reads) == 1
        store.write(puts("a", b"1", b"another"))
        rows.share()
        assert rows.write(look, gather=False) == b"another"
        store.write(puts("a", b"1", b"third"))
        assert rows.write(look) == b"third"

    asyncio.run(main())
