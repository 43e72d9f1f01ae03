"""Captures for a bug report over real exchanges: as many as were ordered, of that key, without texts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.transcripts.reports import KEEP_S, MOST_ORDERS, OPEN_S, Reports
from tests.fakes import account
from tests.gateway.sockets import create, socket
from tests.gateway.stack import Stack
from tests.gateway.test_transcripts import ASKED, ask, kept, on_a_loop, person, stack


def lines(data: bytes | None) -> list[dict[str, Any]]:
    assert data is not None
    return [json.loads(line) for line in data.splitlines()]


async def settled(pool: Stack) -> None:
    await pool.transcripts.reports.close()


@on_a_loop
async def test_the_next_exchanges_of_a_key_are_captured_and_no_more(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool, allows=False)
        other, _ = await person(pool, "bo", allows=False)
        reports = pool.transcripts.reports
        made = reports.order(user, "", 2, texts=False)
        await ask(pool, other)
        for stream in (True, False, True):
            await ask(pool, key, stream=stream)
        await settled(pool)
        [state] = reports.of(user)
        assert (state.taken, state.open) == (2, False) and not reports.wanted(user, "k")
        found = lines(reports.file(user, made.id))
        assert [line["type"] for line in found].count("request") == 2
        text = json.dumps(found)
        assert "what is kept" not in text and key not in text
        assert found[0]["body"]["model"] == ASKED["model"] and found[0]["program"] == "Claude Code 2.1.0"
        assert "content_block_delta" in text and await kept(pool, user) == []


@on_a_loop
async def test_a_capture_and_a_transcript_of_one_exchange_do_not_mix(tmp_path: Path) -> None:
    async with stack(tmp_path) as pool:
        key, user = await person(pool)
        made = pool.transcripts.reports.order(user, "", 1, texts=True)
        await ask(pool, key)
        await settled(pool)
        assert "what is kept" in json.dumps(lines(pool.transcripts.reports.file(user, made.id)))
        assert len(await kept(pool, user)) == 1


@on_a_loop
async def test_frames_of_a_socket_are_captured(tmp_path: Path) -> None:
    async with Stack(tmp_path, [account("codex:one")]) as pool:
        made = pool.transcripts.reports.order("local", "", 1, texts=False)
        async with socket(pool) as client:
            events = await client.turn(create())
        await pool.idle()
        while pool.gateway.sockets:
            await asyncio.sleep(0.01)
        await settled(pool)
        frames = [line for line in lines(pool.transcripts.reports.file("local", made.id)) if line["type"] == "frame"]
        assert [line["from"] for line in frames] == ["client", *["pool"] * len(events)]


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_two_workers_take_no_more_than_was_asked_for(tmp_path: Path) -> None:
    clock = Clock()
    one, two = Reports(tmp_path, clock=clock), Reports(tmp_path, clock=clock)
    made = one.order("u_1", "k_1", 3, texts=False)
    two.load()
    assert not one.wanted("u_1", "k_2") and not two.wanted("u_2", "k_1")
    claimed = [worker.claim("u_1", "k_1") for worker in (one, two, one, two, one)]
    assert [claim is not None for claim in claimed] == [True, True, True, False, False]
    assert one.remove("u_1", made.id) and not two.remove("u_1", made.id)


def test_an_order_ends_and_is_deleted_by_its_time(tmp_path: Path) -> None:
    clock = Clock()
    reports = Reports(tmp_path, clock=clock)
    made = reports.order("u_1", "", 3, texts=False)
    clock.now += OPEN_S
    assert reports.claim("u_1", "k") is None and not reports.of("u_1")[0].open
    assert reports.file("u_1", made.id) == b"" and reports.file("u_2", made.id) is None
    clock.now += KEEP_S
    reports.prune()
    assert reports.of("u_1") == []


@pytest.mark.parametrize("number", [0, -1, 21])
def test_an_order_has_its_bounds(tmp_path: Path, number: int) -> None:
    reports = Reports(tmp_path)
    with pytest.raises(ValueError, match="between 1 and"):
        reports.order("u_1", "", number, texts=False)
    for _ in range(MOST_ORDERS):
        reports.order("u_1", "", 1, texts=False)
    with pytest.raises(ValueError, match="delete one"):
        reports.order("u_1", "", 1, texts=False)
    assert reports.file("u_1", "../x") is None and not reports.remove("u_1", "..")
