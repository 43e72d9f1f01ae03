"""Whose a provider's things are is the same on every machine, and as one machine alone would have it."""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.request
from pathlib import Path

import pytest

from pool_server.accounts.objects.lifetimes import lifetime
from pool_server.accounts.objects.owners import TABLES, Owned, Owners, OwnersPort, digest
from pool_server.cluster import objects
from pool_server.cluster.objects import DatabaseOwners
from pool_server.core.enums import ApiFamily, ObjectKind
from pool_server.storage import Store, StoreError
from tests.cluster.conftest import Database
from tests.cluster.nodes import OPERATOR, several
from tests.fakes import FakeProviders, key_account, plays
from tests.fakes.objects import Keeper

OPENAI, FILE, BATCH = ApiFamily.OPENAI, ObjectKind.FILE, ObjectKind.BATCH
PEOPLE, IDS, ACCOUNTS = ("ann", "ben", "cleo"), ("f1", "f2", "f\udc80"), ("openai:a", "openai:b")


async def seen(owners: OwnersPort) -> dict[str, object]:
    """All that the questions tell, without times."""

    def plain(owned: Owned | None) -> object:
        return owned and (owned.user, owned.account, owned.models, owned.expected, owned.key, owned.batch)

    found: dict[str, object] = {}
    for kind in (FILE, BATCH):
        await owners.fetch(OPENAI, [(kind, one) for one in IDS])
        for one in IDS:
            everybody = [plain(owned) for owned in owners.everybodys(OPENAI, (kind, one))]
            found[f"{kind}/{one!a}"] = sorted(everybody, key=repr)
            for person in PEOPLE:
                found[f"{kind}/{one!a}/{person}"] = plain(owners.get(person, OPENAI, (kind, one)))
        for person in PEOPLE:
            await owners.fetch_list(person, OPENAI, kind)
            found[f"{kind}/{person}"] = owners.of_user(person, OPENAI, kind)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_it_answers_as_the_store_of_one_machine_does(database: Database, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def walk() -> None:
        store = Store.open(tmp_path / "s", tables=TABLES, durable=True, map_size=1 << 24)
        async with database.pool() as one, database.pool() as two:
            here = Owners(store)
            there = [DatabaseOwners(pool, time.time, mine=lambda: True) for pool in (one, two)]
            for _ in range(40):
                both = (here, chance.choice(there))
                person, kind, ident = chance.choice(PEOPLE), chance.choice((FILE, BATCH)), chance.choice(IDS)
                account = chance.choice(ACCOUNTS)
                match chance.randrange(5):
                    case 0:
                        whose = chance.choice(("", person))
                        for owners in both:
                            await owners.forget(OPENAI, (kind, ident), whose)
                    case 1:
                        for owners in both:
                            assert await owners.keep(person, OPENAI, [(kind, ident)], account)
                    case _:
                        models = {"m": chance.randrange(9)} if chance.random() < 0.5 else None
                        expected = {"m": (1, chance.randrange(9))} if chance.random() < 0.5 else None
                        names = [(kind, ident), (kind, chance.choice(IDS)), (kind, "")]
                        facts = chance.choice(("", "k1")), chance.choice(("", "b1"))
                        for owners in both:
                            assert await owners.keep(
                                person, OPENAI, list(dict.fromkeys(names)), account,
                                models=models, expected=expected, key=facts[0], batch=facts[1],
                            )  # fmt: skip
                assert await seen(here) == await seen(there[0]) == await seen(there[1])
        store.close()

    asyncio.run(walk())


def test_its_end_moves_with_use_and_what_is_over_goes(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MOST", 3)

    async def walk() -> None:
        async with database.pool() as pool:
            mine = [True]
            owners = DatabaseOwners(pool, time.time, mine=lambda: mine[0])
            with pytest.raises(StoreError):
                owners.get("ann", OPENAI, (FILE, "f1"))
            await owners.keep("ann", OPENAI, [(FILE, "f1")], "openai:a")
            await owners.fetch(OPENAI, [(FILE, "f1")])
            first = owners.get("ann", OPENAI, (FILE, "f1"))
            assert first is not None
            await owners.used(first, OPENAI, (FILE, "f1"))
            assert database.sql(f"select until - made - {lifetime(OPENAI, FILE)} < 1 from pool.object") == "t"
            database.sql(f"update pool.object set until = until - {lifetime(OPENAI, FILE) / 2}")
            await owners.fetch(OPENAI, [(FILE, "f1")])
            half = owners.get("ann", OPENAI, (FILE, "f1"))
            assert half is not None
            await owners.used(half, OPENAI, (FILE, "f1"))
            assert float(database.sql("select until from pool.object")) >= first.until
            for number in range(5):
                await owners.keep("ann", OPENAI, [(FILE, f"n{number}")], "openai:a")
            await owners.keep("ben", OPENAI, [(FILE, "old")], "openai:a")
            database.sql("update pool.object set until = 1 where usr = 'ben'")
            mine[0] = False
            assert await owners.sweep() == 0
            mine[0] = True
            assert await owners.sweep() == 4
            assert database.sql("select count(*) from pool.object") == "3"
            await owners.fetch_list("ann", OPENAI, FILE)
            assert digest("n4") in owners.of_user("ann", OPENAI, FILE)["openai:a"]

    asyncio.run(walk())


def test_what_was_made_over_one_machine_is_reached_over_another_by_its_owner_alone(
    database: Database, tmp_path: Path
) -> None:
    async def walk() -> None:
        accounts = [key_account(f"openai:{name}") for name in "abc"]
        async with FakeProviders(accounts) as fakes:
            fakes.keeper = Keeper()
            async with several(database, fakes, tmp_path) as (a, b):
                people = a.server.users.people
                ann, ben = [(await people.create_user(name, actor=OPERATOR))["key"] for name in ("Ann", "Ben")]
                status, made = await a.call("POST", "/v1/conversations", {}, ann)
                assert status == 200
                place = f"/v1/conversations/{made['id']}"
                assert [(await node.call("GET", place, key=ann))[0] for node in (a, b)] == [200, 200]
                assert [(await node.call("GET", place, key=ben))[0] for node in (a, b)] == [404, 404]
                asked = {"model": "gpt-6", "input": "x", "conversation": made["id"]}
                assert (await b.call("POST", "/v1/responses", asked, ben))[0] == 404
                assert (await b.call("DELETE", place, key=ben))[0] == 404
                assert (await b.call("DELETE", place, key=ann))[0] == 200
                assert (await a.call("GET", place, key=ann))[0] == 404

    asyncio.run(walk())


def test_an_upload_goes_on_over_another_machine_without_a_key(database: Database, tmp_path: Path) -> None:
    def start(url: str, key: str) -> str:
        request = urllib.request.Request(url + "/upload/v1beta/files", json.dumps({"file": {}}).encode())
        request.add_header("x-goog-api-key", key)
        request.add_header("X-Goog-Upload-Protocol", "resumable")
        request.add_header("X-Goog-Upload-Command", "start")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.headers["x-goog-upload-url"])

    def send(url: str) -> int:
        request = urllib.request.Request(url, b"12345", {"X-Goog-Upload-Command": "upload, finalize"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)

    async def walk() -> None:
        async with FakeProviders([key_account("gemini:a")]) as fakes:
            there = f"{fakes.origin}/upload/v1beta/files?upload_id=AbC-1&upload_protocol=resumable"
            begun = plays.Play(body=b"{}", headers=(("X-Goog-Upload-URL", there),))
            ended = plays.Play(body={"file": {"name": "files/f-1"}}, headers=(("X-Goog-Upload-Status", "final"),))
            fakes.then("gemini:a", begun, ended, on="unknown")
            async with several(database, fakes, tmp_path) as (a, b):
                made = await a.server.users.people.create_user("Ann", actor=OPERATOR)
                address = await asyncio.to_thread(start, a.url, made["key"])
                elsewhere = b.url + address[address.index("/upload/") :]
                assert await asyncio.to_thread(send, elsewhere) == 200
                status, _ = await b.call("POST", "/upload/v1beta/files?pool_upload=nobodys", {})
                assert status == 401

    asyncio.run(walk())
