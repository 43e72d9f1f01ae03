from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pool_server.users import Principal, RefusedError

from .site import PEER as HOME
from .site import SHELL, Site

BOTH_STORES = True


async def worthless(site: Site, ticket: str) -> None:
    with pytest.raises(RefusedError) as info:
        await site.users.tickets.redeem(ticket, peer=HOME)
    assert info.value.denied.status == 404


def test_a_ticket_is_good_for_one_key(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend("Anna")
        made = await site.users.tickets.create(anna, label="codex on my laptop")
        assert made["expires_in"] == 600
        got = await site.worker().tickets.redeem(made["ticket"], peer=HOME)
        assert got["user"] == {"id": anna.user, "name": "Anna"}
        found = site.users.authenticate(got["key"])
        assert isinstance(found, Principal) and (found.user, found.key) == (anna.user, got["key_id"])
        labels = {row["id"]: row["label"] for row in site.users.people.list_keys(anna.user)}
        assert labels == {anna.key: "first key", got["key_id"]: "codex on my laptop"}
        await worthless(site, made["ticket"])

    site.run(main)


def test_a_ticket_can_hand_out_a_key_one_has(site: Site) -> None:
    async def main() -> None:
        anna, key = await site.friend("Anna")
        berta, _ = await site.friend("Berta")
        with pytest.raises(RefusedError):
            await site.users.tickets.create(berta, key_id=anna.key)
        got = await site.users.tickets.redeem(await site.ticket(anna, key_id=anna.key), peer=HOME)
        assert (got["key"], got["key_id"]) == (key, anna.key)
        ticket = await site.ticket(anna, key_id=anna.key)
        await site.users.people.revoke_key(anna.user, anna.key, actor=SHELL)
        await worthless(site, ticket)

    site.run(main)


@pytest.mark.parametrize("how", ["used", "revoked", "old", "disabled", "deleted"])
def test_tickets_that_are_worth_nothing(site: Site, how: str) -> None:
    async def main() -> None:
        anna, _ = await site.friend("Anna")
        ticket = await site.ticket(anna)
        if how == "used":
            await site.users.tickets.redeem(ticket, peer=HOME)
        elif how == "revoked":
            await site.users.tickets.revoke(ticket)
        elif how == "old":
            site.clock.now += 600
        elif how == "disabled":
            await site.users.people.patch_user(anna.user, {"disabled": True}, actor=SHELL)
        else:
            await site.users.people.delete_user(anna.user, actor=SHELL)
        await worthless(site, ticket)

    site.run(main)


@pytest.mark.parametrize(
    "ticket", ["", "x", "$(reboot)" + "a" * 23, "a" * 31 + "\n", "a" * 33, "../" * 10 + "ab", "ä" * 32, "a" * 32]
)
def test_tickets_nobody_made(site: Site, ticket: str) -> None:
    asyncio.run(worthless(site, ticket))


def test_of_many_at_once_one_gets_the_key(site: Site) -> None:
    async def main() -> None:
        anna, _ = await site.friend("Anna")
        ticket = await site.ticket(anna)
        calls = (site.users.tickets.redeem(ticket, peer=HOME) for _ in range(5))
        results: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(result, dict) for result in results) == 1
        assert len(site.users.people.list_keys(anna.user)) == 2

    site.run(main)


def test_a_ticket_holds_nothing_a_shell_would_read(site: Site) -> None:
    for _ in range(50):
        ticket = asyncio.run(site.ticket(site.users.local_principal()))
        assert all(char.isalnum() or char in "-_" for char in ticket) and ticket.isascii()


def test_local_mode_has_tickets_without_keys(site: Site) -> None:
    async def main() -> None:
        ticket = await site.ticket(site.users.local_principal())
        got = await site.users.tickets.redeem(ticket, peer="127.0.0.1")
        assert got == {"user": {"id": "local", "name": "you"}, "key": "local", "key_id": ""}

    site.run(main)
