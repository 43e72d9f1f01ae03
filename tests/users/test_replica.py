"""What a machine reads of people that a store elsewhere keeps: news in any order end in what is there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.storage import Store, StoreError, StoreFullError
from pool_server.users import LEDGER_TABLES, Denied, Principal, RefusedError
from pool_server.users.embedded_door import EmbeddedDoor
from pool_server.users.embedded_people import EmbeddedPeople
from pool_server.users.models import (
    ADMIN_TOKENS,
    CODES,
    KEYS,
    NAMES,
    PEOPLE,
    USER_KEYS,
    AdminToken,
    decode_code,
    decode_key,
    decode_user,
)
from pool_server.users.ports import PeopleNews, UserPorts
from pool_server.users.replica import Replica
from tests.cluster.conftest import Database

from .site import PASSPHRASE, PEER, SHELL, Clock, Site

TABLES = (PEOPLE, NAMES, KEYS, USER_KEYS, CODES, ADMIN_TOKENS)
Tables = dict[str, dict[bytes, bytes]]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "here", tables=LEDGER_TABLES, durable=True, map_size=1 << 24)
    yield store
    store.close()


def tables(store: Store) -> Tables:
    with store.read() as txn:
        return {name: dict(txn.scan(name)) for name in TABLES}


def news(before: Tables, after: Tables, since: int, upto: int) -> PeopleNews:
    """What the store elsewhere tells of what came between two states of it."""

    def changed(table: str, decode: Callable[[bytes], Any]) -> list[Any]:
        return [decode(raw) for key, raw in after[table].items() if before[table].get(key) != raw]

    def ended(table: str) -> list[str]:
        return [key.decode() for key in before[table] if key not in after[table]]

    keys = [(decode_key(before[KEYS][key.encode()]).user, key) for key in ended(KEYS)]
    token = msgspec.msgpack.Decoder(AdminToken).decode
    return PeopleNews(
        since, upto, changed(PEOPLE, decode_user), changed(KEYS, decode_key), keys, changed(CODES, decode_code),
        ended(CODES), changed(ADMIN_TOKENS, token), ended(ADMIN_TOKENS),
    )  # fmt: skip


EMPTY: Tables = {name: {} for name in TABLES}


async def change_something(site: Site, chance: random.Random) -> None:
    people = site.users.people
    known = [row["id"] for row in people.list_users()[0]]
    if not known or chance.random() < 0.2:
        names = ("Anna", "Berta", "Carl", "Dora", "Emil", "Frieda")
        free = [name for name in names if people.find(name) is None]
        if free:
            await people.create_user(chance.choice(free), actor=SHELL)
        return
    user, row = chance.choice(known), chance.random()
    if row < 0.15:
        await people.delete_user(user, actor=SHELL)
    elif row < 0.3:
        await people.patch_user(user, {"disabled": chance.random() < 0.5}, actor=SHELL)
    elif row < 0.45:
        await people.patch_user(user, {"name": f"Name {chance.randrange(10**6)}"}, actor=SHELL)
    elif row < 0.6:
        await people.rotate(user, actor=SHELL)
    elif row < 0.75:
        await people.create_key(user, "more", actor=SHELL)
    elif row < 0.85:
        code = await site.users.codes.create(actor=SHELL)
        if chance.random() < 0.5:
            await site.users.codes.revoke(code["id"], actor=SHELL)
    else:
        token = await site.users.admin_tokens.create(actor=SHELL, label="ci", scopes=["read"])
        if chance.random() < 0.5:
            await site.users.admin_tokens.revoke(token["id"], actor=SHELL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_news_in_any_order_end_in_what_is_there(site: Site, here: Store, seed: int) -> None:
    async def main() -> None:
        chance, replica = random.Random(seed), Replica(here, Clock())
        states = [tables(site.durable)]
        for _ in range(40):
            await change_something(site, chance)
            states.append(tables(site.durable))
        late: list[PeopleNews] = []  # read, and not taken in yet
        while replica.known() < len(states) - 1 or late:
            if late and chance.random() < 0.5:
                await replica.apply(late.pop(chance.randrange(len(late))))
                continue
            since = replica.known()
            upto = min(len(states) - 1, since + chance.randrange(1, 9))
            before = EMPTY if not since else states[since]
            if chance.random() < 0.05:
                since, before = 0, EMPTY
            if upto:
                late.append(news(before, states[upto], since, upto))
        if replica.known() != len(states) - 1:  # a whole look came late
            await replica.apply(news(EMPTY, states[-1], 0, len(states) - 1))
        assert tables(here) == states[-1]

    site.run(main)


class Elsewhere(EmbeddedPeople):
    """A store of another machine, whose news this one takes in."""

    def __init__(self, store: Store, replica: Replica) -> None:
        super().__init__(store)
        self._replica = replica
        self.away = False

    async def catch_up(self) -> None:
        if self.away:
            raise StoreError("the database does not answer")
        state = tables(self._store)
        await self._replica.apply(news(EMPTY, state, 0, self._replica.known() + 1))


@pytest.fixture
def two(site: Site, tmp_path: Path) -> Iterator[tuple[Site, Site, Elsewhere]]:
    """Where people are kept, and a machine that reads a copy."""
    node = Site(tmp_path / "node", pool_users=msgspec.structs.replace(site.settings.pool_users, jwt_secret="s" * 40))
    site.settings = node.settings
    site.users = site.worker()
    people = Elsewhere(site.durable, Replica(node.durable, node.clock))
    node.users = node.worker(ports=UserPorts(people, EmbeddedDoor(site.durable, site.state)))
    yield site, node, people
    node.close()


def run(node: Site, main: Callable[[], Awaitable[None]]) -> None:
    async def started() -> None:
        await node.users.start()
        await main()

    node.run(started)


def test_a_key_made_elsewhere_is_known_at_once(two: tuple[Site, Site, Elsewhere]) -> None:
    site, node, people = two

    async def main() -> None:
        _, key = await site.friend("Anna")
        assert isinstance(await node.users.recognise(key), Principal)
        people.away = True
        assert isinstance(node.users.authenticate(key), Principal), "what is known goes on while the store is away"
        _, other = await site.friend("Berta")
        assert isinstance(await node.users.recognise(other), Denied)

    run(node, main)


def test_access_that_ends_elsewhere_ends_here(two: tuple[Site, Site, Elsewhere]) -> None:
    site, node, _ = two
    ended: list[tuple[str | None, str | None]] = []
    node.users.on_end.append(lambda user, key: ended.append((user, key)))

    async def main() -> None:
        anna, key = await site.friend("Anna")
        berta, _ = await site.friend("Berta")
        await node.users.recognise(key)
        await site.users.people.revoke_key(anna.user, anna.key, actor=SHELL)
        await site.users.people.delete_user(berta.user, actor=SHELL)
        await node.users.follower.catch_up()
        assert isinstance(node.users.authenticate(key), Denied)
        assert (None, anna.key) in ended
        assert (berta.user, None) in ended

    run(node, main)


def test_a_session_opened_elsewhere_is_good_here(two: tuple[Site, Site, Elsewhere]) -> None:
    site, node, _ = two

    async def main() -> None:
        entry = await site.users.sign_in.friend_login(peer=PEER, code="open sesame", name="Anna", passphrase=PASSPHRASE)
        found = await node.users.sessions.find(entry.cookie)
        assert found is not None and found.user == entry.user
        again = await node.users.sign_in.friend_login(peer=PEER, name="Anna", passphrase=PASSPHRASE)
        assert (await site.users.sessions.find(again.cookie)) is not None

    run(node, main)


def test_a_store_with_people_of_its_own_takes_in_no_others(site: Site) -> None:
    async def main() -> None:
        await site.friend("Anna")
        with pytest.raises(StoreError, match="people of a pool of its own"):
            Replica(site.durable, site.clock).known()

    asyncio.run(main())


def test_the_shell_changes_nothing_when_the_store_cannot_be_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        monkeypatch.setattr(site.durable, "submit", full)
        for change in (
            site.users.people.create_user("Berta", actor=SHELL),
            site.users.people.revoke_key(anna.user, anna.key, actor=SHELL),
        ):
            with pytest.raises(RefusedError, match="nothing was changed: no space left") as info:
                await change
            assert info.value.denied.status == 503
        assert isinstance(site.users.authenticate(key), Principal)

    site.run(main)


def test_a_change_made_elsewhere_is_made_where_it_cannot_be_taken_in_here(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = Site(tmp_path, database)

    async def main() -> None:
        anna, key = await node.friend("Anna")
        with monkeypatch.context() as patched:
            patched.setattr(node.durable, "submit", full)
            await node.users.people.revoke_key(anna.user, anna.key, actor=SHELL)
        assert "is not read here yet: no space left" in caplog.text
        await node.users.follower.look()
        assert isinstance(node.users.authenticate(key), Denied)

    try:
        node.run(main)
    finally:
        node.close()


def full(_: object) -> None:
    raise StoreFullError("no space left")
