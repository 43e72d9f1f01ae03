"""Sign-ins in the store: sealed, taken over from a worker that died, answered by any worker, over in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts import Accounts, AccountSignIn, PastedCodeError, SignInBusyError, SignInStart
from pool_server.accounts.credentials.sealing import SealKeys
from pool_server.accounts.sign_in import records, service
from pool_server.accounts.sign_in.pasted import read_code
from pool_server.accounts.sign_in.records import Secrets, SignInStore, end
from pool_server.accounts.sign_in.service import CLAIM_S, PAGE_S
from pool_server.cluster.credentials.sign_in_rows import DatabaseSignIns
from pool_server.core import processes
from pool_server.core.enums import Provider, SignInFlow, SignInState, SignInStep
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.demo.fake_account import FakeAccount
from pool_server.storage.errors import StoreAwayError
from pool_server.storage.postgres.thread import DatabaseThread
from tests.accounts.kit import NOW, Line, Pool, of_a_dead_process
from tests.cluster.conftest import database, server, template

__all__ = ["database", "server", "template"]

REDIRECT = "http://localhost:1455/auth/callback"


class Vendor:
    """Answers the calls of a sign-in and of the trial; `asked` counts exchanges."""

    def __init__(self) -> None:
        self.person = FakeAccount(Provider.CODEX, "ada", now=NOW)
        self.asked = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, request: HttpRequest) -> HttpAnswer:
        if request.url.endswith("/oauth/token"):
            self.asked += 1
            if self.gate is not None:
                await self.gate.wait()
            tokens = self.person.file()["tokens"]
            return HttpAnswer(200, {}, json.dumps(tokens).encode())
        if request.url.endswith("/responses"):
            return HttpAnswer(200, {}, b'data: {"type":"response.completed","response":{}}\n\n')
        return HttpAnswer(404, {}, b"{}")


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


class Elsewhere(SignInStore):
    """Those of a database, asked from whatever loop a test runs."""

    def __init__(self, thread: DatabaseThread) -> None:
        self._thread = thread
        self._rows = DatabaseSignIns(thread.pool, SealKeys({"k1": b"1" * 32}))

    async def get(self, ident: str) -> bytes | None:
        return await self._thread.ask(self._rows.get(ident))

    async def all(self) -> list[bytes]:
        return await self._thread.ask(self._rows.all())

    async def change(self, ident: str, work: Callable[[bytes | None], bytes | None]) -> bool:
        return await self._thread.ask(self._rows.change(ident, work))

    def seal(self, ident: str, plain: bytes) -> bytes:
        return self._rows.seal(ident, plain)

    def opened(self, ident: str, sealed: bytes) -> bytes | None:
        return self._rows.opened(ident, sealed)

    async def drop(self, ident: str) -> None:
        await self._thread.ask(self._rows.drop(ident))


@pytest.fixture(params=["embedded", pytest.param("postgresql", marks=pytest.mark.slow)])
def pool(request: pytest.FixtureRequest, tmp_path: Path, vendor: Vendor) -> Iterator[Pool]:
    if request.param == "embedded":
        yield Pool(tmp_path, {}, line=Line(vendor))
        return
    thread = DatabaseThread(request.getfixturevalue("database").place(), 4)
    try:
        yield Pool(tmp_path, {}, line=Line(vendor), sign_ins=Elsewhere(thread))
    finally:
        thread.close()


def begin(accounts: Accounts, **more: Any) -> AccountSignIn:
    asked = SignInStart(Provider.CODEX, more.pop("flow", SignInFlow.BROWSER), "admin", **more)
    made = asyncio.run(accounts.sign_ins.begin(asked))
    return found(accounts, made["id"])


def found(accounts: Accounts, ident: str) -> AccountSignIn:
    record = asyncio.run(accounts.sign_ins.get(ident))
    assert record is not None
    return record


def address(accounts: Accounts, record: AccountSignIn) -> str:
    return f"{REDIRECT}?code=ac_0123456789&state={accounts.sign_ins.records.opened(record).state}"


def test_nothing_of_a_sign_in_is_readable_in_the_store(tmp_path: Path, vendor: Vendor) -> None:
    pool = Pool(tmp_path, {}, line=Line(vendor))
    record = begin(pool.accounts)
    what = pool.accounts.sign_ins.records.opened(record)
    assert what.verifier and what.state
    raw = pool.store.get(records.TABLE, record.id.encode())
    assert raw is not None and what.verifier.encode() not in raw and what.state.encode() not in raw
    assert (tmp_path / records.KEY_FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / records.KEY_FILE).write_bytes(b"k" * 32)
    assert pool.worker().sign_ins.records.opened(record) == Secrets(), "another key opens nothing"


def test_an_end_erases_the_secrets(pool: Pool) -> None:
    record = begin(pool.accounts)
    end(record, SignInState.FAILED)
    assert record.sealed == b"" and pool.accounts.sign_ins.records.opened(record) == Secrets()


def test_any_worker_goes_on_with_it(pool: Pool) -> None:
    other = pool.worker(leader=False)
    record = begin(pool.accounts, name="ada")
    after = asyncio.run(other.sign_ins.paste(record, address(pool.accounts, record)))
    assert after.state is SignInState.DONE and found(pool.accounts, record.id).account == "codex:ada"


def test_two_workers_exchange_a_code_once(pool: Pool, vendor: Vendor) -> None:
    other = pool.worker(leader=False)
    record = begin(pool.accounts, name="ada")
    text = address(pool.accounts, record)

    async def both() -> Any:
        return await asyncio.gather(
            pool.accounts.sign_ins.paste(record, text), other.sign_ins.paste(record, text), return_exceptions=True
        )

    results = asyncio.run(both())
    assert vendor.asked == 1
    assert sum(isinstance(one, AccountSignIn) for one in results) >= 1
    assert all(isinstance(one, AccountSignIn | SignInBusyError) for one in results)


async def tended(accounts: Accounts, record: AccountSignIn) -> None:
    await accounts.sign_ins._tend(record)


def test_tokens_of_a_worker_that_was_killed_are_not_lost(pool: Pool, vendor: Vendor) -> None:
    record = begin(pool.accounts, name="ada")
    kept = pool.accounts.sign_ins.records
    record.step, record.claimed = SignInStep.CHECK, NOW + CLAIM_S
    kept.seal(record, Secrets(data=vendor.person.file()))
    asyncio.run(kept.put(record))  # and here it dies
    again = pool.again()
    asyncio.run(tended(again, found(again, record.id)))
    assert found(again, record.id).state is SignInState.WAITING, "another worker may still be at it"
    pool.clock.now += CLAIM_S
    asyncio.run(tended(again, found(again, record.id)))
    assert found(again, record.id).account == "codex:ada" and again.knows("codex:ada")


@pytest.mark.parametrize("late", [False, True])
def test_what_a_dead_worker_left_is_taken_up_at_once(pool: Pool, vendor: Vendor, late: bool) -> None:
    """Also when the server is back after the sign-in's time: its code is spent, and its tokens are here."""
    record = begin(pool.accounts, name="ada")
    kept = pool.accounts.sign_ins.records
    record.step, record.claimed, record.claimer = SignInStep.CHECK, NOW + CLAIM_S, of_a_dead_process()
    kept.seal(record, Secrets(data=vendor.person.file()))
    asyncio.run(kept.put(record))
    pool.clock.now += 2 * PAGE_S if late else 0.0
    again = pool.again()
    asyncio.run(tended(again, found(again, record.id)))
    assert found(again, record.id).account == "codex:ada" and again.knows("codex:ada")


