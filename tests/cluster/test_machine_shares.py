"""What an owner gives of an account is given once, on however many machines others ask for it at one moment."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.health.share_use import SAFETY, UNKNOWN_RISE
from pool_server.core.enums import Operation, Refusal
from tests.accounts.kit import NOW, SONNET, Clock, ask, claude, week, window
from tests.cluster.conftest import Database
from tests.cluster.machines import Machine, machines

ADA = "claude:ada"


async def nobody(request: Any) -> Any:
    raise AssertionError(f"nothing was to be sent to {request.url}")


async def until(true: Any) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


async def begun(machine: Machine, user: str) -> bool:
    if machine.accounts.select(ask(user)).account is None:
        return False
    return await machine.accounts.begin_agreed(ADA, SONNET, Operation.MESSAGES, user)


def kept_back(machine: Machine) -> bool:
    machine.accounts._registry.follow()
    return machine.accounts.select(ask("eve")).refused == {Refusal.RESERVED: 1}


async def opened(found: list[Machine], used: float) -> None:
    """All know the account, of which others may use half, and how much of it is used."""
    found[0].drop("claude_ada.json", claude(owner="ada", terms={"share": 50}, ends=NOW + 30 * 86400))
    await found[0].accounts.reload()
    for machine in found:
        await until(partial(machine.accounts.knows, ADA))
    found[0].accounts.observe(ADA, [window(used), week(0.0)])
    for machine in found:
        await until(lambda machine=machine: ADA in machine.accounts._registry.index.accounts)
        account = machine.accounts._registry.index.accounts[ADA]

        def knows(account: Any = account, machine: Machine = machine) -> bool:
            machine.accounts._registry.follow()
            return bool(account.health.windows)

        await until(knows)


@pytest.mark.parametrize(("used", "room"), [(49.0, 1), (44.0, 3), (50.0, 0)])
def test_what_is_left_is_given_once(database: Database, tmp_path: Path, used: float, room: int) -> None:
    """Several at once: what a request uses is not known before any was seen."""
    assert UNKNOWN_RISE * SAFETY == 2.0

    async def go() -> None:
        async with machines(database, tmp_path, nobody, 3, clock=Clock(NOW)) as found:
            await opened(found, used)
            tries = [begun(machine, user) for machine in found for user in ("bob", "cyd")]
            random.Random(1).shuffle(tries)
            assert sum(await asyncio.gather(*tries)) == room
            assert await begun(found[1], "ada"), "the owner has their own at any time"
            for machine in found:
                await until(partial(kept_back, machine))

    asyncio.run(go())


def test_what_ended_on_one_machine_makes_room_on_another(database: Database, tmp_path: Path) -> None:
    async def go() -> None:
        async with machines(database, tmp_path, nobody, 2, clock=Clock(NOW)) as found:
            one, other = found
            await opened(found, 49.0)
            assert await begun(one, "bob") and not await begun(other, "cyd")
            clock: Any = one.accounts._clock
            clock.now += 1
            one.accounts.observe(ADA, [window(49.5, at=clock.now), week(0.0, at=clock.now)])
            one.accounts.end(ADA)

            async def again() -> bool:
                other.accounts._registry.follow()
                return await begun(other, "cyd")

            async with asyncio.timeout(60):
                while not await again():
                    await asyncio.sleep(0.05)

    asyncio.run(go())
