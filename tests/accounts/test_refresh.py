"""Refresh: once a token, durable before use, in nobody's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.accounts import RefreshError, service
from pool_server.accounts.credentials.refresh import LEASE_S
from pool_server.core import processes
from pool_server.core.enums import FaultKind, Operation
from pool_server.core.models import OF_ACCOUNT, Fault, HttpAnswer, HttpRequest
from pool_server.core.settings import UsagePolling
from pool_server.core.tasks import Timers
from pool_server.providers import Credential
from pool_server.storage.leases import TABLE, EmbeddedLeases
from pool_server.storage.write_behind import WriteBehind
from tests.accounts.kit import (
    DAY,
    HOUR,
    NOW,
    Clock,
    Line,
    Pool,
    ask,
    claude,
    key,
    of_a_dead_process,
    quota,
    token_answer,
    window,
)

OLD, NEW = "sk-ant-oat01-first", "sk-ant-oat01-second"


def pool(tmp_path: Path, answer: Any = None, **more: Any) -> Pool:
    line = Line(lambda _: answer) if isinstance(answer, HttpAnswer) else Line(answer)
    return Pool(tmp_path, {"claude_a.json": claude(OLD)}, line=line, **more)


def on_disk(p: Pool) -> str:
    return str(json.loads((p.folder / "claude_a.json").read_text())["claudeAiOauth"]["accessToken"])


def refused(code: str, status: int = 400) -> HttpAnswer:
    return HttpAnswer(status, {}, json.dumps({"error": code}).encode())


def test_ten_concurrent_refusals_are_one_refresh(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW))

    async def run() -> list[str]:
        return [c.secret for c in await asyncio.gather(*(p.accounts.refresh("claude:a", OLD) for _ in range(10)))]

    assert asyncio.run(run()) == [NEW] * 10
    assert len(p.line.sent) == 1
    assert on_disk(p) == NEW and p.accounts.credential("claude:a").secret == NEW


def test_one_refresh_among_workers(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW), workers=2)
    workers = [p.accounts, *(p.worker(leader=False) for _ in range(3))]

    async def run() -> list[str]:
        return [c.secret for c in await asyncio.gather(*(w.refresh("claude:a", OLD) for w in workers))]

    assert asyncio.run(run()) == [NEW] * 4
    assert len(p.line.sent) == 1


def test_the_token_is_on_disk_before_anybody_uses_it(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW))

    async def run() -> None:
        await p.accounts.refresh("claude:a", OLD)
        assert on_disk(p) == NEW

    asyncio.run(run())


def test_a_caller_that_leaves_stops_no_refresh(tmp_path: Path) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def slow(_: HttpRequest) -> HttpAnswer:
            await gate.wait()
            return token_answer(NEW)

        p = pool(tmp_path, slow)
        caller = asyncio.create_task(p.accounts.refresh("claude:a", OLD))
        while not p.line.sent:
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        gate.set()
        assert (await p.accounts.refresh("claude:a", OLD)).secret == NEW
        assert on_disk(p) == NEW and len(p.line.sent) == 1

    asyncio.run(run())


def test_closing_waits_for_the_token(tmp_path: Path) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def slow(_: HttpRequest) -> HttpAnswer:
            await gate.wait()
            return token_answer(NEW)

        p = pool(tmp_path, slow)
        caller = asyncio.create_task(p.accounts.refresh("claude:a", OLD))
        while not p.line.sent:
            await asyncio.sleep(0)
        caller.cancel()
        closing = asyncio.create_task(p.accounts.close())
        await asyncio.sleep(0.01)
        gate.set()
        await closing
        assert on_disk(p) == NEW

    asyncio.run(run())


def test_somebody_elses_rotation_is_taken_from_the_file(tmp_path: Path) -> None:
    p = pool(tmp_path)
    p.write("claude_a.json", claude(NEW))
    assert asyncio.run(p.accounts.refresh("claude:a", OLD)).secret == NEW
    assert not p.line.sent


def test_a_failure_of_an_older_token_refreshes_nothing(tmp_path: Path) -> None:
    p = pool(tmp_path)
    assert asyncio.run(p.accounts.refresh("claude:a", "sk-ant-oat01-ancient")).secret == OLD
    assert not p.line.sent


@pytest.mark.parametrize("code", ["invalid_grant", "refresh_token_reused"])
def test_a_dead_refresh_token_needs_a_login_and_others_live(tmp_path: Path, code: str) -> None:
    p = pool(tmp_path, refused(code))
    p.write("claude_b.json", key())
    p.reload()
    with pytest.raises(RefreshError) as caught:
        asyncio.run(p.accounts.refresh("claude:a", OLD))
    assert caught.value.permanent
    row = p.accounts.describe("claude:a")
    assert (row.state, row.reason, row.set_by) == ("needs_login", "login_lost", "refresh")
    assert row.message and p.accounts.ready() == (2, 1)
    with pytest.raises(RefreshError):
        asyncio.run(p.accounts.refresh("claude:a", OLD))
    assert len(p.line.sent) == 1


def test_a_lost_login_survives_a_restart_and_a_new_one_ends_it(tmp_path: Path) -> None:
    p = pool(tmp_path, refused("invalid_grant"))
    with pytest.raises(RefreshError):
        asyncio.run(p.accounts.refresh("claude:a", OLD))
    p.again()
    assert p.state("claude:a") == "needs_login"
    p.write("claude_a.json", claude(NEW))
    p.reload()
    assert p.state("claude:a") == "ready"


def test_a_new_login_while_the_server_was_down_counts_too(tmp_path: Path) -> None:
    p = pool(tmp_path, refused("invalid_grant"))
    with pytest.raises(RefreshError):
        asyncio.run(p.accounts.refresh("claude:a", OLD))
    p.write("claude_a.json", claude(NEW))
    p.again()
    assert p.state("claude:a") == "ready"


def test_a_busy_token_endpoint_is_left_alone_for_a_while(tmp_path: Path) -> None:
    p = pool(tmp_path, HttpAnswer(429, {"retry-after": "120"}, b"{}"))
    for _ in range(3):
        with pytest.raises(RefreshError) as caught:
            asyncio.run(p.accounts.refresh("claude:a", OLD))
        assert not caught.value.permanent
    assert len(p.line.sent) == 1 and p.state("claude:a") == "ready"
    p.clock.now += 3700
    p.line.answer = lambda _: token_answer(NEW)
    assert asyncio.run(p.accounts.refresh("claude:a", OLD)).secret == NEW


def test_an_expired_token_that_cannot_be_refreshed_now_is_refused_until_then(tmp_path: Path) -> None:
    p = pool(tmp_path, HttpAnswer(0, {}, b"", "connection refused"))
    p.clock.now += 9 * HOUR
    assert p.accounts.select(ask()).account == "claude:a"
    with pytest.raises(RefreshError):
        asyncio.run(p.accounts.refresh("claude:a", OLD))
    decision = p.accounts.select(ask())
    assert decision.account is None and decision.retry_at is not None
    p.clock.now = decision.retry_at + 0.1
    assert p.accounts.select(ask()).account == "claude:a"


def test_its_own_write_is_no_reload_and_no_new_login(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW))
    p.accounts.fail("claude:a", quota(), "m", Operation.MESSAGES, "")
    asyncio.run(p.accounts.refresh("claude:a", OLD))
    report = p.reload()
    assert (report.unchanged, report.changed) == (1, [])
    assert p.state("claude:a") == "exhausted"


def test_another_workers_write_is_no_new_login_either(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW), workers=2)
    other = p.worker(leader=False)
    p.accounts.fail("claude:a", quota(), "m", Operation.MESSAGES, "")
    asyncio.run(p.accounts.refresh("claude:a", OLD))
    assert other.describe("claude:a").state == "exhausted"
    assert other.credential("claude:a").secret == NEW


def test_a_file_that_cannot_be_written_loses_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    p = pool(tmp_path, token_answer(NEW))

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pool_server.accounts.credentials.files.write_back", full)
    assert asyncio.run(p.accounts.refresh("claude:a", OLD)).secret == NEW
    assert p.accounts.credential("claude:a").secret == NEW and on_disk(p) == OLD
    assert "No space left" in caplog.text and NEW not in caplog.text


def test_a_401_that_stays_rests_only_if_the_token_is_still_the_one(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW))
    late = p.accounts.credential("claude:a").fingerprint
    asyncio.run(p.accounts.refresh("claude:a", OLD))
    p.accounts.fail("claude:a", Fault(FaultKind.AUTH, OF_ACCOUNT), "m", Operation.MESSAGES, late)
    assert p.state("claude:a") == "ready"
    now = p.accounts.credential("claude:a").fingerprint
    p.accounts.fail("claude:a", Fault(FaultKind.AUTH, OF_ACCOUNT), "m", Operation.MESSAGES, now)
    assert p.state("claude:a") == "cooling"
    assert p.accounts.describe("claude:a").cooldown_until == NOW + 1800


def test_cooling_accounts_are_refreshed_on_time_disabled_ones_not(tmp_path: Path) -> None:
    p = Pool(
        tmp_path,
        {"claude_a.json": claude(OLD, ends=NOW + 5 * DAY), "claude_off.json": claude("x" * 20, disabled=True),
         "claude_key.json": key()},
        line=Line(lambda _: token_answer(NEW)), usage_polling=UsagePolling(0),
    )  # fmt: skip
    p.accounts.fail("claude:a", quota(6 * DAY), "m", Operation.MESSAGES, "")
    rows = {row.id: row.next_refresh for row in p.accounts.describe_all()}
    assert rows["claude:off"] is None and rows["claude:key"] is None
    due = rows["claude:a"]
    assert due is not None and NOW < due < NOW + 5 * DAY

    async def run() -> None:
        p.clock.now = due + 1
        await p.accounts.start()
        while on_disk(p) == OLD:
            await asyncio.sleep(0.002)
        await p.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert p.state("claude:a") == "exhausted" and len(p.line.sent) == 1


def test_the_accounts_own_proxy_is_used(tmp_path: Path) -> None:
    p = Pool(
        tmp_path, {"claude_a.json": claude(OLD, proxy_url="http://proxy:3128")}, line=Line(lambda _: token_answer(NEW))
    )
    asyncio.run(p.accounts.refresh("claude:a", OLD))
    assert [r.proxy_url for r in p.line.sent] == ["http://proxy:3128"]


def test_timers_run_what_is_due_a_few_at_a_time() -> None:
    async def run() -> None:
        clock, ran, running = Clock(), list[str](), 0
        most = 0

        async def act(name: str) -> float | None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            ran.append(name)
            return clock() + 100 if name == "again" else None

        timers = Timers(act, clock=clock, at_once=2)
        for name in ("a", "b", "c", "again"):
            timers.set(name, NOW)
        timers.set("later", NOW + 50)
        timers.set("never", NOW)
        timers.set("never", None)
        timers.start()
        while len(ran) < 4:
            await asyncio.sleep(0)
        await timers.close()
        assert sorted(ran) == ["a", "again", "b", "c"] and most == 2
        assert timers.due("again") == NOW + 100 and timers.due("later") == NOW + 50

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_timed_task_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def act(_: str) -> float | None:
            raise ValueError("broken")

        clock = Clock()
        timers = Timers(act, clock=clock, at_once=1)
        timers.set("x", NOW)
        timers.start()
        while timers.due("x") != NOW + 300:
            await asyncio.sleep(0)
        await timers.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert "broken" in caplog.text


def test_windows_survive_a_refresh(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW))
    p.accounts.observe("claude:a", [window(42.0)])
    asyncio.run(p.accounts.refresh("claude:a", OLD))
    assert p.accounts.describe("claude:a").windows[0].used_percent == 42.0


def lease(p: Pool, holder: str, *, left: float = LEASE_S) -> None:
    held = msgspec.msgpack.encode({"holder": holder, "until": p.clock.now + left})
    p.store.write(lambda txn: txn.put(TABLE, b"refresh:claude:a", held))


def of_a_process_before_this_one() -> str:
    pid, _, rest = processes.name().partition(".")
    return f"{pid}.1.{rest}"


@pytest.mark.parametrize("holder", [of_a_dead_process, of_a_process_before_this_one, lambda: "4711-0badcafe"])
def test_the_lease_of_a_dead_worker_is_free(tmp_path: Path, holder: Callable[[], str]) -> None:
    p = pool(tmp_path, token_answer(NEW), workers=2)
    lease(p, holder())
    assert asyncio.run(p.accounts.refresh("claude:a", OLD)).secret == NEW
    assert len(p.line.sent) == 1


def test_a_lease_of_before_the_machine_was_started_is_free(tmp_path: Path) -> None:
    """Its number may be another process's now, which has not started at the same hundredth of a second."""
    p = pool(tmp_path, token_answer(NEW), workers=2)
    pid, started, _, chance = processes.name().split(".")
    lease(p, f"{pid}.{int(started) - 1}.another.{chance}")
    assert asyncio.run(p.accounts.refresh("claude:a", OLD)).secret == NEW