def test_a_living_worker_and_one_of_another_machine_are_waited_for(pool: Pool, vendor: Vendor) -> None:
    record = begin(pool.accounts, name="ada")
    kept = pool.accounts.sign_ins.records
    pid, started, _boot, chance = of_a_dead_process().split(".")
    for claimer in (processes.name(), f"{pid}.{started}.elsewher.{chance}"):
        record.step, record.claimed, record.claimer = SignInStep.CHECK, NOW + CLAIM_S, claimer
        kept.seal(record, Secrets(data=vendor.person.file()))
        asyncio.run(kept.put(record))
        again = pool.again()
        asyncio.run(tended(again, found(again, record.id)))
        assert found(again, record.id).state is SignInState.WAITING


def test_two_leaders_do_not_take_up_the_same(pool: Pool, vendor: Vendor) -> None:
    """As while an upgrade lasts."""
    record = begin(pool.accounts, name="ada")
    record.step, record.claimed, record.claimer = SignInStep.CHECK, NOW + CLAIM_S, of_a_dead_process()
    pool.accounts.sign_ins.records.seal(record, Secrets(data=vendor.person.file()))
    asyncio.run(pool.accounts.sign_ins.records.put(record))
    one, two = pool.again(), pool.again()
    ended: list[str] = []
    for each in (one, two):

        async def hear(which: AccountSignIn) -> None:
            ended.append(which.account)

        each.sign_ins.on_end.append(hear)

    seen = found(one, record.id), found(two, record.id)

    async def both() -> None:
        await asyncio.gather(tended(one, seen[0]), tended(two, seen[1]))

    asyncio.run(both())
    assert ended == ["codex:ada"]


