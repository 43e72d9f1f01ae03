"""Hundreds of requests of one user and a single one of another: who begins when."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pool_server.users.limits.turns import ALONE, SHARE, Turns


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


class Race:
    """Requests that note when they begin, counted in turns of the loop."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.begun: list[str] = []

    async def one(self, user: str) -> None:
        waits = self._turns.take(user)
        if waits is not None:
            await waits
        self.begun.append(user)


def test_a_modest_user_does_not_stand_behind_a_crowd() -> None:
    async def main() -> None:
        race = Race(Turns())
        tasks = [asyncio.ensure_future(race.one("crowd")) for _ in range(500)]
        tasks.append(asyncio.ensure_future(race.one("modest")))
        tasks += [asyncio.ensure_future(race.one("other")) for _ in range(3)]
        await asyncio.gather(*tasks)
        assert race.begun.index("modest") <= ALONE, "before the crowd knew of others"
        assert max(at for at, who in enumerate(race.begun) if who == "other") <= ALONE + SHARE + 4
        assert race.begun.count("crowd") == 500

    run(main())


def test_where_others_are_about_each_has_a_share_of_a_turn() -> None:
    async def main() -> None:
        turns = Turns()
        turns.about.update(("crowd", "modest"))
        race = Race(turns)
        tasks = [asyncio.ensure_future(race.one("crowd")) for _ in range(100)]
        for _ in range(3):
            await asyncio.sleep(0)
        seen = len(race.begun)
        tasks += [asyncio.ensure_future(race.one("modest")) for _ in range(SHARE)]
        await asyncio.gather(*tasks)
        last = max(at for at, who in enumerate(race.begun) if who == "modest")
        assert last <= seen + 3 * SHARE

    run(main())


def test_alone_nobody_waits_for_nobody() -> None:
    async def main() -> None:
        turns = Turns()
        assert [turns.take("one") for _ in range(ALONE)] == [None] * ALONE
        behind = turns.take("one")
        assert behind is not None
        await behind
        await asyncio.sleep(0)
        assert turns.take("one") is None

    run(main())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_everybody_begins_but_those_who_gave_up(asked: list[tuple[str, bool]]) -> None:
    async def main() -> None:
        turns = Turns()
        race = Race(turns)
        tasks = [asyncio.ensure_future(race.one(user)) for user, _ in asked]
        await asyncio.sleep(0)
        for task, (_, stays) in zip(tasks, asked, strict=True):
            if not stays and not task.done():
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(race.begun) == sum(result is None for result in results)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not vars(turns)["_waiting"] and not vars(turns)["_begun"]

    run(main())
