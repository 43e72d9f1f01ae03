"""The table of owners: durable, exact, bounded, expiring, and swept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_server.accounts.objects.lifetimes import DAY, lifetime
from pool_server.core.enums import ApiFamily, ObjectKind
from pool_server.gateway.objects import TABLES, Owners, digest
from pool_server.gateway.routes import Reference
from pool_server.storage import Store

FILE, BATCH = ObjectKind.FILE, ObjectKind.BATCH
OPENAI, GOOGLE = ApiFamily.OPENAI, ApiFamily.GOOGLE


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s", tables=TABLES, durable=True, map_size=1 << 24)


def test_an_object_is_one_persons_at_one_account(store: Store) -> None:
    async def test() -> None:
        owners = Owners(store)
        assert await owners.keep("anna", OPENAI, [(FILE, "f"), (BATCH, "f")], "openai:a", models={"m": 7}, key="k")
        found = owners.get("anna", OPENAI, (FILE, "f"))
        assert found is not None and (found.account, found.user, found.models) == ("openai:a", "anna", {"m": 7})
        assert owners.get("bert", OPENAI, (FILE, "f")) is None
        assert owners.get("anna", GOOGLE, (FILE, "f")) is None
        assert owners.get("anna", OPENAI, (ObjectKind.VIDEO, "f")) is None
        await owners.keep("bert", OPENAI, [(FILE, "f")], "openai:b")  # another account minted the same id
        assert {(one.user, one.account) for one in owners.everybodys(OPENAI, (FILE, "f"))} == {
            ("anna", "openai:a"),
            ("bert", "openai:b"),
        }
        assert owners.of_user("anna", OPENAI, FILE) == {"openai:a": {digest("f")}}
        await owners.forget(OPENAI, (FILE, "f"), "anna")
        assert owners.get("anna", OPENAI, (FILE, "f")) is None and owners.get("bert", OPENAI, (FILE, "f"))
        await owners.keep("anna", OPENAI, [(FILE, "f")], "openai:a")
        await owners.forget(OPENAI, (FILE, "f"))
        assert owners.everybodys(OPENAI, (FILE, "f")) == []
        store.close()

    asyncio.run(test())


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    for round_ in range(2):
        store = Store.open(tmp_path / "s", tables=TABLES, durable=True, map_size=1 << 24)

        async def test(store: Store = store, first: bool = round_ == 0) -> None:
            owners = Owners(store)
            if first:
                await owners.keep("anna", OPENAI, [(FILE, "f")], "openai:a")
            assert owners.get("anna", OPENAI, (FILE, "f")) is not None

        asyncio.run(test())
        store.close()


def test_an_object_expires_with_its_providers_life_and_a_use_renews_it(store: Store) -> None:
    async def test() -> None:
        clock = Clock()
        owners = Owners(store, clock=clock)
        await owners.keep("anna", GOOGLE, [(FILE, "f")], "gemini:a")
        life = lifetime(GOOGLE, FILE)
        clock.now += life - 1
        found = owners.get("anna", GOOGLE, (FILE, "f"))
        assert found is not None
        await owners.used(found, GOOGLE, (FILE, "f"))
        clock.now += life - 1
        assert owners.get("anna", GOOGLE, (FILE, "f")) is not None
        clock.now += 2
        assert owners.get("anna", GOOGLE, (FILE, "f")) is None
        assert owners.everybodys(GOOGLE, (FILE, "f")) == [] and owners.of_user("anna", GOOGLE, FILE) == {}
        assert await owners.sweep() == 1
        with store.read() as txn:
            assert txn.count("objects") == 0
        store.close()

    asyncio.run(test())


def test_a_use_writes_only_when_it_matters(store: Store) -> None:
    async def test() -> None:
        clock = Clock()
        owners = Owners(store, clock=clock)
        await owners.keep("anna", OPENAI, [(FILE, "f")], "openai:a")
        found = owners.get("anna", OPENAI, (FILE, "f"))
        assert found is not None
        clock.now += DAY
        await owners.used(found, OPENAI, (FILE, "f"))
        again = owners.get("anna", OPENAI, (FILE, "f"))
        assert again is not None and again.until == found.until
        clock.now += 60 * DAY
        await owners.used(found, OPENAI, (FILE, "f"))
        later = owners.get("anna", OPENAI, (FILE, "f"))
        assert later is not None and later.until > found.until and later.made_at == found.made_at
        store.close()

    asyncio.run(test())


def test_a_person_cannot_fill_the_table(store: Store) -> None:
    async def test() -> None:
        clock = Clock()
        owners = Owners(store, clock=clock, most=10)
        await owners.keep("bert", OPENAI, [(FILE, "his")], "openai:a")
        for number in range(25):
            clock.now += 1
            await owners.keep("anna", OPENAI, [(FILE, f"f{number}")], "openai:a")
        mine = owners.of_user("anna", OPENAI, FILE)["openai:a"]
        assert mine == {digest(f"f{number}") for number in range(15, 25)}  # the oldest made room
        assert owners.get("anna", OPENAI, (FILE, "f0")) is None
        assert owners.get("bert", OPENAI, (FILE, "his")) is not None
        store.close()

    asyncio.run(test())


def test_a_sweep_goes_round_and_leaves_what_lives(store: Store) -> None:
    async def test() -> None:
        clock = Clock()
        owners = Owners(store, clock=clock)
        await owners.keep("anna", GOOGLE, [(FILE, f"g{n}") for n in range(1500)], "gemini:a")
        await owners.keep("anna", OPENAI, [(FILE, f"o{n}") for n in range(1500)], "openai:a")
        clock.now += lifetime(GOOGLE, FILE) + 1
        gone = sum([await owners.sweep() for _ in range(5)])
        assert gone == 1500 and len(owners.of_user("anna", OPENAI, FILE)["openai:a"]) == 1500
        with store.read() as txn:
            assert txn.count("objects") == 1500 and txn.count("objects_by_user") == 1500 + 2
        store.close()

    asyncio.run(test())


Step = tuple[str, str, Reference, str]  # action, user, reference, account
actions = st.lists(
    st.tuples(
        st.sampled_from(["keep", "forget", "forget_all", "wait", "sweep", "use"]),
        st.sampled_from(["anna", "bert"]),
        st.sampled_from([(FILE, "a"), (FILE, "b"), (FILE, "c"), (BATCH, "a")]),
        st.sampled_from(["gemini:a", "gemini:b"]),
    ),
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions)
def test_it_is_as_a_plain_dictionary_would_be(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    store = Store.open(tmp_path_factory.mktemp("owners"), tables=TABLES, durable=False, map_size=1 << 22)

    async def test() -> None:
        clock = Clock()
        model: dict[tuple[str, Reference], tuple[str, float]] = {}
        owners = Owners(store, clock=clock)
        for action, user, reference, account in steps:
            life = lifetime(GOOGLE, reference[0])
            if action == "keep":
                await owners.keep(user, GOOGLE, [reference], account)
                model[user, reference] = (account, clock.now + life)
            elif action == "forget":
                await owners.forget(GOOGLE, reference, user)
                model.pop((user, reference), None)
            elif action == "forget_all":
                await owners.forget(GOOGLE, reference)
                model = {key: value for key, value in model.items() if key[1] != reference}
            elif action == "wait":
                clock.now += life / 2
            elif action == "sweep":
                await owners.sweep()
            elif (found := owners.get(user, GOOGLE, reference)) is not None:
                await owners.used(found, GOOGLE, reference)
                if clock.now + life - found.until >= life / 16:
                    model[user, reference] = (found.account, clock.now + life)
            for (who, what), (holder, until) in model.items():
                found = owners.get(who, GOOGLE, what)
                assert (found.account if found is not None else None) == (holder if until > clock.now else None)
            for who in ("anna", "bert"):
                listed = owners.of_user(who, GOOGLE, FILE)
                alive = {
                    (holder, digest(what[1]))
                    for (one, what), (holder, until) in model.items()
                    if one == who and what[0] is FILE and until > clock.now
                }
                assert {(holder, key) for holder, keys in listed.items() for key in keys} == alive
        with store.read() as txn:
            counts = sum(1 for key, _ in txn.scan("objects_by_user") if key.count(b"\0") == 2 and len(key) < 24)
            assert txn.count("objects_by_user") - counts == txn.count("objects")

    try:
        asyncio.run(test())
    finally:
        store.close()
