"""A bucket that does wrong, and a clock that does: no copy counts that is not whole, none is given up for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.app.backup_schedule import BackupSchedule, due, expired, list_backups, newest_first
from pool_server.core.settings import Backup
from pool_server.storage import StoreError, prove
from pool_server.storage.lmdb.store import Store
from pool_server.storage.object_store import open_place
from tests.fakes.s3_faults import FAULTS, S3, faulty_s3

NOW = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def s3() -> Iterator[S3]:
    with faulty_s3() as server:
        yield server


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, Store]]:
    opened = {"ledger": Store.open(tmp_path / "data/ledger", tables=("t",), durable=True)}
    opened["ledger"].write(lambda txn: txn.put("t", b"k", b"v"))
    yield opened
    opened["ledger"].close()


class Schedule:
    def __init__(self, stores: dict[str, Store], folder: Path, s3: S3, *, keep: int = 3, prove: bool = False) -> None:
        self.at = NOW
        self.folder = folder / "copies"
        self.options = {**s3.options}
        wanted = Backup(
            str(self.folder), keep=keep, prove=prove, mirror="s3://copies/here", mirror_options=self.options
        )
        self.make: Callable[[], BackupSchedule] = lambda: BackupSchedule(
            wanted, stores, folder / "data", clock=lambda: self.at
        )
        self.plan = self.make()


@pytest.mark.parametrize("when", ["PUT", "GET"])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_copy_counts_that_did_not_arrive_whole(
    stores: dict[str, Store], tmp_path: Path, s3: S3, fault: str, when: str
) -> None:
    one = Schedule(stores, tmp_path, s3, keep=1)
    first = one.plan.run()
    assert first is not None
    one.at += 2 * DAY
    s3.fault, s3.when = fault, (when,)
    harmless = {("cut", "PUT"), ("not xml", "PUT"), ("not xml", "GET"), ("lost", "GET")}
    if (fault, when) in harmless:
        made = one.plan.run()
        assert made is not None and s3.kept[f"copies/here/{made.name}"] == made.read_bytes()
        return
    for restarted in (False, True):
        plan = one.make() if restarted else one.plan
        with pytest.raises(StoreError, match="mirror") as told:
            plan.run()
        assert "a-secret" not in str(told.value) and len(str(told.value).splitlines()) == 1
        assert f"copies/here/{first.name}" in s3.kept  # the one before stays until there is another
    s3.fault = ""
    assert plan.run() is None
    (left,) = s3.kept
    newest = list_backups(one.folder)[0]
    assert left == f"copies/here/{newest.name}" and s3.kept[left] == newest.read_bytes()
    open_place("s3://copies/here", one.options).fetch(newest.name, tmp_path / "back.tar.zst")
    assert prove(tmp_path / "back.tar.zst").created == one.at


def test_what_nobody_came_to_compare_is_compared_later(stores: dict[str, Store], tmp_path: Path, s3: S3) -> None:
    """The bucket damages what it takes, and then gives nothing for a while."""
    one = Schedule(stores, tmp_path, s3)
    s3.fault, s3.when = "flipped", ("PUT", "POST")
    with pytest.raises(StoreError, match="did not arrive whole"):
        one.plan.run()
    assert not s3.kept
    name = list_backups(one.folder)[0].name
    s3.kept[f"copies/here/{name}"] = b"x" * (one.folder / name).stat().st_size
    s3.fault = ""
    with pytest.raises(StoreError, match="did not arrive whole"):
        one.plan.run()
    assert one.plan.run() is None
    assert s3.kept[f"copies/here/{name}"] == (one.folder / name).read_bytes()


def test_a_list_of_many_pages_is_read_whole(stores: dict[str, Store], tmp_path: Path, s3: S3) -> None:
    place = open_place("s3://copies/here", s3.options)
    names = [f"f{number}" for number in range(7)]
    for name in names:
        place.put(name, name.encode())
    assert [one.name for one in place.list("")] == names
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * (12 << 12))  # in several parts
    place.put("big", big)
    place.fetch("big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()


def test_a_clock_that_was_in_the_future_costs_one_copy(stores: dict[str, Store], tmp_path: Path, s3: S3) -> None:
    one = Schedule(stores, tmp_path, s3, keep=4)
    real = []
    for ahead in (0, 0, 400 * DAY, 0, 0):
        one.at += ahead
        made = one.plan.run()
        assert made is not None
        if not ahead:
            real.append(made.name)
        for _ in range(3):  # the looks of the next minutes
            one.at += 300
            assert one.plan.run() is None
        one.at += DAY - ahead
    assert [path.name for path in list_backups(one.folder)] == real[::-1]
    assert sorted(s3.kept) == [f"copies/here/{name}" for name in real]


_TIMES = st.lists(st.integers(-1000, 1000), unique=True, max_size=12)


@given(_TIMES, st.integers(1, 8), st.sampled_from([0.0, 3.0, 30.0]))
@settings(max_examples=200, deadline=None)
def test_copies_from_the_future_stand_in_nobodys_place(days: list[int], keep: int, keep_days: float) -> None:
    def copy(day: int) -> Path:
        return Path(f"pool-server-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(NOW + day * DAY))}.tar.zst")

    order = newest_first(map(copy, days), NOW)
    past = sorted((day for day in days if day <= 0), reverse=True)
    assert order[: len(past)] == [copy(day) for day in past] and set(order) == set(map(copy, days))
    assert due(order, NOW, 24) == (not past or past[0] <= -1)
    left = [one for one in order if one not in expired(order, NOW, keep=keep, keep_days=keep_days)]
    assert len(left) <= keep and left[:1] == order[:1]
    young = [copy(day) for day in past if not keep_days or day >= -keep_days]
    assert young[:keep] == left[: len(young[:keep])] or not young
