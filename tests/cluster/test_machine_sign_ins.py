"""Sign-ins over several machines: begun on one, ended on another, asked of the vendor once, sealed in the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import AccountSignIn, SignInBusyError, SignInStart
from pool_server.core.enums import Provider, SignInFlow, SignInState
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.demo.fake_account import FakeAccount
from tests.accounts.kit import NOW, Clock
from tests.cluster.conftest import Database
from tests.cluster.machines import Machine, machines

REDIRECT = "http://localhost:1455/auth/callback"


class Vendor:
    """Codex' sign-in: `asked` by the end of each path. A device's code was typed once `typed` is set."""

    def __init__(self) -> None:
        self.person = FakeAccount(Provider.CODEX, "ada", now=NOW)
        self.asked: list[str] = []
        self.typed = False

    async def __call__(self, request: HttpRequest) -> HttpAnswer:
        end = request.url.rpartition("/")[2].partition("?")[0]
        self.asked.append(end)
        await asyncio.sleep(0.05)
        if end == "usercode":
            told = {"device_auth_id": "d1", "user_code": "ABCD-EFGH", "interval": "1", "expires_in": 900}
        elif end == "token" and "deviceauth" in request.url:
            if not self.typed:
                return HttpAnswer(403, {}, b"{}")
            told = {"authorization_code": "ac_0123456789", "code_verifier": "v" * 43}
        elif end == "token":
            told = self.person.file()["tokens"]
        elif end == "responses":
            return HttpAnswer(200, {}, b'data: {"type":"response.completed","response":{}}\n\n')
        else:
            return HttpAnswer(404, {}, b"{}")
        return HttpAnswer(200, {}, json.dumps(told).encode())


async def begin(machine: Machine, flow: SignInFlow) -> AccountSignIn:
    sign_ins = machine.accounts.sign_ins
    made = await sign_ins.begin(SignInStart(Provider.CODEX, flow, "admin", name="ada"))
    record = await sign_ins.get(made["id"])
    assert record is not None
    return record


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)


def run(database: Database, folder: Path, work: Callable[[list[Machine], Vendor], Any]) -> None:
    async def go() -> None:
        vendor = Vendor()
        async with machines(database, folder, vendor, 2, clock=Clock(NOW)) as found:
            await work(found, vendor)

    asyncio.run(go())


def test_begun_on_one_machine_and_ended_on_another(database: Database, tmp_path: Path) -> None:
    async def work(found: list[Machine], vendor: Vendor) -> None:
        one, other = found
        record = await begin(one, SignInFlow.BROWSER)
        seen = await other.accounts.sign_ins.get(record.id)
        assert seen is not None and other.accounts.sign_ins.shown(seen) == one.accounts.sign_ins.shown(record)
        state = one.accounts.sign_ins.records.opened(record).state
        dump = database.sql("select encode(body, 'escape') from pool.sign_in")
        assert state and state not in dump
        text = f"{REDIRECT}?code=ac_0123456789&state={state}"
        tries = [machine.accounts.sign_ins.paste(seen, text) for machine in (one, other, other, one)]
        ends = await asyncio.gather(*tries, return_exceptions=True)
        assert vendor.asked.count("token") == 1
        assert all(isinstance(end, AccountSignIn | SignInBusyError) for end in ends)
        for machine in found:
            after = await machine.accounts.sign_ins.get(record.id)
            assert after is not None and after.state is SignInState.DONE and after.account == "codex:ada"
            await until(partial(machine.accounts.knows, "codex:ada"))
        assert database.sql("select count(*) from pool.credential where account = 'codex:ada'") == "1"

    run(database, tmp_path, work)


def test_a_line_s_ticket_is_good_on_any_machine_and_once(database: Database, tmp_path: Path) -> None:
    async def work(found: list[Machine], vendor: Vendor) -> None:
        one, other = found
        record = await begin(one, SignInFlow.LINE)
        ticket = one.accounts.sign_ins.shown(record)["ticket"]
        seen = await other.accounts.sign_ins.by_ticket(ticket)
        assert seen is not None and seen.id == record.id
        text = json.dumps(vendor.person.file())
        tries = [machine.accounts.sign_ins.deliver(seen, text) for machine in (one, other) * 2]
        ends = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(end, AccountSignIn) for end in ends) == 1
        for machine in found:
            assert await machine.accounts.sign_ins.by_ticket(ticket) is None

    run(database, tmp_path, work)


def test_of_machines_that_both_look_after_it_one_asks_for_a_device(database: Database, tmp_path: Path) -> None:
    async def work(found: list[Machine], vendor: Vendor) -> None:
        record = await begin(found[0], SignInFlow.DEVICE)
        clock: Any = found[0].accounts.sign_ins._clock
        for _ in range(5):
            clock.now += record.interval
            before = len(vendor.asked)
            await asyncio.gather(*(machine.accounts.sign_ins.tend() for machine in found))
            assert len(vendor.asked) == before + 1
        vendor.typed = True
        clock.now += record.interval
        await asyncio.gather(*(machine.accounts.sign_ins.tend() for machine in found))
        after = await found[1].accounts.sign_ins.get(record.id)
        assert after is not None and after.account == "codex:ada" and after.state is SignInState.DONE

    run(database, tmp_path, work)


@pytest.mark.parametrize("ident", ["", "x" * 201, "no\0text", "\ud800", "' or 1=1 --"])
def test_what_is_no_id_is_none(database: Database, tmp_path: Path, ident: str) -> None:
    async def work(found: list[Machine], vendor: Vendor) -> None:
        assert await found[0].accounts.sign_ins.get(ident) is None

    run(database, tmp_path, work)
