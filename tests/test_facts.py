"""What the alert rules are told of accounts and people, and the door of names that stand in files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.alerts import Budget
from pool_server.app.alert_facts import AlertFactsSource
from pool_server.app.server import CoreServices, open_services
from pool_server.core.enums import AccountState, Denial, FaultKind, Operation
from pool_server.core.models import OF_ACCOUNT, Fault, HttpAnswer, HttpRequest, Principal, Usage, UsageRecord
from pool_server.core.settings import Settings
from pool_server.users import AuditActor, RefusedError, Reservation
from tests.fakes import account, write_pool


async def nobody(request: HttpRequest) -> HttpAnswer:
    raise AssertionError(request.url)


def with_rooms(folder: Path, work: Callable[[CoreServices], object], **more: Any) -> None:
    async def run() -> None:
        rooms = open_services(Settings(data_dir=str(folder / "data"), pool_dir=str(folder / "pool"), **more), nobody)
        try:
            rooms.accounts.load()
            await work(rooms)  # type: ignore[misc]
        finally:
            rooms.close_stores()

    asyncio.run(run())


def test_accounts_whose_owner_must_act_are_told_until_they_are_gone(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", [account("claude:a"), account("claude:b")])

    async def work(rooms: CoreServices) -> None:
        gather = AlertFactsSource(rooms.accounts, rooms.users, rooms.ledger, clock=lambda: 2e9)
        assert (await gather()).accounts == {}
        suspended = Fault(FaultKind.SUSPENDED, OF_ACCOUNT, message="organization disabled")
        rooms.accounts.fail("claude:a", suspended, "m", Operation.MESSAGES)
        for _ in range(2):
            assert (await gather()).accounts == {"claude:a": AccountState.SUSPENDED}
        (tmp_path / "pool/claude_a.json").unlink()
        await rooms.accounts.reload()
        assert (await gather()).accounts == {}

    with_rooms(tmp_path, work)


def test_people_near_a_limit_are_told_also_when_they_rest(tmp_path: Path) -> None:
    async def work(rooms: CoreServices) -> None:
        now = [1_790_000_000.0]
        made = await rooms.users.people.create_user("Ann", actor=AuditActor("shell"), limits={"tokens_month": 1000})
        other = await rooms.users.people.create_user("Ben", actor=AuditActor("shell"))
        for number, user in enumerate((made["id"], other["id"])):
            record = UsageRecord(f"r{number}", now[0], user, model="m", usage=Usage(input=10, known=True))
            assert await rooms.ledger.record(record)
        await rooms.ledger.fresh()
        gather = AlertFactsSource(rooms.accounts, rooms.users, rooms.ledger, clock=lambda: now[0])
        assert (await gather()).budgets == ()
        principal = rooms.users.authenticate(made["key"])
        assert isinstance(principal, Principal)
        held = rooms.users.admission.reserve(principal, provider="claude", model="m", tokens=850, cost=None)
        assert isinstance(held, Reservation)
        rooms.users.admission.settle(held, Usage(input=850, known=True), None)
        near = (Budget("Ann", "tokens_month", 0.85),)
        assert (await gather()).budgets == near
        now[0] += 86_400
        assert (await gather()).budgets == near
        fresh = AlertFactsSource(rooms.accounts, rooms.users, rooms.ledger, clock=lambda: now[0])
        assert (await fresh()).budgets == ()
        fresh.prime()
        assert (await fresh()).budgets == near
        await rooms.users.people.delete_user(made["id"], actor=AuditActor("shell"))
        assert (await gather()).budgets == ()

    with_rooms(tmp_path, work)


def test_a_name_in_an_accounts_file_is_nobodys_at_the_door(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", [account("claude:a", owner="Berta")])

    async def work(rooms: CoreServices) -> None:
        for name, taken in (("Berta", True), ("berta", True), ("Anna", False)):
            enters = rooms.users.sign_in.friend_login(peer="192.0.2.1", code="swim", name=name, passphrase="a long one")
            if not taken:
                assert (await enters).user
                continue
            with pytest.raises(RefusedError) as refused:
                await enters
            assert refused.value.denied.denial is Denial.NAME_TAKEN

    with_rooms(tmp_path, work, friend_code="swim")
