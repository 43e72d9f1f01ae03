"""Formats of a store: forward, never back, and for one version beside another."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool_server.storage import Store, StoreVersionError, Txn, outgrows

TABLES = ("a", "b")


def test_formats_go_forward_and_never_back(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    Store.open(folder, tables=TABLES, durable=True, version=1).close()
    with pytest.raises(StoreVersionError, match="no migration"):
        Store.open(folder, tables=TABLES, durable=True, version=3, migrations={1: lambda t: None})
    steps = {n: lambda t, n=n: t.put("a", b"step%d" % n, b"done") for n in (1, 2)}
    store = Store.open(folder, tables=TABLES, durable=True, version=3, migrations=steps)
    assert (store.get("a", b"step1"), store.get("a", b"step2")) == (b"done", b"done")
    store.close()
    with pytest.raises(StoreVersionError, match="format 3"):
        Store.open(folder, tables=TABLES, durable=True, version=2)


def test_a_release_that_only_adds_leaves_the_store_to_the_one_before(tmp_path: Path) -> None:
    """Expand: format 2 adds what format 1 does not look at. Contract: a later release stops writing the old way."""
    folder, table = tmp_path / "s", TABLES[0]
    Store.open(folder, tables=TABLES, durable=True, version=1).close()
    more = {1: lambda t: t.put(table, b"added", b"2"), 2: lambda t: t.delete(table, b"old")}
    expanded = Store.open(folder, tables=(*TABLES, "new"), durable=True, version=2, usable_from=1, migrations=more)
    expanded.write(lambda txn: txn.put("new", b"k", b"v"))
    expanded.close()
    assert not outgrows(folder, 1) and outgrows(folder, 2)
    older = Store.open(folder, tables=TABLES, durable=True, version=1)  # one version back still reads, and writes
    assert older.get(table, b"added") == b"2"
    older.write(lambda txn: txn.put(table, b"old", b"1"))
    older.close()
    newer = Store.open(folder, tables=(*TABLES, "new"), durable=True, version=2, usable_from=1, migrations=more)
    assert newer.get("new", b"k") == b"v" and newer.get(table, b"old") == b"1"
    newer.close()
    Store.open(folder, tables=TABLES, durable=True, version=2, usable_from=2, migrations=more).close()  # contracts
    with pytest.raises(StoreVersionError, match="format 2"):
        Store.open(folder, tables=TABLES, durable=True, version=1)
    Store.open(folder, tables=TABLES, durable=True, version=3, usable_from=2, migrations=more).close()
    Store.open(folder, tables=TABLES, durable=True, version=2, migrations=more).close()
    with pytest.raises(StoreVersionError, match="format 3"):
        Store.open(folder, tables=TABLES, durable=True, version=1)


def test_a_failed_migration_leaves_the_old_format(tmp_path: Path) -> None:
    def bad(txn: Txn) -> None:
        txn.put("a", b"half", b"done")
        raise LookupError

    folder = tmp_path / "s"
    Store.open(folder, tables=TABLES, durable=True, version=1).close()
    with pytest.raises(LookupError):
        Store.open(folder, tables=TABLES, durable=True, version=2, migrations={1: bad})
    store = Store.open(folder, tables=TABLES, durable=True, version=1)
    assert store.get("a", b"half") is None
    store.close()
