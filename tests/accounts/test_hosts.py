"""Ways to the providers that fail: set aside for a while, tried by one request, never the only one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts.selection import hosts
from pool_server.accounts.selection.select import SelectionRequest
from pool_server.core.enums import ChoiceReason, Dialect, Operation, PassiveHealth, Provider
from tests.accounts.kit import Pool, ask

FAR, NEAR = "https://far.example/v1", "https://near.example/v1"


def key(base_url: str, **options: Any) -> dict[str, Any]:
    return {"api_key": "sk-aaaaaaaa", "base_url": base_url, **options}


def two(folder: Path, **more: Any) -> Pool:
    """The account behind `far` is the better one."""
    files = {"openai_far.json": key(FAR, priority=1), "openai_near.json": key(NEAR, priority=2), **more}
    return Pool(folder, files)


def asking(session: str | None = None) -> SelectionRequest:
    asked = ask(session=session, model="m", providers=(Provider.OPENAI,))
    asked.operation, asked.dialect = Operation.CHAT, Dialect.CHAT
    return asked


def pick(pool: Pool, session: str | None = None) -> str | None:
    decision = pool.accounts.select(asking(session))
    pool.reason = decision.reason  # type: ignore[attr-defined]
    return decision.account


def fails(pool: Pool, account: str = "openai:far", times: int = hosts.FAILURES, **more: bool) -> None:
    for _ in range(times):
        pool.accounts.hosts.unreached(account, **more)


def test_a_way_that_fails_a_few_times_is_set_aside(tmp_path: Path) -> None:
    pool = two(tmp_path)
    fails(pool, times=hosts.FAILURES - 1)
    assert pick(pool) == "openai:far"
    fails(pool, times=1)
    assert pick(pool) == "openai:near"
    assert pool.state("openai:far") == "ready", "the account is well"


def test_an_answer_in_between_begins_the_count_anew(tmp_path: Path) -> None:
    pool = two(tmp_path)
    for _ in range(5):
        fails(pool, times=hosts.FAILURES - 1)
        pool.accounts.hosts.reached("openai:far")
    assert pick(pool) == "openai:far"


def test_a_dead_host_is_set_aside_at_once_and_for_all_its_accounts(tmp_path: Path) -> None:
    pool = two(tmp_path, **{"openai_other.json": key(FAR + "/", priority=1, api_key="sk-bbbbbbbb")})
    fails(pool, times=1, dead=True)
    assert pick(pool) == "openai:near"


def test_what_is_done_is_told_and_shown(tmp_path: Path) -> None:
    pool, told = two(tmp_path), []
    pool.accounts.hosts.told = lambda provider, event: told.append((provider, event))
    fails(pool)
    assert told == [(Provider.OPENAI, PassiveHealth.SET_ASIDE)]
    shown = pool.accounts.describe("openai:far")
    assert shown.unreachable_until == pool.clock.now + hosts.FIRST_S and shown.state == "ready"
    assert pool.accounts.describe("openai:near").unreachable_until is None
    (row,) = pool.accounts.summary()
    assert (row.unreachable, row.ready) == (1, 2)
    pool.clock.now += hosts.FIRST_S
    assert pool.accounts.describe("openai:far").unreachable_until is None
    assert pick(pool) == "openai:far"
    pool.accounts.begin("openai:far", "m", Operation.CHAT)
    assert told[1:] == [(Provider.OPENAI, PassiveHealth.TRIED)]
    pool.accounts.hosts.reached("openai:far")
    pool.accounts.hosts.reached("openai:far")
    assert told[2:] == [(Provider.OPENAI, PassiveHealth.REOPENED)], "once"
    pool.accounts.hosts.note("nobody", PassiveHealth.LEFT)
    assert len(told) == 3


def test_the_same_host_over_another_proxy_is_another_way(tmp_path: Path) -> None:
    other = key(FAR, priority=1, api_key="sk-bbbbbbbb", proxy_url="http://127.0.0.1:9")
    pool = two(tmp_path, **{"openai_other.json": other})
    fails(pool, times=1, dead=True)
    assert pick(pool) == "openai:other"


def test_one_request_tries_it_and_its_answer_opens_it_for_all(tmp_path: Path) -> None:
    pool = two(tmp_path)
    fails(pool)
    pool.clock.now += hosts.FIRST_S
    assert pick(pool) == "openai:far"
    pool.accounts.begin("openai:far", "m", Operation.CHAT)
    assert pick(pool) == "openai:near", "one at a time"
    pool.accounts.hosts.reached("openai:far")
    assert pick(pool) == "openai:far"


def test_each_failed_try_sets_it_aside_for_longer(tmp_path: Path) -> None:
    pool, spans = two(tmp_path), []
    fails(pool)
    for _ in range(6):
        began = pool.clock.now
        while pick(pool) == "openai:near":
            pool.clock.now += 0.5
        spans.append(pool.clock.now - began)
        pool.accounts.begin("openai:far", "m", Operation.CHAT)
        pool.accounts.end("openai:far")
        fails(pool, times=1)
    assert spans == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_try_that_tells_nothing_is_followed_by_another(tmp_path: Path) -> None:
    pool = two(tmp_path)
    fails(pool)
    pool.clock.now += hosts.FIRST_S
    pool.accounts.begin("openai:far", "m", Operation.CHAT)
    pool.clock.now += hosts.TRY_S
    assert pick(pool) == "openai:far"


@pytest.mark.parametrize("files", [{}, {"openai_off.json": key(NEAR, disabled=True, api_key="sk-bbbbbbbb")}])
def test_the_only_way_is_never_set_aside(tmp_path: Path, files: dict[str, Any]) -> None:
    pool = Pool(tmp_path, {"openai_far.json": key(FAR), **files})
    fails(pool, times=9, dead=True)
    assert pick(pool) == "openai:far"
    assert pool.accounts.describe("openai:far").unreachable_until is None, "nor told to be"


def test_where_all_ways_fail_somebody_is_asked_all_the_same(tmp_path: Path) -> None:
    pool = two(tmp_path)
    fails(pool)
    fails(pool, "openai:near")
    assert pick(pool) is not None


def test_a_conversation_comes_back_to_its_account(tmp_path: Path) -> None:
    pool = two(tmp_path)
    asked = ask(session="s", model="m", providers=(Provider.OPENAI,))
    pool.accounts.bind(asked, "openai:far")
    fails(pool)
    assert (pick(pool, "s"), pool.reason) == ("openai:near", ChoiceReason.BORROWED)  # type: ignore[attr-defined]
    pool.accounts.hosts.reached("openai:far")
    assert pick(pool, "s") == "openai:far"
