"""What asked to be left alone is left alone, also after a restart, and never for longer than was agreed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts import RefreshError
from pool_server.accounts.credentials import back_off
from pool_server.accounts.credentials.back_off import BackOff, Pause
from pool_server.accounts.credentials.refresh import BACK_OFF_LONGEST_S
from pool_server.accounts.health.polling import BACK_OFF_LONGEST_S as POLL_LONGEST_S
from pool_server.accounts.health.polling import JITTER, LEAST_S, LONGEST_S
from pool_server.core import deadlines
from pool_server.core.enums import Provider
from pool_server.core.models import HttpAnswer
from pool_server.core.settings import UsagePolling
from tests.accounts.kit import NOW, Line, Pool, claude, token_answer

OLD, NEW = "sk-ant-oat01-first", "sk-ant-oat01-second"
ID = "claude:a"
SLOW_DOWN = HttpAnswer(429, {"retry-after": "1800"}, b"{}")


def pool(folder: Path, answer: HttpAnswer, *, poll_s: float = 0, workers: int = 1) -> Pool:
    polling = UsagePolling(poll_s)
    return Pool(
        folder, {"claude_a.json": claude(OLD)}, line=Line(lambda _: answer), usage_polling=polling, workers=workers
    )


def refuse(p: Pool) -> RefreshError:
    with pytest.raises(RefreshError) as caught:
        asyncio.run(p.accounts.refresh(ID, OLD))
    assert not caught.value.permanent
    return caught.value


def test_a_restart_does_not_ask_a_busy_token_endpoint_again(tmp_path: Path) -> None:
    p = pool(tmp_path, SLOW_DOWN)
    told = refuse(p).retry_at
    assert told == NOW + 300
    p.clock.now += 60
    p.again()
    assert refuse(p).retry_at == told
    assert len(p.line.sent) == 1
    p.clock.now = told + 1
    p.line.answer = lambda _: token_answer(NEW)
    assert asyncio.run(p.accounts.refresh(ID, OLD)).secret == NEW
    with p.store.read() as reader:
        assert reader.count(back_off.TABLE) == 0


def test_the_wait_grows_over_restarts(tmp_path: Path) -> None:
    p = pool(tmp_path, HttpAnswer(503, {}, b""))
    waits = []
    for _ in range(9):
        until = refuse(p).retry_at
        assert until is not None
        waits.append(until - p.clock.now)
        p.clock.now = until + 1
        p.again()
    assert waits[:3] == [30, 60, 120] and waits[-1] == BACK_OFF_LONGEST_S


def test_timers_and_choice_know_of_it_after_a_restart(tmp_path: Path) -> None:
    p = pool(tmp_path, SLOW_DOWN)
    until = refuse(p).retry_at

    p.clock.now += 60
    p.again()

    async def run() -> None:
        await p.accounts.start()
        assert p.accounts._registry.account(ID).refresh_retry_at == until
        await p.accounts.close()

    asyncio.run(run())
    assert len(p.line.sent) == 1


def test_another_worker_is_told_too(tmp_path: Path) -> None:
    p = pool(tmp_path, SLOW_DOWN, workers=2)
    other = p.worker(leader=False)
    refuse(p)
    with pytest.raises(RefreshError):
        asyncio.run(other.refresh(ID, OLD))
    assert len(p.line.sent) == 1


def test_a_new_login_need_not_wait(tmp_path: Path) -> None:
    p = pool(tmp_path, SLOW_DOWN)
    refuse(p)
    p.write("claude_a.json", claude(NEW))
    p.again()
    p.line.answer = lambda _: token_answer("sk-ant-oat01-third")
    assert asyncio.run(p.accounts.refresh(ID, NEW)).secret == "sk-ant-oat01-third"


def test_a_restart_does_not_ask_a_usage_endpoint_again(tmp_path: Path) -> None:
    p = pool(tmp_path, SLOW_DOWN, poll_s=300)
    poller = p.accounts._background.poller
    again = asyncio.run(poller.poll(ID))
    assert again is not None and again >= NOW + 3600
    for _ in range(3):
        p.clock.now += 60
        p.again()
        assert p.accounts._background.poller.first(ID) == again
        assert p.accounts._background.poller.soon(ID) is None
    p.clock.now = again + 1
    second = asyncio.run(p.accounts._background.poller.poll(ID))
    assert second is not None and second - p.clock.now >= 2 * 3600, "it was the second refusal in a row"


def test_a_restart_does_not_ask_sooner_than_the_interval(tmp_path: Path) -> None:
    usage = b'{"five_hour": {"utilization": 10.0, "resets_at": null}}'
    p = pool(tmp_path, HttpAnswer(200, {}, usage), poll_s=300)
    again = asyncio.run(p.accounts._background.poller.poll(ID))
    least = LEAST_S[Provider.CLAUDE]
    assert again is not None and (1 - JITTER) * least <= again - NOW <= (1 + JITTER) * least
    p.clock.now += 5
    p.again()
    assert p.accounts._background.poller.first(ID) == again


def test_an_endpoint_that_names_a_time_far_away_is_asked_within_a_day(tmp_path: Path) -> None:
    p = pool(tmp_path, HttpAnswer(429, {"retry-after": "999999999"}, b"{}"), poll_s=300)
    again = asyncio.run(p.accounts._background.poller.poll(ID))
    assert again is not None and NOW + 3600 <= again <= NOW + LONGEST_S
    assert POLL_LONGEST_S < LONGEST_S


clocks = st.floats(min_value=-4e8, max_value=4e8)
pauses = st.floats(min_value=0, max_value=7200)


@given(steps=st.lists(clocks, max_size=5), pause=pauses, longest=st.floats(min_value=1, max_value=3600))
def test_no_step_of_the_clock_makes_a_wait_longer(steps: list[float], pause: float, longest: float) -> None:
    now = NOW
    until = deadlines.within(now + pause, now, longest)
    for step in steps:
        now += step
        assert 0.0 <= deadlines.left(until, now, longest) <= longest
        assert deadlines.within(until, now, longest) - now <= longest + 1e-6 * abs(now)


@pytest.mark.parametrize("step", [-2 * 86400.0, 400 * 86400.0, -400 * 86400.0])
def test_a_pause_of_another_clock_is_over(tmp_path: Path, step: float) -> None:
    p = pool(tmp_path, SLOW_DOWN)
    refuse(p)
    p.clock.now += step
    p.line.answer = lambda _: token_answer(NEW)
    assert asyncio.run(p.accounts.refresh(ID, OLD)).secret == NEW


@pytest.mark.parametrize("raw", [b"", b"\x91", b"junk", b"\x81\xa5until\xa1x"])
def test_a_pause_that_cannot_be_read_is_none(tmp_path: Path, raw: bytes) -> None:
    p = pool(tmp_path, token_answer(NEW))
    pauses_of = p.accounts._background.refresher._back_off
    assert isinstance(pauses_of, BackOff)
    pauses_of.set(ID, Pause(NOW + 60, 1, p.accounts.credential(ID).fingerprint, "why"))
    assert pauses_of.get(ID, NOW, p.accounts.credential(ID).fingerprint) is not None
    p.store.write(lambda txn: txn.put(back_off.TABLE, b"refresh:claude:a", raw))
    assert asyncio.run(p.accounts.refresh(ID, OLD)).secret == NEW
