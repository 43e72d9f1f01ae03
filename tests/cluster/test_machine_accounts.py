"""Accounts on several machines: what is done to them on one is so on all, and a token is traded once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import RefreshError
from pool_server.accounts.administration.adding import NewAccount
from pool_server.cluster.credentials.inbox import IMPORTED
from pool_server.core.enums import Provider
from pool_server.storage.leases import POLL, REFRESH
from tests.accounts.kit import NOW, claude, key
from tests.cluster.conftest import Database
from tests.cluster.machines import Machine, Vendor, machine, machines

FIRST = "sk-ant-oat01-first"
FILE, ID = "claude_a.json", "claude:a"
PATIENCE_S = 60.0


async def until(what: Callable[[], Any], why: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.01)


async def with_account(one: Machine, other: Machine, **options: Any) -> None:
    """An account that both machines know."""
    one.drop(FILE, claude(FIRST, **options))
    await one.accounts.reload()
    await until(lambda: other.accounts.knows(ID), "the other machine did not hear of it")


def test_a_file_that_is_put_into_one_machines_folder_is_everybodys(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with machines(database, tmp_path, Vendor()) as (a, b):
            await with_account(b, a)
            assert a.secret() == b.secret() == FIRST
            left = [path.name for path in (b.folder / "pool").iterdir()]
            assert left == [FILE + IMPORTED]
            dump = database.sql("select string_agg(c::text, ' ') from pool.credential c")
            assert "sk-ant" not in dump

    asyncio.run(walk())


def test_the_same_file_again_is_no_news_and_another_is_a_new_sign_in(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        vendor = Vendor()
        async with machines(database, tmp_path, vendor) as (a, b):
            await with_account(a, b)
            assert (await a.accounts.refresh(ID, FIRST)).secret == "sk-ant-oat01-00001"
            b.drop(FILE, claude(FIRST))  # the same bytes, on another machine: its token is spent by now
            await b.accounts.reload()
            assert not (b.folder / "pool" / FILE).exists() and b.secret() == "sk-ant-oat01-00001"
            await a.accounts._registry.shared.flush()
            path = b.drop(FILE, claude(FIRST, label="an old copy with other words"))
            await b.accounts.reload()
            (told,) = [row for row in b.accounts.rejected() if row["file"] == FILE]
            assert "old copy" in told["reason"] and path.exists() and b.secret() == "sk-ant-oat01-00001"
            b.drop(FILE, claude("sk-ant-oat01-fresh"))
            await b.accounts.reload()
            await until(lambda: a.secret() == "sk-ant-oat01-fresh", "the new sign-in did not reach the other")
            b.drop("claude_copy.json", claude("sk-ant-oat01-fresh"))
            await b.accounts.reload()
            assert [row["reason"] for row in b.accounts.rejected()] == [f"the same sign-in as {ID}"]
            assert not vendor.doubles

    asyncio.run(walk())


@pytest.mark.parametrize("wrong", ["{", "[]", '{"claudeAiOauth": 7}', '{"api_key": "k", "priority": "high"}', ""])
def test_a_file_that_is_none_stays_and_is_told(database: Database, tmp_path: Path, wrong: str) -> None:
    async def walk() -> None:
        async with machine(database, tmp_path / "m", Vendor()) as one:
            path = one.drop(FILE, "")
            path.write_text(wrong)
            await one.accounts.reload()
            assert [row["file"] for row in one.accounts.rejected()] == [FILE]
            assert path.exists() and not one.accounts.ids()

    asyncio.run(walk())


def test_what_is_done_to_an_account_on_one_machine_holds_on_the_other(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with machines(database, tmp_path, Vendor()) as (a, b):
            await with_account(a, b)
            await a.accounts.set_disabled(ID, True)
            await until(lambda: b.accounts.describe(ID).state == "disabled", "not disabled there")
            await b.accounts.change(ID, {"disabled": None, "label": "ours", "priority": 3})
            await until(lambda: a.accounts.describe(ID).label == "ours", "not changed there")
            assert a.accounts.describe(ID).state == "ready"
            a.accounts.lock(ID)
            await until(lambda: b.accounts.describe(ID).locked, "not locked there")
            await b.accounts.remove(ID)
            await until(lambda: not a.accounts.knows(ID), "not removed there")
            assert [one["account"] for one in a.accounts.removed()] == [ID]
            await a.accounts.restore(ID)
            await until(lambda: b.accounts.knows(ID), "not brought back there")
            assert b.accounts.describe(ID).label == "ours" and b.secret() == FIRST
            with pytest.raises(FileExistsError):
                await b.accounts.restore(ID)
            await b.accounts.withdraw_account(ID)
            await until(lambda: not a.accounts.knows(ID), "not withdrawn there")
            assert a.accounts.removed() == []
            with pytest.raises(KeyError):
                await a.accounts.restore(ID)
            assert database.sql("select count(*) from pool.credential where sealed is not null") == "0"
            b.drop(FILE, claude("sk-ant-oat01-again"))  # a sign-in of the same name is taken again
            await b.accounts.reload()
            await until(lambda: a.accounts.knows(ID), "not there again")
            assert a.secret() == "sk-ant-oat01-again" and a.accounts.describe(ID).label == ""

    asyncio.run(walk())


def test_an_account_that_is_added_on_one_machine_is_on_all(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        async with machines(database, tmp_path, Vendor()) as (a, b):
            made = await a.accounts.add(NewAccount(Provider.CLAUDE, key(), "k"), test=False)
            await until(lambda: b.accounts.knows("claude:k"), "not there")
            assert made["id"] == "claude:k" and b.secret("claude:k") == "sk-ant-api03-key"
            assert not list((a.folder / "pool").glob("*")), "nothing is written into the folder"
            with pytest.raises(Exception, match="already"):
                await b.accounts.add(NewAccount(Provider.CLAUDE, key(), "k"), test=False)

    asyncio.run(walk())


def test_a_token_is_traded_once_whoever_asks(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        vendor = Vendor()
        async with machines(database, tmp_path, vendor, 3) as (a, b, c):
            await with_account(a, b)
            await until(lambda: c.accounts.knows(ID), "not there")
            found = await asyncio.gather(*(one.accounts.refresh(ID, FIRST) for one in (a, b, c) for _ in range(4)))
            assert {one.secret for one in found} == {"sk-ant-oat01-00001"}
            assert len(vendor.asked) == 1 and not vendor.doubles
            for one in (a, b, c):
                await until(lambda one=one: one.secret() == "sk-ant-oat01-00001", "not heard of")  # type: ignore[misc]
                assert one.accounts.describe(ID).state == "ready"

    asyncio.run(walk())


def test_options_and_a_new_sign_in_during_a_refresh_win_nothing_lost(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        vendor = Vendor()
        async with machines(database, tmp_path, vendor) as (a, b):
            await with_account(a, b)

            async def changed(_: str) -> None:
                await b.accounts.change(ID, {"priority": 3, "models": ["claude-haiku-4-5"]})

            vendor.meanwhile = changed
            new = await a.accounts.refresh(ID, FIRST)
            assert new.secret == "sk-ant-oat01-00001" and new.models == ("claude-haiku-4-5",)
            await until(lambda: b.secret() == new.secret, "not heard of")
            assert b.accounts.describe(ID).priority == a.accounts.describe(ID).priority == 3

            async def signed_in(_: str) -> None:
                b.drop(FILE, claude("sk-ant-oat01-human"))
                await b.accounts.reload()

            vendor.meanwhile = signed_in
            assert (await a.accounts.refresh(ID, new.secret)).secret == "sk-ant-oat01-human"
            vendor.meanwhile = None
            assert (await b.accounts.refresh(ID, "sk-ant-oat01-human")).secret == "sk-ant-oat01-00003"
            assert not vendor.doubles

    asyncio.run(walk())


def test_a_refresh_of_a_removed_account_brings_nothing_back(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        vendor = Vendor()
        async with machines(database, tmp_path, vendor) as (a, b):
            await with_account(a, b)

            async def gone(_: str) -> None:
                await b.accounts.withdraw_account(ID)

            vendor.meanwhile = gone
            with pytest.raises(RefreshError):
                await a.accounts.refresh(ID, FIRST)
            assert not b.accounts.knows(ID)
            assert database.sql("select count(*) from pool.credential where sealed is not null") == "0"
            assert not list((a.folder / "escrow").glob("*.json"))

    asyncio.run(walk())


@pytest.mark.slow
def test_one_machine_refreshes_on_timers_and_the_next_takes_over(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        vendor = Vendor()
        async with AsyncExitStack() as first, AsyncExitStack() as second:
            a = await first.enter_async_context(machine(database, tmp_path / "a", vendor, background=True))
            b = await second.enter_async_context(machine(database, tmp_path / "b", vendor, background=True))
            mine = [one.accounts._ports.duties.mine for one in (a, b)]
            assert [has(duty) for has in mine for duty in (REFRESH, POLL)] == [True, True, False, False]
            b.drop(FILE, claude(FIRST, ends=NOW + 60))  # it is to be refreshed at once
            await until(lambda: a.accounts.knows(ID) and a.secret() != FIRST, "nobody refreshed it")
            await until(lambda: b.accounts.knows(ID) and a.secret() == b.secret(), "not heard of")
            assert len(vendor.asked) == 1
            await first.aclose()
            await until(lambda: mine[1](REFRESH) and mine[1](POLL), "nobody took over")
            b.drop(FILE, claude("sk-ant-oat01-fresh", ends=NOW + 60))
            await until(lambda: b.secret() == "sk-ant-oat01-00002", "nobody refreshed it")
        assert not vendor.doubles
        assert database.sql("select count(*) from pool.lease where until > clock_timestamp()") == "0"

    asyncio.run(walk())


def test_machines_whose_clocks_are_apart_trade_once(database: Database, tmp_path: Path) -> None:
    async def walk() -> None:
        vendor = Vendor()
        fast, slow = (lambda: NOW + 300.0), (lambda: NOW)
        async with (
            machine(database, tmp_path / "a", vendor, clock=fast) as a,
            machine(database, tmp_path / "b", vendor, clock=slow) as b,
        ):
            await with_account(a, b)
            secret = FIRST
            for number in range(1, 6):
                found = await asyncio.gather(*(one.accounts.refresh(ID, secret) for one in (a, b)))
                assert {one.secret for one in found} == {f"sk-ant-oat01-{number:05}"}
                secret = found[0].secret
            assert len(vendor.asked) == 5 and not vendor.doubles

    asyncio.run(walk())


def many(number: int) -> list[str]:
    return [f"claude:n{n}" for n in range(number)]


async def storm(database: Database, folder: Path, accounts: int, rounds: int) -> Vendor:
    """All accounts of two machines expire together, again and again."""
    vendor = Vendor()
    async with machines(database, folder, vendor) as (a, b):
        for n in range(accounts):
            a.drop(f"claude_n{n}.json", claude(f"sk-ant-oat01-n{n:04}"))
        await a.accounts.reload()
        await until(lambda: all(b.accounts.knows(one) for one in many(accounts)), "not all are there")
        for _ in range(rounds):
            before = {one: a.secret(one) for one in many(accounts)}
            await asyncio.gather(
                *(m.accounts._background.refresher.refresh(one, before[one]) for m in (a, b) for one in before)
            )
            for one in before:
                await until(lambda one=one: a.secret(one) == b.secret(one) != before[one], "apart")  # type: ignore[misc]  # noqa: B023
    return vendor


@pytest.mark.slow
def test_accounts_that_expire_together_are_each_refreshed_once(database: Database, tmp_path: Path) -> None:
    vendor = asyncio.run(storm(database, tmp_path, 20, 3))
    assert len(vendor.asked) == 60 and not vendor.doubles
