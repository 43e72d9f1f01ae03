"""What several workers know of one account, through the state store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pool_server.accounts import replication
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.ports import StateChange
from pool_server.accounts.replication import Replication
from pool_server.accounts.selection.account import Account
from pool_server.core import processes
from pool_server.storage import Store, change_feed
from pool_server.storage.write_behind import WriteBehind
from tests.accounts.kit import Clock, entry, of_a_dead_process


def trouble(n: float) -> Callable[[AccountHealth], bool]:
    """A change of what is known: `n` more trouble; none is no change worth keeping."""

    def change(health: AccountHealth) -> bool:
        health.trouble += n
        health.latency = 1.0
        return n > 0

    return change


class Worker:
    def __init__(self, store: Store) -> None:
        self.shared = Replication(WriteBehind(store, Clock()), many=True)
        self.account: Account = entry("a")

    def change(self, n: float) -> bool:
        return self.shared.update(self.account, trouble(n))


def two_workers(tmp_path: Path) -> tuple[Store, Worker, Worker]:
    store = Store.open(tmp_path / "state", tables=replication.TABLES, durable=False)
    return store, Worker(store), Worker(store)


def test_each_hears_of_the_other_and_not_of_itself(tmp_path: Path) -> None:
    _, one, two = two_workers(tmp_path)
    told = [(StateChange.HEALTH, "claude:a")]
    assert one.change(1) and one.shared.news() == []
    assert two.shared.news() == told and two.shared.news() == []
    two.change(1)
    one.change(1)  # before it heard of the other's
    assert one.shared.news() == told and two.shared.news() == told
    assert one.account.health.trouble == 3.0 and one.shared.news() == []


def test_a_change_is_made_once_and_on_what_all_know(tmp_path: Path) -> None:
    _, one, two = two_workers(tmp_path)
    for worker in (one, two, two, one):
        assert worker.change(1)
    assert one.account.health.trouble == 4.0 and two.account.health.trouble == 3.0
    assert not two.change(0) and two.account.health.trouble == 4.0


def test_what_is_not_worth_keeping_is_not_written(tmp_path: Path) -> None:
    store, one, _ = two_workers(tmp_path)
    one.change(1)
    with store.read() as txn:
        before = txn.id
    assert not one.change(0) and one.account.health.latency == 1.0
    with store.read() as txn:
        assert txn.id == before


@pytest.mark.parametrize(
    "newer", [{"state": "hibernating"}, {"rests": 7}, {"easing_until": "soon"}, {"windows": {"5h": {"used": []}}}]
)
def test_a_newer_programs_record_is_left_as_it_is(tmp_path: Path, newer: dict[str, object]) -> None:
    store, old, _ = two_workers(tmp_path)
    assert old.change(1)
    old.shared.share(True)
    with store.read() as txn:
        before = msgspec.msgpack.decode(txn.get(replication.HEALTH, b"claude:a") or b"")
    theirs = msgspec.msgpack.encode(before | newer)
    store.write(lambda txn: txn.put(replication.HEALTH, b"claude:a", theirs))
    assert old.change(1) and old.account.health.trouble == 2.0, "what is learnt counts here"
    assert store.get(replication.HEALTH, b"claude:a") == theirs
    old.shared.share(False)
    assert old.change(1) and store.get(replication.HEALTH, b"claude:a") != theirs, "it is alone: somebody must write"


def test_fields_that_only_a_newer_program_knows_are_kept(tmp_path: Path) -> None:
    store, old, new = two_workers(tmp_path)
    old.change(1)
    old.shared.share(True)
    before = msgspec.msgpack.decode(store.get(replication.HEALTH, b"claude:a") or b"")
    more = {"mood": ["fine"], "": None}
    store.write(lambda txn: txn.put(replication.HEALTH, b"claude:a", msgspec.msgpack.encode(before | more)))
    old.change(1)
    after = msgspec.msgpack.decode(store.get(replication.HEALTH, b"claude:a") or b"")
    assert {name: after[name] for name in more} == more and after["trouble"] == 2.0
    assert new.change(1) and new.account.health.trouble == 3.0


def test_news_of_a_kind_that_only_a_newer_program_knows_is_passed_over(tmp_path: Path) -> None:
    store, one, two = two_workers(tmp_path)
    store.write(lambda txn: change_feed.append(txn, replication.LOG, b"Znobody claude:a", most=100))
    one.change(1)
    assert two.shared.news() == [(StateChange.HEALTH, "claude:a")]


def test_servers_beside_each_other_share_what_they_learn_and_part_again(tmp_path: Path) -> None:
    store, old, new = two_workers(tmp_path)
    for worker in (old, new):
        worker.shared = Replication(WriteBehind(store, Clock()), many=False)
        assert worker.change(1)
        worker.shared.share(True)
    assert new.change(1) and old.change(1)
    assert old.account.health.trouble == 3.0, "on what the other learnt"
    assert old.shared.news() == [(StateChange.HEALTH, "claude:a")]
    new.shared.publish({"claude:a": 2})
    new.shared.share(True)
    new.shared.share(False)
    assert new.shared.many, "one of the two is still there"
    new.shared.share(False)
    assert not new.shared.many and WriteBehind(store, Clock()).scan(replication.FLIGHT) == []


@pytest.mark.parametrize(("named", "counted"), [(of_a_dead_process, 0), (processes.name, 3)])
def test_a_dead_workers_requests_weigh_nothing(tmp_path: Path, named: Callable[[], str], counted: int) -> None:
    store, one, other = two_workers(tmp_path)
    other.shared._worker = named().encode()
    one.shared._worker = b"another"
    other.shared.publish({"claude:a": 3})
    assert one.shared.elsewhere() == ({"claude:a": counted} if counted else {})
    store.close()
