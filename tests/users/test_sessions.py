from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pool_server.users import AuditActor, Principal, RefusedError
from pool_server.users.identity.sessions import FRIEND_S
from pool_server.users.identity.sign_in import SignedIn

from .site import NOON, PASSPHRASE, SHELL, Site
from .site import PEER as HOME

BOTH_STORES = True


async def enter(site: Site, name: str = "Anna") -> SignedIn:
    return await site.users.sign_in.friend_login(peer=HOME, code="open sesame", name=name, passphrase=PASSPHRASE)


def test_a_session_lasts_thirty_days_in_every_worker_and_over_a_restart(site: Site) -> None:
    async def main() -> None:
        entry = await enter(site)
        assert entry.expires == NOON + FRIEND_S
        found = await site.worker().sessions.find(entry.cookie)
        assert isinstance(found, Principal) and (found.user, found.key) == (entry.user, "")
        site.clock.now = entry.expires
        assert await site.users.sessions.find(entry.cookie) is None

    site.run(main)


def test_logging_out_ends_this_session_alone(site: Site) -> None:
    async def main() -> None:
        one = await enter(site)
        other = await enter(site)
        actor = AuditActor("user", one.user, one.name, HOME)
        await site.users.sessions.end(one.cookie, actor=actor)
        assert await site.users.sessions.find(one.cookie) is None
        assert await site.worker().sessions.find(one.cookie) is None
        assert await site.users.sessions.find(other.cookie) is not None
        for cookie in (one.cookie, "", "nonsense", "x" * 10_000):
            await site.users.sessions.end(cookie, actor=actor)

    site.run(main)


@pytest.mark.parametrize("end", ["disable", "delete", "passphrase", "reset", "all"])
def test_what_ends_every_session_of_a_user_and_nobody_elses(site: Site, end: str) -> None:
    async def main() -> None:
        users = site.users
        berta = await enter(site, "Berta")
        entry = await enter(site)
        kept: Any = None
        here = await users.sessions.find(entry.cookie)
        assert here is not None
        if end == "disable":
            await users.people.patch_user(entry.user, {"disabled": True}, actor=SHELL)
            await users.people.patch_user(entry.user, {"disabled": False}, actor=SHELL)
        elif end == "delete":
            await users.people.delete_user(entry.user, actor=SHELL)
        elif end == "passphrase":
            kept = await users.sign_in.change_passphrase(here, PASSPHRASE, "something else", peer=HOME)
        elif end == "reset":
            await users.sign_in.reset_passphrase(entry.user, actor=SHELL)
        else:
            await users.people.end_sessions(entry.user, actor=SHELL)
        for worker in (users, site.worker()):
            assert await worker.sessions.find(entry.cookie) is None
            assert await worker.sessions.find(berta.cookie) is not None
        assert kept is None or await users.sessions.find(kept.cookie) is not None

    site.run(main)


def test_a_passphrase_is_changed_by_who_knows_it(site: Site) -> None:
    async def main() -> None:
        users = site.users
        entry = await enter(site)
        here = await users.sessions.find(entry.cookie)
        assert here is not None
        for current, new, status in (("wrong words", "something else", 401), (PASSPHRASE, "short", 400)):
            with pytest.raises(RefusedError) as info:
                await users.sign_in.change_passphrase(here, current, new, peer=HOME)
            assert info.value.denied.status == status
        await users.sign_in.change_passphrase(here, PASSPHRASE, "something else", peer=HOME)
        with pytest.raises(RefusedError):
            await users.sign_in.friend_login(peer=HOME, name="Anna", passphrase=PASSPHRASE)
        assert (
            await users.sign_in.friend_login(peer=HOME, name="Anna", passphrase="something else")
        ).user == entry.user
        with pytest.raises(RefusedError):
            await users.sign_in.change_passphrase(users.local_principal(), "", "something else", peer=HOME)

    site.run(main)


@pytest.mark.parametrize("cookie", ["", ".", "a.b", "\ud800.x", "x" * 600, "…"])
def test_cookies_nobody_signed(site: Site, cookie: str) -> None:
    assert asyncio.run(site.users.sessions.find(cookie)) is None


def test_the_store_holds_no_cookie(site: Site) -> None:
    async def main() -> None:
        entry = await enter(site)
        value = entry.cookie.partition(".")[0]
        with site.durable.read() as txn:
            kept = b"".join(key + raw for key, raw in txn.scan("users.sessions"))
        assert value.encode() not in kept and entry.cookie.encode() not in kept

    site.run(main)