@pytest.mark.parametrize("left", [0.0, -LEASE_S, 2 * LEASE_S])
def test_a_lease_that_ended_or_lasts_too_long_is_free(tmp_path: Path, left: float) -> None:
    p = pool(tmp_path, token_answer(NEW), workers=2)
    lease(p, processes.name(), left=left)
    assert asyncio.run(p.accounts.refresh("claude:a", OLD)).secret == NEW


def test_the_lease_of_a_living_worker_keeps_the_others_waiting(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW), workers=2)
    lease(p, processes.name())

    async def run() -> str:
        waiting = asyncio.create_task(p.accounts.refresh("claude:a", OLD))
        await asyncio.sleep(0.15)
        assert not p.line.sent and not waiting.done()
        p.clock.now += LEASE_S
        return (await waiting).secret

    assert asyncio.run(asyncio.wait_for(run(), 60)) == NEW
    assert len(p.line.sent) == 1


@pytest.mark.parametrize("another", [True, False])
def test_a_worker_that_was_stopped_after_it_took_the_lease_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """Its lease has run out by the time it goes on: another may have traded the token, or be about to."""
    p = pool(tmp_path, token_answer(NEW), workers=2)
    clock = [0.0]
    p.accounts._background.refresher._leases = EmbeddedLeases(
        WriteBehind(p.store, p.clock), p.clock, monotonic=lambda: clock[0]
    )
    refresher = p.accounts._background.refresher
    reread, looks = refresher._reread, []

    def stopped(account_id: str, tried: Credential) -> Credential | None:
        looks.append(found := reread(account_id, tried))
        if len(looks) == 2:  # the last one before it asks
            clock[0] += LEASE_S
            if another:
                p.write("claude_a.json", claude(NEW))
        return found

    monkeypatch.setattr(refresher, "_reread", stopped)
    assert asyncio.run(p.accounts.refresh("claude:a", OLD)).secret == NEW
    assert len(p.line.sent) == (0 if another else 1)
    assert p.store.get(TABLE, b"refresh:claude:a") is None, "it was given back"