@pytest.mark.parametrize("broken", [0, 1])
def test_a_sign_in_that_cannot_be_tended_stops_no_other(
    pool: Pool, vendor: Vendor, broken: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sign_ins = pool.accounts.sign_ins
    under_way = [begin(pool.accounts, name=name) for name in ("ada", "bob")]
    for record in under_way:
        record.step, record.claimed = SignInStep.CHECK, NOW
        sign_ins.records.seal(record, Secrets(data=vendor.person.file()))
        asyncio.run(sign_ins.records.put(record))
    opened = sign_ins.records.opened

    def opens(record: AccountSignIn) -> Secrets:
        if record.id == under_way[broken].id:
            raise RuntimeError("of this one alone")
        return opened(record)

    monkeypatch.setattr(sign_ins.records, "opened", opens)
    pool.clock.now += CLAIM_S
    asyncio.run(sign_ins.tend())
    assert found(pool.accounts, under_way[1 - broken].id).state is SignInState.DONE
    assert found(pool.accounts, under_way[broken].id).state is SignInState.WAITING
    assert [line.message for line in caplog.records if line.exc_info] == ["tending a sign-in failed"]


def test_a_code_that_was_sent_and_not_answered_is_not_sent_again(pool: Pool, vendor: Vendor) -> None:
    record = begin(pool.accounts)
    record.step, record.claimed = SignInStep.EXCHANGE, NOW + CLAIM_S
    asyncio.run(pool.accounts.sign_ins.records.put(record))
    pool.clock.now += CLAIM_S
    again = pool.again()
    asyncio.run(tended(again, found(again, record.id)))
    after = found(again, record.id)
    assert (after.state, after.code) == (SignInState.FAILED, "lost") and vendor.asked == 0


def test_after_its_time_nothing_is_taken(pool: Pool, vendor: Vendor) -> None:
    record = begin(pool.accounts)
    text = address(pool.accounts, record)
    pool.clock.now += PAGE_S
    assert found(pool.accounts, record.id).state is SignInState.EXPIRED
    with pytest.raises((SignInBusyError, PastedCodeError)):
        asyncio.run(pool.accounts.sign_ins.paste(record, text))
    assert vendor.asked == 0


def test_a_line_has_half_an_hour_and_its_ticket_ends_with_it(pool: Pool) -> None:
    record = begin(pool.accounts, flow=SignInFlow.LINE)
    ticket = pool.accounts.sign_ins.records.opened(record).ticket
    assert asyncio.run(pool.accounts.sign_ins.by_ticket(ticket)) is not None
    pool.clock.now += 1800.0
    assert asyncio.run(pool.accounts.sign_ins.by_ticket(ticket)) is None


@given(st.text(max_size=400))
def test_no_text_is_more_than_refused(text: str) -> None:
    try:
        got = read_code(text, redirects=(REDIRECT,), state="s" * 43)
    except PastedCodeError as wrong:
        assert "\n" not in str(wrong) and len(str(wrong)) < 200
        return
    assert got.code or got.error


@given(st.text(alphabet="abcXYZ019-_", min_size=8, max_size=60), st.text(alphabet="abc019-_", min_size=43, max_size=43))
def test_a_code_comes_out_as_it_was(code: str, state: str) -> None:
    got = read_code(f"{REDIRECT}?code={code}&state={state}", redirects=(REDIRECT,), state=state)
    assert got.code == code


class Away(service.SignIns):
    """Of a store that answers at every third look."""

    def __init__(self) -> None:
        self.looks = 0

    async def tend(self) -> None:
        self.looks += 1
        if self.looks == 10:
            raise asyncio.CancelledError
        if self.looks % 3:
            raise StoreAwayError("the database does not answer")


def test_a_store_that_is_away_is_told_of_once_an_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "TICK_S", 0)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Away()._watch())
    told = "the sign-ins under way cannot be read: the database does not answer"
    assert [record.getMessage() for record in caplog.records] == [told] * 3
    assert not any(record.exc_info for record in caplog.records)
