"""The accounts as the rest of the server uses them: pins, reload, restart, workers, people."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.accounts import RefreshError, SelectionRequest
from pool_server.accounts.describe import QuotaWindowRow
from pool_server.accounts.replication import FLIGHT
from pool_server.core.enums import ChoiceReason, Dialect, FaultKind, Operation, Provider, Refusal, Strategy
from pool_server.core.models import FamilyScope, Fault, HttpAnswer, WindowObservation
from pool_server.core.settings import Choosing
from tests.accounts.kit import (
    DAY,
    HOUR,
    NOW,
    OPUS,
    SONNET,
    Line,
    Pool,
    ask,
    claude,
    fault,
    key,
    of_a_dead_process,
    quota,
    token_answer,
    week,
    window,
)

THREE = {f"claude_{name}.json": claude(f"sk-ant-oat01-{name}") for name in "abc"}


def fail(pool: Pool, account: str, what: Fault, model: str = SONNET) -> None:
    pool.accounts.fail(account, what, model, Operation.MESSAGES, pool.accounts.credential(account).fingerprint)


# -- pins


def test_a_conversation_stays_where_it_began(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    first = pool.serve(ask(session="talk"))
    assert first is not None
    pool.accounts.observe(first, [week(96.0)])
    assert {pool.serve(ask(session="talk")) for _ in range(5)} == {first}
    assert pool.serve(ask(session="other")) != first


@pytest.mark.parametrize("plan", ["pro", "max", "team", "something new"])
def test_pins_hold_for_every_plan(tmp_path: Path, plan: str) -> None:
    pool = Pool(tmp_path, {f"claude_{n}.json": claude(f"sk-ant-oat01-{n}", plan_type=plan) for n in "ab"})
    first = pool.serve(ask(session="talk"))
    assert first is not None
    pool.accounts.observe(first, [week(95.0)])
    assert pool.serve(ask(session="talk")) == first


def test_pins_survive_reload_restart_and_worker(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE, workers=2)
    first = pool.serve(ask(session="talk"))
    pool.reload()
    other = pool.worker(leader=False)
    assert pool.serve(ask(session="talk")) == first
    assert other.select(ask(session="talk")).account == first
    assert pool.again().select(ask(session="talk")).reason is ChoiceReason.PINNED


def test_another_users_equal_conversation_is_another_pin(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    first = pool.serve(ask("ann", "talk"))
    decision = pool.accounts.select(ask("bob", "talk"))
    assert decision.pinned is None and decision.account != first


def test_pins_end_a_day_after_the_last_use(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    pool.serve(ask(session="talk"))
    pool.clock.now += 23 * HOUR
    pool.serve(ask(session="talk"))
    pool.clock.now += 23 * HOUR
    assert pool.accounts.select(ask(session="talk")).pinned is not None
    pool.clock.now += 2 * HOUR
    assert pool.accounts.select(ask(session="talk")).pinned is None


def test_a_slow_answer_or_the_clients_abort_breaks_no_pin(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    first = pool.serve(ask(session="talk"))
    assert first is not None
    pool.serve(ask(session="talk"), seconds=250.0)
    fail(pool, first, fault(FaultKind.CLIENT_GONE))
    assert pool.accounts.select(ask(session="talk")).account == first


def test_a_short_fault_borrows_and_returns(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    first = pool.serve(ask(session="talk"))
    assert first is not None
    fail(pool, first, fault(FaultKind.TRANSIENT))
    stand_in = pool.serve(ask(session="talk"))
    assert stand_in != first
    pool.clock.now += 5
    assert pool.serve(ask(session="talk")) == first


def test_a_fault_without_a_rest_borrows_too(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    first = pool.serve(ask(session="talk"))
    assert first is not None
    fail(pool, first, fault(FaultKind.OVERLOAD))
    assert pool.serve(ask(session="talk", exclude=frozenset({first}))) != first
    assert pool.serve(ask(session="talk")) == first


def test_a_lasting_fault_moves_the_conversation_for_good(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    first = pool.serve(ask(session="talk"))
    assert first is not None
    fail(pool, first, quota(3 * HOUR))
    second = pool.serve(ask(session="talk"))
    pool.clock.now += 4 * HOUR
    assert second != first and pool.serve(ask(session="talk")) == second


def test_what_one_account_owns_is_asked_of_it_alone(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    pool.accounts.own("ann", "response", "resp_1", "claude:c", 60)
    hard = (("response", "resp_1"),)
    assert pool.accounts.owner_of("ann", "response", "resp_1") == "claude:c"
    assert pool.accounts.select(ask(hard=hard)).reason is ChoiceReason.HARD_PIN
    assert pool.accounts.select(ask("bob", hard=hard)).reason is ChoiceReason.BEST
    fail(pool, "claude:c", fault(FaultKind.TRANSIENT))
    decision = pool.accounts.select(ask(hard=hard))
    assert decision.account is None and decision.hard_lost
    pool.clock.now += 61
    assert pool.accounts.owner_of("ann", "response", "resp_1") is None


# -- live state


def test_reload_keeps_windows_cooldowns_in_flight_and_pins(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    pool.serve(ask(session="talk"))
    pool.accounts.observe("claude:b", [window(42.0), week(17.0)])
    fail(pool, "claude:c", quota(HOUR))
    pool.accounts.begin("claude:b", SONNET, Operation.MESSAGES)
    pinned = pool.accounts.select(ask(session="talk")).account
    pool.write("claude_b.json", claude("sk-ant-oat01-b", label="Bee"))
    assert pool.reload().changed == ["claude:b"]
    row = pool.accounts.describe("claude:b")
    assert (row.in_flight, row.label, len(row.windows)) == (1, "Bee", 2)
    assert pool.accounts.describe("claude:c").cooldown_until == NOW + HOUR
    assert pool.accounts.select(ask(session="talk")).account == pinned


def test_a_restart_keeps_what_was_learnt(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    pool.accounts.observe("claude:b", [window(42.0), week(17.0)])
    fail(pool, "claude:c", quota(HOUR))
    before = pool.accounts.describe_all()
    again = pool.again().describe_all()
    settled = [[msgspec.structs.replace(r, next_poll=0, next_refresh=0) for r in rows] for rows in (before, again)]
    assert settled[0] == settled[1]


def test_in_flight_lasts_as_long_as_the_stream(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    pool.accounts.begin("claude:a", SONNET, Operation.MESSAGES)
    for _ in range(10):
        pool.clock.now += 60
        assert pool.accounts.describe("claude:a").in_flight == 1
    pool.accounts.end("claude:a")
    assert pool.accounts.describe("claude:a").in_flight == 0


def test_an_account_removed_under_way_hurts_nobody_and_may_come_back(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    for _ in range(2):
        pool.accounts.begin("claude:a", SONNET, Operation.MESSAGES)
    (pool.folder / "claude_a.json").unlink()
    assert pool.reload().removed == ["claude:a"]
    pool.accounts.end("claude:a")
    pool.accounts.observe("claude:a", [window(1.0)])
    pool.accounts.succeed("claude:a", SONNET, Operation.MESSAGES, 1.0)
    pool.accounts.fail("claude:a", quota(), SONNET, Operation.MESSAGES, "")
    pool.write("claude_a.json", THREE["claude_a.json"])
    pool.reload()
    assert pool.accounts.describe("claude:a").in_flight == 1
    pool.accounts.end("claude:a")
    assert pool.accounts.describe("claude:a").in_flight == 0


def test_files_of_two_providers_with_one_stem_share_nothing(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_work.json": key(), "openai_work.json": {"api_key": "sk-x"}})
    pool.accounts.observe("claude:work", [window(42.0)])
    fail(pool, "claude:work", quota())
    assert pool.state("openai:work") == "ready" and not pool.accounts.describe("openai:work").windows


def test_workers_share_what_they_learn(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE, workers=3)
    one, two = pool.accounts, pool.worker(leader=False)
    fail(pool, "claude:a", quota(HOUR))
    assert two.describe("claude:a").state == "exhausted"
    two.observe("claude:b", [window(30.0)])
    one.observe("claude:b", [week(60.0)])
    assert len(two.describe("claude:b").windows) == 2
    two.reset("claude:a")
    assert one.describe("claude:a").state == "ready"
    one.lock("claude:c")
    assert two.select(ask()).reason is ChoiceReason.LOCKED


def test_a_worker_that_fell_far_behind_reads_everything_anew(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE, workers=2)
    late = pool.worker(leader=False)
    fail(pool, "claude:a", quota(5 * HOUR))
    for n in range(2100):
        pool.accounts.observe("claude:b", [window(n % 90, at=NOW + n)])
    assert late.describe("claude:a").state == "exhausted"


def test_in_flight_is_summed_over_living_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        pool = Pool(tmp_path, THREE, workers=2)
        other = pool.worker(leader=False)
        for _ in range(3):
            other.begin("claude:a", SONNET, Operation.MESSAGES)
        await other.start()
        await pool.accounts.start()
        while pool.accounts.describe("claude:a").in_flight != 3:
            await asyncio.sleep(0.01)
        monkeypatch.setattr("pool_server.core.processes.alive", lambda worker: False)  # it dies without a word
        while pool.accounts.describe("claude:a").in_flight != 0:
            await asyncio.sleep(0.01)
        await pool.accounts.close()
        await other.close()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("name", [b"", b"4711-0badcafe", b"1.1.another.life", b"no.name"])
def test_what_no_living_worker_says_is_under_way_is_forgotten(tmp_path: Path, name: bytes) -> None:
    """Of a worker that was killed, of another life of the machine, of an older version of the program."""
    pool = Pool(tmp_path, THREE, workers=2)
    dead = name or of_a_dead_process().encode()
    pool.store.write(lambda txn: txn.put(FLIGHT, dead, msgspec.msgpack.encode({"claude:a": 3})))
    pool.accounts._registry.share_flight()
    assert pool.accounts.describe("claude:a").in_flight == 0
    assert pool.store.get(FLIGHT, dead) is None


@pytest.mark.slow
def test_files_are_watched(tmp_path: Path) -> None:
    async def run() -> None:
        pool = Pool(tmp_path, THREE)
        await pool.accounts.start()
        pool.write("claude_new.json", key())
        while "claude:new" not in {row.id for row in pool.accounts.describe_all()}:
            await asyncio.sleep(0.02)
        await pool.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_changes_and_sightings_are_told(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    changed: list[str] = []
    seen: list[tuple[str, WindowObservation]] = []
    pool.accounts.on_change.append(changed.append)
    pool.accounts.on_observation.append(lambda account, observation: seen.append((account, observation)))
    pool.accounts.observe("claude:a", [window(42.0)])
    assert not changed and seen == [("claude:a", window(42.0))]
    fail(pool, "claude:a", quota(windows=(window(100.0),)))
    assert changed == ["claude:a"] and len(seen) == 2


# -- people


def test_a_row_has_all_that_the_interface_promises(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude(owner="ann", weight=2)})
    pool.accounts.observe("claude:a", [window(42.0, 2 * HOUR)])
    fail(pool, "claude:a", quota(2 * HOUR, code="rate_limit_error", message="This would exceed your limit"))
    row = pool.accounts.describe("claude:a")
    promised = "id provider plan state reason windows cooldown_until in_flight expires_at last_fault"
    assert set(f"{promised} priority weight owner score".split()) <= set(row.__struct_fields__)
    assert row.state == "exhausted" and row.reason == "quota" and row.set_by == "provider"
    assert row.windows == [QuotaWindowRow("5h", "", 18000, 42.0, NOW + 2 * HOUR, 60.0, "headers", NOW)]
    assert row.last_fault is not None and row.last_fault.message == "This would exceed your limit"
    assert json.loads(msgspec.json.encode(row)) == msgspec.to_builtins(row)
    with pytest.raises(KeyError):
        pool.accounts.describe("claude:nobody")


def test_the_summary_counts_and_names_the_next_return(tmp_path: Path) -> None:
    pool = Pool(
        tmp_path,
        {**THREE, "claude_off.json": claude("sk-ant-oat01-off", disabled=True), "qwen_k.json": {"api_key": "k"}},
    )
    pool.accounts.observe("claude:a", [window(40.0)])
    pool.accounts.observe("claude:b", [window(80.0, 2 * HOUR)])
    fail(pool, "claude:c", quota(HOUR))
    pool.accounts.begin("claude:a", SONNET, Operation.MESSAGES)
    rows = {row.provider: msgspec.to_builtins(row) for row in pool.accounts.summary()}
    assert list(rows) == [Provider.CLAUDE, Provider.QWEN]
    assert rows[Provider.CLAUDE] == {
        "provider": "claude",
        "accounts": {"ready": 2, "exhausted": 1, "disabled": 1},
        "ready": 2,
        "total": 4,
        "room_percent": 40.0,
        "windows": [{"window": "5h", "seconds": 18000, "accounts": 2, "used_percent": 60.0, "resets_at": NOW + HOUR}],
        "next_return": NOW + HOUR,
        "in_flight": 1,
        "returning": 0,
        "unreachable": 0,
    }
    assert pool.accounts.ready() == (5, 3)


def test_every_account_explains_itself(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {**THREE, "openai_k.json": {"api_key": "sk-x"}})
    pool.accounts.observe("claude:b", [week(90.0)])
    fail(pool, "claude:c", quota(HOUR))
    rows = {row.account: row for row in pool.accounts.explain(ask())}
    assert [a for a, row in rows.items() if row.eligible] == ["claude:a", "claude:b"]
    assert rows["claude:b"].terms["pace"] < 0
    assert rows["claude:c"].refusal == "exhausted" and rows["claude:c"].until == NOW + HOUR
    assert rows["openai:k"].refusal == "provider"
    assert all(row.eligible for row in pool.accounts.explain() if row.account != "claude:c")


def test_models_are_what_ready_keys_declare(tmp_path: Path) -> None:
    pool = Pool(
        tmp_path,
        {
            "openai_a.json": {"api_key": "k", "models": ["gpt-x", "gpt-y"]},
            "openai_b.json": {"api_key": "l", "models": ["z"]},
        },
    )
    asyncio.run(pool.accounts.set_disabled("openai:b", True))
    assert pool.accounts.models() == {Provider.OPENAI: ["gpt-x", "gpt-y"]}


def test_the_operators_hand(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    asyncio.run(pool.accounts.set_disabled("claude:a", True))
    asyncio.run(pool.accounts.set_priority("claude:b", 900))
    assert pool.state("claude:a") == "disabled"
    assert json.loads((pool.folder / "claude_a.json").read_text())["disabled"] is True
    assert pool.accounts.select(ask()).account == "claude:c"
    assert pool.reload().unchanged == 3
    asyncio.run(pool.accounts.set_disabled("claude:a", False))
    assert pool.state("claude:a") == "ready"
    pool.accounts.lock("claude:b")
    assert pool.accounts.select(ask()).account == "claude:b" and pool.accounts.describe("claude:b").locked
    assert pool.again().select(ask()).account == "claude:b"
    pool.accounts.lock(None)
    assert pool.accounts.select(ask()).account != "claude:b"
    fail(pool, "claude:c", quota(HOUR))
    pool.accounts.reset("claude:c")
    assert pool.state("claude:c") == "ready"
    for act in (pool.accounts.reset, pool.accounts.lock):
        with pytest.raises(KeyError):
            act("claude:nobody")


def test_a_disabled_account_keeps_what_it_knows(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    fail(pool, "claude:a", quota(HOUR))
    asyncio.run(pool.accounts.set_disabled("claude:a", True))
    asyncio.run(pool.accounts.set_disabled("claude:a", False))
    assert pool.state("claude:a") == "exhausted"


def test_new_settings_apply_at_once(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE)
    pool.accounts.observe("claude:b", [week(90.0)])
    assert pool.accounts.select(ask()).account == "claude:a"
    import msgspec

    changed = msgspec.structs.replace(pool.settings, choosing=Choosing(Strategy.FILL_FIRST, "claude:c"))
    pool.reload(changed)
    assert pool.accounts.select(ask()).reason is ChoiceReason.LOCKED
    changed = msgspec.structs.replace(pool.settings, choosing=Choosing(Strategy.FILL_FIRST))
    pool.reload(changed)
    assert pool.accounts.select(ask()).account == "claude:b"


def test_a_test_is_one_small_call_and_says_what_came_back(tmp_path: Path) -> None:
    windows = {
        "anthropic-ratelimit-unified-5h-utilization": "0.125",
        "anthropic-ratelimit-unified-5h-reset": "1760009000",
    }
    pool = Pool(tmp_path, THREE, line=Line(lambda _: HttpAnswer(200, windows, b'{"type":"message","content":[]}')))
    result = asyncio.run(pool.accounts.test("claude:a"))
    assert result["ok"] and result["call"] == "request" and len(pool.line.sent) == 1
    assert json.loads(pool.line.sent[0].body)["max_tokens"] == 1
    assert pool.accounts.describe("claude:a").windows[0].used_percent == 12.5
    pool.line.answer = lambda _: HttpAnswer(401, {}, b'{"error":{"type":"authentication_error","message":"gone"}}')
    result = asyncio.run(pool.accounts.test("claude:a"))
    assert (result["ok"], result["status"], result["fault"]) == (False, 401, "auth")
    assert pool.state("claude:a") == "ready"


@pytest.mark.parametrize(
    ("name", "data"),
    [("claude_a.json", claude()), ("claude_a.json", key()), ("qwen_a.json", {"api_key": "sk-1234567"})],
)
def test_an_endpoint_that_cannot_be_reached_is_called_so(tmp_path: Path, name: str, data: dict[str, Any]) -> None:
    pool = Pool(tmp_path, {name: data}, line=Line(lambda _: HttpAnswer(0, {}, error="connection refused")))
    result = asyncio.run(pool.accounts.test(name.removesuffix("_a.json") + ":a"))
    assert (result["ok"], result["status"], result["fault"]) == (False, None, "network")
    assert result["message"] == "connection refused"


def test_refresh_now_asks_although_the_last_try_failed(tmp_path: Path) -> None:
    pool = Pool(tmp_path, THREE, line=Line(lambda _: HttpAnswer(503, {}, b"")))
    with pytest.raises(RefreshError):
        asyncio.run(pool.accounts.refresh_now("claude:a"))
    pool.line.answer = lambda _: token_answer("sk-ant-oat01-fresh")
    assert asyncio.run(pool.accounts.refresh_now("claude:a")).secret == "sk-ant-oat01-fresh"


# -- probes


def test_one_half_open_request_and_its_end(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": key()})
    fail(pool, "claude:a", quota(6 * DAY))
    pool.clock.now += HOUR
    decision = pool.accounts.select(ask())
    assert decision.probe and decision.account == "claude:a"
    pool.accounts.begin("claude:a", SONNET, Operation.MESSAGES)
    assert pool.state("claude:a") == "probing"
    second = pool.accounts.select(ask())
    assert second.account is None and [c.refusal for c in second.candidates] == ["probing"]
    assert second.retry_at == pool.clock() + 10
    pool.accounts.end("claude:a")
    assert pool.state("claude:a") == "exhausted"
    pool.clock.now += 1200
    pool.accounts.begin("claude:a", SONNET, Operation.MESSAGES)
    pool.accounts.succeed("claude:a", SONNET, Operation.MESSAGES, 1.0)
    pool.accounts.end("claude:a")
    assert pool.state("claude:a") == "ready"


def test_a_family_is_probed_by_its_own_requests(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})
    fail(pool, "claude:a", Fault(FaultKind.QUOTA, FamilyScope("opus"), NOW + 6 * DAY), OPUS)
    pool.clock.now += HOUR
    asked: SelectionRequest = ask(model=OPUS)
    assert pool.accounts.select(asked).probe and not pool.accounts.select(ask()).probe
    pool.accounts.begin("claude:a", OPUS, Operation.MESSAGES)
    assert pool.accounts.select(asked).account is None
    pool.accounts.succeed("claude:a", OPUS, Operation.MESSAGES, 1.0)
    assert pool.accounts.select(asked).reason is ChoiceReason.BEST


def options(pool: Pool, account: str) -> Any:
    return pool.accounts.proxy_url(account), pool.accounts.owner(account)


def test_proxy_and_owner_are_the_files(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": key(proxy_url="http://p:1", owner="ann"), "claude_b.json": key()})
    assert options(pool, "claude:a") == ("http://p:1", "ann") and options(pool, "claude:b") == (None, "")
    with pytest.raises(KeyError):
        options(pool, "claude:nobody")


# -- what a kind of account cannot do


def test_a_transport_or_model_it_does_not_have_is_a_reason(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": key(), "openai_a.json": {"api_key": "k", "models": ["gpt-x"]}})
    decision = pool.accounts.select(ask(websocket=True, model=""))
    assert decision.account is None and decision.refused == {Refusal.TRANSPORT: 1}
    assert pool.accounts.select(ask(websocket=True)).account == "claude:a", "over HTTP, once the model is known"

    def chat(model: str) -> SelectionRequest:
        return SelectionRequest((Provider.OPENAI,), Operation.CHAT, Dialect.CHAT, model, "ann")

    assert pool.accounts.select(chat("gpt-x")).account == "openai:a"
    assert pool.accounts.select(chat("other")).refused == {Refusal.MODEL_NOT_SERVED: 1}
    assert pool.accounts.explain(chat("other"))[0].refusal in ("model_not_served", "provider")
