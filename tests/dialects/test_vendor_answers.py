"""However a vendor's stream is cut, and however often its usage is told, its answer is read the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dialects.test_usage import read_json, read_stream
from tests.dialects.vendor_answers import ANSWERS, NAMES, VendorAnswer


@pytest.mark.parametrize("vendor", ANSWERS, ids=NAMES)
def test_a_whole_answer_is_read_as_told(vendor: VendorAnswer) -> None:
    for found in (read_json(vendor.dialect, vendor.body), read_stream(vendor.dialect, vendor.pieces)):
        assert found.usage == vendor.meant and found.complete and found.fault is None
        assert found.served.cost == (None if vendor.cost is None else pytest.approx(vendor.cost))


@pytest.mark.parametrize("vendor", ANSWERS, ids=NAMES)
@settings(max_examples=12)
@given(data=st.data())
def test_any_split_and_repetition_reads_the_same(vendor: VendorAnswer, data: st.DataObject) -> None:
    pieces = list(vendor.pieces)
    at = vendor.told - 1
    pieces[at:at] = [pieces[at]] * data.draw(st.integers(0, 2))
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    found = read_stream(vendor.dialect, [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])])
    assert found.usage == vendor.meant
    assert found.served.cost == (None if vendor.cost is None else pytest.approx(vendor.cost))


@pytest.mark.parametrize("vendor", ANSWERS, ids=NAMES)
@settings(max_examples=12)
@given(data=st.data())
def test_a_stream_that_breaks_off_tells_what_had_come(vendor: VendorAnswer, data: st.DataObject) -> None:
    """Up to the piece that tells the usage nothing of it is known, from its end on all of it."""
    whole = b"".join(vendor.pieces)
    until = len(b"".join(vendor.pieces[: vendor.told - 1]))
    end = data.draw(st.integers(0, len(whole)))
    found = read_stream(vendor.dialect, [whole[:end]])
    if end >= len(b"".join(vendor.pieces[: vendor.told])):
        assert found.usage == vendor.meant
    elif len(vendor.pieces[0]) <= end <= until:
        assert found.usage == vendor.before or (vendor.before is None and not found.usage.known)
