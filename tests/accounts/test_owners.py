"""Whose an account is: a user id, whatever the file says; a name is nobody until somebody stands for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.accounts.kit import NOW, Pool, ask, claude, key, window

ANNA = "u_0123456789abcdef"


def nobody(user: str) -> frozenset[str]:
    """In no group."""
    return frozenset()


def pool(tmp_path: Path, owner: str) -> Pool:
    return Pool(tmp_path, {"claude_a.json": claude(owner=owner, reserve=0.9), "claude_b.json": key(priority=500)})


@pytest.mark.parametrize("said", [ANNA, "Anna", " Anna "])
def test_the_reserve_is_the_owners_by_id(tmp_path: Path, said: str) -> None:
    p = pool(tmp_path, said)
    people = {"Anna": ANNA, ANNA: ANNA}
    p.accounts.follow_people(lambda name: people.get(name, ""), nobody)
    p.accounts.observe("claude:a", [window(50.0)])
    assert p.accounts.owner("claude:a") == ANNA
    assert p.accounts.select(ask(ANNA)).account == "claude:a"
    for other in ("Anna", "anna", "u_fedcba9876543210", said.strip().lower()):
        if other != ANNA:
            assert p.accounts.select(ask(other)).account == "claude:b"


def test_an_owner_who_is_nobody_gives_no_authority_and_keeps_the_reserve(tmp_path: Path) -> None:
    p = pool(tmp_path, "Berta")
    p.accounts.follow_people(lambda _: "", nobody)
    p.accounts.observe("claude:a", [window(50.0)])
    assert p.accounts.select(ask("u_berta")).account == "claude:b"
    row = p.accounts.describe("claude:a")
    assert (row.owner, row.owner_id) == ("Berta", "") and p.accounts.owners() == {"Berta"}


@pytest.mark.slow
def test_who_comes_and_goes_is_followed(tmp_path: Path) -> None:
    p = pool(tmp_path, "Anna")
    people: dict[str, str] = {}
    p.accounts.follow_people(lambda name: people.get(name, ""), nobody)
    p.accounts.observe("claude:a", [window(50.0)])

    async def run() -> None:
        await p.accounts.start()
        people["Anna"] = ANNA
        while p.accounts.select(ask(ANNA)).account != "claude:a":
            await asyncio.sleep(0.02)
        del people["Anna"]
        while p.accounts.select(ask(ANNA)).account != "claude:b":
            await asyncio.sleep(0.02)
        await p.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert p.clock.now == NOW
