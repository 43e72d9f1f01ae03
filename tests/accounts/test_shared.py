"""What several workers know of one account, through the state store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pool_server.accounts import replication
from pool_server.accounts.health.state import AccountHealth
from pool_server.accounts.replication import Replication, StateChange
from pool_server.accounts.selection.account import Account
from pool_server.storage import Store
from pool_server.storage.write_behind import WriteBehind
from tests.accounts.kit import Clock, entry


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
