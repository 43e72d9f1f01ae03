"""Who is in which group: told by each person's record, for as long as they are there."""

from __future__ import annotations

from typing import Any

import pytest

from pool_server.users import RefusedError

from .site import SHELL, Site

BOTH_STORES = True


def test_groups_of_people(site: Site) -> None:
    async def main() -> None:
        people, groups = site.users.people, site.users.groups
        ada = (await people.create_user("Ada", actor=SHELL))["id"]
        bob = (await people.create_user("Bob", actor=SHELL))["id"]
        assert groups.of(ada) == frozenset() and groups.all() == {}
        row = await people.patch_user(ada, {"groups": " Family, the  Lab ,family"}, actor=SHELL)
        await people.patch_user(bob, {"groups": ["family"]}, actor=SHELL)
        assert row["groups"] == ["family", "the lab"] and people.get(bob)["groups"] == ["family"]
        assert groups.of(ada) == {"family", "the lab"}
        assert {name: set(found) for name, found in groups.all().items()} == {"family": {ada, bob}, "the lab": {ada}}
        await people.patch_user(ada, {"groups": []}, actor=SHELL)
        assert groups.of(ada) == frozenset()
        await people.patch_user(bob, {"disabled": True}, actor=SHELL)
        assert groups.of(bob) == frozenset()
        await people.delete_user(bob, actor=SHELL)
        assert groups.of(bob) == frozenset() and groups.all() == {}
        assert groups.of("u_nobody") == frozenset()

    site.run(main)


@pytest.mark.parametrize("said", [7, None, {"a": 1}, ["x" * 41], "a\x00b", ["a", 7], [f"g{n}" for n in range(21)], "/"])
def test_what_are_no_groups(site: Site, said: Any) -> None:
    async def main() -> None:
        ada = (await site.users.people.create_user("Ada", actor=SHELL))["id"]
        with pytest.raises(RefusedError) as refused:
            await site.users.people.patch_user(ada, {"groups": said}, actor=SHELL)
        assert refused.value.denied.status == 400 and site.users.people.get(ada)["groups"] == []

    site.run(main)
