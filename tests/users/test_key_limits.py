"""Limits of one key: beside those of its person, counted and held alike, and named in what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Denial
from pool_server.core.models import Usage, UsageRecord
from pool_server.core.settings import LedgerSettings, Limits, Settings
from pool_server.ledger import TABLES, Ledger
from pool_server.storage import Store
from pool_server.users import Denied, Principal, RefusedError, Reservation
from pool_server.users.limits import USE, rebuild
from pool_server.users.limits.counters import used_now
from pool_server.users.models import KeyFacts

from .desk import Books, Desk, Writes, in_a_loop
from .site import NOON, SHELL, Clock, Site

ASK: dict[str, Any] = {"provider": "codex", "model": "gpt-5", "tokens": 0, "cost": None}


async def second_key(site: Site, user: str, label: str = "laptop", **limits: Any) -> Principal:
    made = await site.users.people.create_key(user, label, actor=SHELL, limits=limits)
    found = site.users.authenticate(made["key"])
    assert isinstance(found, Principal)
    return found


def use(site: Site, who: Principal, tokens: int, cost: float | None = None) -> Reservation | Denied:
    """One whole request."""
    made = site.users.admission.reserve(who, **ASK)
    if isinstance(made, Reservation):
        site.users.admission.settle(made, Usage(input=tokens), cost)
    return made


@pytest.mark.parametrize(
    ("limits", "denial", "said"),
    [
        ({"tokens_day": 5000}, Denial.TOKENS_DAY, "the limit of 5,000 tokens a day of your key “laptop” is reached"),
        ({"tokens_5h": 5000}, Denial.TOKENS_5H, "the limit of 5,000 tokens in 5 hours of your key “laptop” is reached"),
        ({"cost_month": 0.5}, Denial.COST_MONTH, "the limit of $0.50 a month of your key “laptop” is reached"),
        (
            {"requests_per_minute": 1},
            Denial.REQUESTS_PER_MINUTE,
            "the limit of 1 request a minute of your key “laptop”",
        ),
        ({"concurrent": 0}, Denial.CONCURRENT, "the limit of 0 requests at the same time of your key “laptop”"),
    ],
)
def test_a_key_is_held_to_its_own_limits_and_the_others_are_not(
    site: Site, limits: dict[str, Any], denial: Denial, said: str
) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        laptop = await second_key(site, anna.user, **limits)
        if "concurrent" not in limits:
            assert isinstance(use(site, laptop, 6000, 0.6), Reservation)
        denied = use(site, laptop, 1)
        assert isinstance(denied, Denied) and (denied.denial, denied.status) == (denial, 429)
        assert denied.message.startswith(said)
        assert isinstance(use(site, anna, 1), Reservation)
        assert site.users.limits.standing(anna.user).used["concurrent"] == 0

    site.run(main)


def test_a_key_without_limits_or_with_some_is_bound_by_its_persons_all_the_same(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend(tokens_day=5000, models=["gpt-*"])
        wide = await second_key(site, anna.user, tokens_day=10**9, tokens_week=None, models=["*"])
        assert isinstance(use(site, anna, 6000), Reservation)
        for who in (anna, wide):
            denied = use(site, who, 1)
            assert isinstance(denied, Denied) and denied.message == "your limit of 5,000 tokens a day is reached"
        other = site.users.admission.reserve(wide, **{**ASK, "model": "opus"})
        assert isinstance(other, Denied) and other.message == "your access does not include the model opus"

    site.run(main)


def test_of_two_limits_the_one_that_frees_last_is_told(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend(tokens_week=5000)
        laptop = await second_key(site, anna.user, tokens_day=5000)
        use(site, laptop, 6000)
        denied = use(site, laptop, 1)
        assert isinstance(denied, Denied) and denied.denial is Denial.TOKENS_WEEK and "laptop" not in denied.message

    site.run(main)


def test_models_and_providers_of_a_key(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        laptop = await second_key(site, anna.user, models=["*mini*"], providers=["codex"])
        for change, said in (
            ({"model": "gpt-5"}, "your key “laptop” does not include the model gpt-5"),
            ({"model": "gpt-mini", "provider": "claude"}, "your key “laptop” does not include claude"),
        ):
            denied = site.users.admission.reserve(laptop, **{**ASK, **change})
            assert isinstance(denied, Denied) and (denied.message, denied.status) == (said, 403)
        assert isinstance(site.users.admission.reserve(laptop, **{**ASK, "model": "gpt-mini"}), Reservation)
        assert [one.models for one in site.users.limits.allowed(laptop.user, laptop.key)] == [["*mini*"]]
        assert site.users.limits.allowed(anna.user, anna.key) == []

    site.run(main)


def test_limits_and_the_end_of_a_key_are_changed_while_it_is_used_in_every_worker(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend()
        second = site.worker()
        await second.start()
        assert isinstance(second.authenticate(key), Principal)
        running = second.admission.reserve(anna, **ASK)
        assert isinstance(running, Reservation)
        change = {"label": "work", "limits": {"tokens_day": 3000}, "expires": NOON + 60}
        await site.users.people.patch_key(anna.user, anna.key, change, actor=SHELL)
        standing = site.users.limits.of_key(anna.key)
        assert standing is not None and standing["used"]["tokens_day"] == 0
        second.admission.settle(running, Usage(input=4000), None)  # under way when the limit came
        second._counters.write_turn()
        denied = site.users.admission.reserve(anna, **ASK)
        assert isinstance(denied, Denied) and "“work”" in denied.message
        while isinstance(there := second.admission.reserve(anna, **ASK), Reservation):
            second.admission.release(there)
            await asyncio.sleep(0.01)
        assert there.denial is Denial.TOKENS_DAY
        await site.users.people.patch_key(anna.user, anna.key, {"limits": {}}, actor=SHELL)
        assert isinstance(use(site, anna, 0), Reservation)
        site.clock.now = NOON + 60
        for worker in (site.users, second):
            ended = worker.authenticate(key), worker.admission.reserve(anna, **ASK), worker.admission.stopped(anna)
            assert [one.denial for one in ended if isinstance(one, Denied)] == [Denial.EXPIRED_KEY] * 3
        await site.users.people.patch_key(anna.user, anna.key, {"expires": None}, actor=SHELL)
        assert isinstance(site.users.authenticate(key), Principal)  # the very key, although its token is older
        await second.close()

    site.run(main)


@pytest.mark.parametrize(
    ("patch", "status"),
    [
        ({}, 400),
        ({"user": "u_other"}, 400),
        ({"limits": {"tokens_year": 1}}, 400),
        ({"limits": {"tokens_day": -1}}, 400),
        ({"limits": None}, 400),
        ({"limits": []}, 400),
        ({"expires": NOON}, 400),
        ({"expires": True}, 400),
        ({"expires": float("nan")}, 400),
        ({"expires": 1e300}, 400),
        ({"label": "x" * 65}, 400),
    ],
)
def test_a_patch_that_cannot_be(site: Site, patch: dict[str, Any], status: int) -> None:
    async def main() -> None:
        anna, _ = await site.friend(tokens_day=1)
        with pytest.raises(RefusedError) as refused:
            await site.users.people.patch_key(anna.user, anna.key, patch, actor=SHELL)
        assert refused.value.denied.status == status
        assert site.users.limits.of_key(anna.key) is None

    site.run(main)


def test_somebody_elses_key_answers_like_none(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        berta, _ = await site.friend("Berta")
        for key in (anna.key, "k_none", "", "x" * 600):
            with pytest.raises(RefusedError) as refused:
                await site.users.people.patch_key(berta.user, key, {"limits": {"tokens_day": 0}}, actor=SHELL)
            assert refused.value.denied.status == 404
        assert isinstance(use(site, anna, 1), Reservation)

    site.run(main)


def test_me_shows_how_each_keys_limits_stand(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend()
        laptop = await second_key(site, anna.user, tokens_day=5000)
        use(site, laptop, 1200)
        standings = {row["label"]: row["standing"] for row in site.users.me(anna)["keys"]}
        assert standings["first key"] is None
        standing = standings["laptop"]
        assert (standing["limits"]["tokens_day"], standing["limits"]["cost_day"]) == (5000, None)
        assert standing["used"]["tokens_day"] == 1200 and standing["frees"]["tokens_day"] > NOON
        assert [one.key for one in site.users.limits.of_caller(laptop.user, laptop.key)] == ["", "laptop"]
        assert [one.key for one in site.users.limits.of_caller(anna.user, anna.key)] == [""]

    site.run(main)


# -- on the book itself


def facts(desk: Desk, **limits: Any) -> KeyFacts:
    return KeyFacts("k_1", desk.user, "laptop", Limits(**limits), bool(limits), None)


def take(desk: Desk, key: KeyFacts, tokens: int = 0) -> Reservation | Denied:
    return desk.book.reserve(desk.user, "codex", Limits(), tokens, None, key)


def of_key(desk: Desk, key: KeyFacts) -> dict[str, float]:
    return used_now(desk.book.read(key.owner)[0])


def test_what_a_running_request_holds_stops_the_next_of_its_key(desk: Desk) -> None:
    key = facts(desk, tokens_day=10_000)
    made = take(desk, key, 9000)
    assert isinstance(made, Reservation)
    desk.book.progress(made, 12_000, None)
    denied = desk.another().reserve(desk.user, "codex", Limits(), 0, None, key)
    assert isinstance(denied, Denied) and denied.retry_at is not None and denied.retry_at - NOON <= 5
    assert isinstance(desk.take(Limits()), Reservation)
    desk.book.release(made)
    assert of_key(desk, key)["tokens_day"] == 0 and of_key(desk, key)["concurrent"] == 0
    assert isinstance(take(desk, key), Reservation)


def test_requests_of_one_turn_are_held_to_the_keys_limits_together(desk: Desk) -> None:
    async def main() -> None:
        key = facts(desk, concurrent=2)
        asked = [desk.book.reserve_soon(desk.user, "codex", Limits(), 0, None, key) for _ in range(3)]
        got = await asyncio.gather(*asked)
        assert [isinstance(one, Reservation) for one in got] == [True, True, False]
        assert desk.now["concurrent"] == of_key(desk, key)["concurrent"] == 2

    in_a_loop(main)


def test_counters_of_a_key_are_made_from_the_ledger_of_that_key(store: Store) -> None:
    ledger = Books((NOON - 60, 7000, 0.5))
    asked: list[str] = []

    def used(user: str, since: float, key: str = "") -> dict[str, float]:
        asked.append(key)
        return ledger(user, since)

    desk = Desk(store, used)
    denied = take(desk, facts(desk, tokens_5h=7000))
    assert isinstance(denied, Denied) and denied.denial is Denial.TOKENS_5H
    assert {"", "k_1"} == set(asked)


def test_without_the_store_a_key_whose_limits_need_it_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(desk.store, monkeypatch)
    writes.good = 0
    denied = take(desk, facts(desk, tokens_day=10**9))
    assert isinstance(denied, Denied) and denied.denial is Denial.STORE
    one = facts(desk, concurrent=1)
    made = take(desk, one)
    assert isinstance(made, Reservation)
    assert isinstance(take(desk, one), Denied) and isinstance(take(desk, facts(desk)), Reservation)
    writes.good = None
    desk.book.settle(made, Usage(input=10), None)
    assert of_key(desk, one)["tokens_day"] == 10
    assert isinstance(take(desk, one), Reservation)


def test_what_a_dead_worker_held_of_a_key_is_settled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    key = facts(desk, tokens_day=10**6)
    monkeypatch.setattr("pool_server.core.processes.name", lambda: "0.dead")
    dead = desk.another()
    monkeypatch.undo()
    made = dead.reserve(desk.user, "codex", Limits(), 50_000, None, key)
    assert isinstance(made, Reservation)
    dead.progress(made, 70, None)
    dead.write_turn()
    assert of_key(desk, key)["concurrent"] == 1
    assert desk.book.recover() == 2
    for now in (of_key(desk, key), desk.now):
        assert (now["concurrent"], now["tokens_day"]) == (0, 70)


def test_counters_long_unused_may_go_and_others_may_not(desk: Desk) -> None:
    key = facts(desk, tokens_day=10**6)
    made = take(desk, key)
    assert isinstance(made, Reservation)
    raw = desk.store.get(USE, key.owner.encode())
    assert raw is not None and not rebuild.stale(raw, NOON + 365 * 86_400)  # it holds something
    desk.book.settle(made, Usage(input=5), None)
    raw = desk.store.get(USE, key.owner.encode())
    assert raw is not None
    assert not rebuild.stale(raw, NOON + 31 * 86_400) and rebuild.stale(raw, NOON + 110 * 86_400)


# -- against the ledger


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Kathmandu"])
def test_the_ledger_tells_what_one_key_used_since_any_moment(tmp_path: Path, timezone: str) -> None:
    store = Store.open(tmp_path, tables=TABLES, durable=True, map_size=1 << 26)
    clock = Clock()
    settings = Settings(data_dir=str(tmp_path), ledger=LedgerSettings(timezone=timezone))
    ledger = Ledger(store, settings, clock=clock)
    at = [NOON - back for back in (3, 3600, 4 * 3600, 20 * 3600, 30 * 3600, 8 * 86_400, 26 * 86_400)]
    ledger.load(
        UsageRecord(
            id=f"{key}-{number}", at=moment, user="u_1", key=key, provider="codex", account="codex:a", model="m",
            usage=Usage(input=10**number, known=True), cost=0.25,
        )
        for number, moment in enumerate(at)
        for key in ("k_1", "k_2")
    )  # fmt: skip
    for since in [*(moment - 0.5 for moment in at), *(moment + 0.5 for moment in at), NOON - 40 * 86_400]:
        meant = [number for number, moment in enumerate(at) if moment >= since]
        told = ledger.used_by_user("u_1", since, "k_1")
        assert told["input"] == sum(10**number for number in meant), since
        assert told["cost_usd"] == pytest.approx(0.25 * len(meant))
    assert ledger.used_by_user("u_2", 0, "k_1")["input"] == ledger.used_by_user("u_1", 0, "k_3")["input"] == 0
    store.close()


def test_a_machine_that_started_again_knows_what_its_keys_used(
    open_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what was counted in the state store, which may be gone, but what the ledger has."""
    site = open_site()
    ledger = Books((NOON - 60, 6000, 0.0))

    async def main() -> None:
        anna, _ = await site.friend()
        laptop = await second_key(site, anna.user, tokens_day=5000)
        use(site, laptop, 10)
        monkeypatch.setattr("pool_server.core.processes.epoch", lambda: "another life")
        again = site.worker(used=ledger)
        denied = again.admission.reserve(laptop, **ASK)
        assert isinstance(denied, Denied) and denied.denial is Denial.TOKENS_DAY
        await again.close()

    site.run(main)
