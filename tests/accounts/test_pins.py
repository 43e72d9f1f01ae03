"""Pins in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.accounts.selection import affinity
from pool_server.accounts.selection.affinity import Pins
from pool_server.core.enums import Provider
from pool_server.storage import Store
from pool_server.storage.write_behind import WriteBehind
from tests.accounts.kit import DAY, HOUR, NOW, Clock

CLAUDE = Provider.CLAUDE


def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "state", tables=affinity.TABLES, durable=False)


def test_parts_of_a_key_never_run_together(tmp_path: Path) -> None:
    book = Pins(WriteBehind(store(tmp_path), Clock()), ttl_s=DAY)
    book.pin(CLAUDE, "ab", "c", "claude:x", NOW)
    assert book.pinned(CLAUDE, "a", "bc", NOW) is None
    assert book.pinned(Provider.CODEX, "ab", "c", NOW) is None
    assert book.pinned(CLAUDE, "ab", "c", NOW) == "claude:x"


def test_any_text_is_an_id(tmp_path: Path) -> None:
    book = Pins(WriteBehind(store(tmp_path), Clock()), ttl_s=DAY)
    for session in ("", "x" * 100_000, "\ud800", "ключ"):
        book.pin(CLAUDE, "u", session, "claude:x", NOW)
        assert book.pinned(CLAUDE, "u", session, NOW) == "claude:x"


def test_a_pin_is_written_only_when_it_matters(tmp_path: Path) -> None:
    kept = store(tmp_path)
    book = Pins(WriteBehind(kept, Clock()), ttl_s=DAY)
    book.pin(CLAUDE, "u", "s", "claude:x", NOW)
    with kept.read() as txn:
        before = txn.id
    for second in range(100):
        book.pin(CLAUDE, "u", "s", "claude:x", NOW + second)
    with kept.read() as txn:
        assert txn.id == before
    book.pin(CLAUDE, "u", "s", "claude:x", NOW + 2 * HOUR)
    assert book.pinned(CLAUDE, "u", "s", NOW + DAY + HOUR) == "claude:x"


def test_a_pin_stays_with_an_account_that_keeps_it(tmp_path: Path) -> None:
    book = Pins(WriteBehind(store(tmp_path), Clock()), ttl_s=DAY)
    asked: list[str] = []

    def keeps(holder: str) -> bool:
        asked.append(holder)
        return holder == "claude:x"

    book.pin(CLAUDE, "u", "s", "claude:x", NOW, keeps)
    book.pin(CLAUDE, "u", "s", "claude:x", NOW + 2 * HOUR, keeps)
    assert not asked, "nobody else held it"
    book.pin(CLAUDE, "u", "s", "claude:y", NOW + 3 * HOUR, keeps)
    assert asked == ["claude:x"] and book.pinned(CLAUDE, "u", "s", NOW + 3 * HOUR) == "claude:x"
    book.pin(CLAUDE, "u", "s", "claude:y", NOW + 2 * DAY, keeps)
    assert asked == ["claude:x"] and book.pinned(CLAUDE, "u", "s", NOW + 2 * DAY) == "claude:y", "its time was over"
    book.pin(CLAUDE, "u", "s", "claude:z", NOW + 2 * DAY, keeps)
    assert book.pinned(CLAUDE, "u", "s", NOW + 2 * DAY) == "claude:z"


def test_the_sweep_takes_the_dead_a_part_at_a_time(tmp_path: Path) -> None:
    kept = store(tmp_path)
    book = Pins(WriteBehind(kept, Clock()), ttl_s=DAY)
    for n in range(250):
        book.pin(CLAUDE, "u", str(n), "claude:x", NOW - (2 * DAY if n % 2 else 0))
    gone = [book.sweep(NOW, limit=100) for _ in range(3)]
    assert sum(gone) == 125 and max(gone) < 100
    with kept.read() as txn:
        assert txn.count(affinity.TABLE) == 125
    assert book.sweep(NOW, limit=100) == 0


def test_an_answer_of_the_account_that_was_found_reads_nothing_and_slides_in_time(tmp_path: Path) -> None:
    kept = store(tmp_path)
    book = Pins(WriteBehind(kept, Clock()), ttl_s=DAY)
    book.pin(CLAUDE, "u", "s", "claude:x", NOW)
    assert book.pinned(CLAUDE, "u", "s", NOW + 2 * HOUR) == "claude:x"
    book.pin(CLAUDE, "u", "s", "claude:x", NOW + 2 * HOUR)
    assert book.pinned(CLAUDE, "u", "s", NOW + DAY + HOUR) == "claude:x", "it was written: its time had moved"
    book.pin(CLAUDE, "u", "s", "claude:y", NOW + DAY + HOUR)
    assert Pins(WriteBehind(kept, Clock()), ttl_s=DAY).pinned(CLAUDE, "u", "s", NOW + DAY + HOUR) == "claude:y"


def test_what_is_remembered_of_pins_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "SEEN", 4)
    book = Pins(WriteBehind(store(tmp_path), Clock()), ttl_s=DAY)
    for number in range(20):
        book.pin(CLAUDE, "u", str(number), "claude:x", NOW)
        assert book.pinned(CLAUDE, "u", str(number), NOW) == "claude:x"
    assert len(book._seen) <= 4


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("pos"), st.integers(0, 2), st.sampled_from(["claude:x", "claude:y"]), st.integers(0, 30)
        )
    )
)
def test_the_only_worker_finds_from_memory_what_the_store_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("pins")
    kept, plain_store = store(folder / "one"), store(folder / "two")
    book = Pins(WriteBehind(kept, Clock()), ttl_s=DAY, alone=lambda: True)
    plain = Pins(WriteBehind(plain_store, Clock()), ttl_s=DAY)
    now = NOW
    for what, session, account, hours in steps:
        now += hours * HOUR
        for one in (book, plain):
            if what == "p":
                one.pin(CLAUDE, "u", str(session), account, now, lambda holder: holder == "claude:x")
            elif what == "o":
                one.own("u", "response", str(session), account, HOUR, now)
            else:
                one.sweep(now)
        for thing in ("0", "1", "2"):
            assert book.pinned(CLAUDE, "u", thing, now) == plain.pinned(CLAUDE, "u", thing, now)
            assert book.owner("u", "response", thing, now) == plain.owner("u", "response", thing, now)
    with kept.read() as ours, plain_store.read() as theirs:
        assert list(ours.scan(affinity.TABLE)) == list(theirs.scan(affinity.TABLE))
    kept.close()
    plain_store.close()


def test_what_another_server_pinned_meanwhile_is_found_once_it_has_ended(tmp_path: Path) -> None:
    kept, shared = store(tmp_path), [False]
    book = Pins(WriteBehind(kept, Clock()), ttl_s=DAY, alone=lambda: not shared[0])
    book.pin(CLAUDE, "u", "s", "claude:x", NOW)
    assert book.pinned(CLAUDE, "u", "s", NOW) == "claude:x"
    shared[0] = True
    Pins(WriteBehind(kept, Clock()), ttl_s=DAY).pin(CLAUDE, "u", "s", "claude:y", NOW)
    assert book.pinned(CLAUDE, "u", "s", NOW) == "claude:y"
    Pins(WriteBehind(kept, Clock()), ttl_s=DAY).pin(CLAUDE, "u", "s", "claude:z", NOW)
    shared[0] = False
    assert book.pinned(CLAUDE, "u", "s", NOW) == "claude:z"
