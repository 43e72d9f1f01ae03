"""Stored records stay readable, whatever fields records gain; what cannot be true is not kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pool_server.core.models import Usage
from pool_server.ledger.records import codec
from pool_server.ledger.records.codec import pack, unpack
from tests.ledger.ledger_kit import exchange, ledger_in, record_all

# One record as version 0.1 wrote it.
FIRST_RELEASE = (
    "0128b52ffd20c25d02005402de0008a26964a56f6c642d3120a27531a861a8780bcd0384cd012cccc82ae00000000000000d004011e3858be38"
    "96e80177c8071edc461204b15791cc8988aec36c06540be57143909"
)


def test_the_dictionary_of_stored_records_never_changes() -> None:
    """Records written with another one could not be read."""
    assert hashlib.blake2b(codec._sample(), digest_size=16).hexdigest() == "ce847bfeee6a58e06b183be3756ed0a4"


def test_a_record_of_the_first_release_is_read() -> None:
    stored = bytes.fromhex(FIRST_RELEASE)
    record = unpack(stored)
    assert record.usage == Usage(input=11, cache_read=900, cache_write=300, cache_write_1h=200, output=42, known=True)
    assert (record.id, record.cost, record.model) == ("old-1", 0.5, "claude-x")
    assert unpack(pack(record)) == record


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input=5, audio_in=9, known=True),
        Usage(output=5, image_out=-1, known=True),
        Usage(cache_write=5, cache_write_12h=6, known=True),
        Usage(input=5, parts=[Usage(input=-5, known=True)], known=True),
        Usage(input=5, parts=[Usage(input=1, known=True)] * 300, known=True),
    ],
)
def test_parts_that_cannot_be_are_not_kept(tmp_path: Path, usage: Usage) -> None:
    record = exchange("r1")
    record.usage, record.cost = usage, 5.0
    with ledger_in(tmp_path) as book:
        record_all(book, [record])
        kept = book.log.get("r1")
    assert kept is not None and kept.cost != 5.0
    assert 0 <= kept.usage.audio_in <= kept.usage.input and 0 <= kept.usage.image_out <= kept.usage.output
    assert kept.usage.cache_write_12h <= kept.usage.cache_write and kept.usage.parts == []


@pytest.mark.parametrize("name", ["x" * 1_000_000, "m\0\0", "\ud800", "é" * 5000])
def test_what_an_answer_names_is_cut_to_names(tmp_path: Path, name: str) -> None:
    """Models, speeds and places come from the provider: a record stays small whatever it writes there."""
    told = exchange("r1")
    told.answered = told.speed = told.geo = name
    told.usage.parts = [Usage(input=1, model=name, known=True)]
    told.reserved = Usage(input=1, parts=[Usage(input=1, model=name)])
    with ledger_in(tmp_path) as book:
        record_all(book, [told])
        (kept,) = book.log.page()[0]
        assert len(pack(kept)) < 4000
        assert kept.answered == kept.usage.parts[0].model and len(kept.answered.encode()) <= 128
        assert kept.reserved is not None and kept.reserved.parts[0].model == kept.answered


def test_a_batch_may_use_more_than_any_single_answer(tmp_path: Path) -> None:
    most = 1_000_000_000
    large, absurd = exchange("r1"), exchange("r2")
    large.usage = Usage(input=3 * most, known=True, parts=[Usage(input=3 * most, calls=4, known=True)])
    absurd.usage = Usage(input=3 * most, known=True, parts=[Usage(input=3 * most, calls=2, known=True)])
    with ledger_in(tmp_path) as book:
        record_all(book, [large, absurd])
        assert [(rec.usage.input, rec.partial) for rec in book.log.page()[0]] == [(0, True), (3 * most, False)]
