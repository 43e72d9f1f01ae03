"""Which pieces of a log follow each other, which are too old, and where a log is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.storage.change_log.roll_forward import best_cut
from pool_server.storage.change_log.segments import SegmentError, following, listed, outlived, segment, unpacked
from pool_server.storage.object_store import StoredObject

KEYS = {"k1": b"1" * 32}


def _segments(*spans: tuple[int, int, float]) -> list[StoredObject]:
    return [StoredObject(segment("g", a, b, [at], encrypted=False).name, 1, 0) for a, b, at in spans]


def test_pieces_follow_each_other_whatever_overlaps() -> None:
    found = listed(_segments((1, 1, 1), (2, 2, 2), (1, 3, 3), (4, 4, 4), (6, 6, 6)))
    chosen, beyond = following(found, 0)
    assert [(one.first, one.last) for one in chosen] == [(1, 3), (4, 4)] and beyond
    assert following(found, 6) == ([], False) and following([], 0) == ([], False)


def test_old_pieces_go_and_a_wrong_clock_tears_no_hole() -> None:
    found = listed(_segments((1, 1, 10), (2, 2, 20), (3, 3, 5), (4, 4, 40), (5, 5, 1)))
    assert [one.first for one in outlived(found, 30)] == [1, 2, 3]
    assert [one.first for one in outlived(found, 1)] == []


@pytest.mark.parametrize(
    ("times", "until", "cut"),
    [
        ([], 5, 0),
        ([1, 2, 3], 2, 2),
        ([1, 2, 3], 9, 3),
        ([1, 2, 3], 0, 0),
        ([1, 2, 90, 91, 3, 4, 5, 6], 5, 7),  # the clock was ahead for two, and set back
        ([11, 12, 1, 2, 13, 14, 15], 13, 5),  # it was behind for two
        ([11, 12, 13, 1, 2, 14, 15], 5, 0),
    ],
)
def test_the_cut_bears_a_clock_that_was_wrong(times: list[float], until: float, cut: int) -> None:
    assert best_cut(times, until) == cut


@given(st.lists(st.integers(0, 50)), st.integers(0, 50))
def test_the_cut_of_a_right_clock_is_exact(times: list[int], until: int) -> None:
    times.sort()
    assert best_cut(times, until) == sum(at <= until for at in times)


@pytest.mark.parametrize("data", [b"", b"nothing", b"\x28\xb5\x2f\xfd" + b"\0" * 20])
def test_what_is_no_piece_is_refused(data: bytes) -> None:
    with pytest.raises(SegmentError):
        unpacked(data, KEYS, 1)