def test_a_refresh_that_takes_long_sends_callers_to_another_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "REFRESH_PATIENCE_S", 0.01)

    async def run() -> None:
        gate = asyncio.Event()

        async def slow(_: HttpRequest) -> HttpAnswer:
            await gate.wait()
            return token_answer(NEW)

        p = pool(tmp_path, slow)
        p.write("claude_b.json", key(priority=200))
        await p.accounts.reload()
        assert p.accounts.select(ask()).account == "claude:a"
        for _ in range(2):
            with pytest.raises(RefreshError) as caught:
                await p.accounts.refresh("claude:a", OLD)
            assert not caught.value.permanent
        assert p.accounts.select(ask()).account == "claude:b", "nobody else is sent to wait"
        gate.set()
        monkeypatch.setattr(service, "REFRESH_PATIENCE_S", 10.0)
        assert (await p.accounts.refresh("claude:a", OLD)).secret == NEW
        assert p.accounts.select(ask()).account == "claude:a", "it is back with its new token"
        assert len(p.line.sent) == 1

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_refused_token_without_a_new_one_is_tried_again_after_a_while(tmp_path: Path) -> None:
    p = pool(tmp_path, HttpAnswer(503, {}, b""))
    p.write("claude_b.json", key(priority=200))
    p.reload()
    with pytest.raises(RefreshError):
        asyncio.run(p.accounts.refresh("claude:a", OLD))
    assert p.accounts.select(ask()).account == "claude:b"
    p.clock.now += service.REFUSED_S + 0.1
    assert p.accounts.select(ask()).account == "claude:a", "its token has not ended: the refusal may have been a whim"


def test_a_look_that_began_before_a_refresh_does_not_undo_it(tmp_path: Path) -> None:
    p = pool(tmp_path, token_answer(NEW))
    registry = p.accounts._registry
    p.write("claude_b.json", key())
    look = registry.credentials.look(NOW)
    asyncio.run(p.accounts.refresh("claude:a", OLD))
    report = registry.take(look)
    assert (report.added, report.changed, report.unchanged) == (["claude:b"], [], 1)
    assert p.accounts.credential("claude:a").secret == NEW
