"""Owners of objects over PostgreSQL: fetched before they are asked for, durable when they are kept.

What was fetched stays in memory for the exchange that asked, and for while the database does not answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from pool_server.accounts.objects.lifetimes import lifetime
from pool_server.accounts.objects.owners import MOST, SLIDE, STEP, Owned, OwnersPort, Reference, digest
from pool_server.core.enums import ApiFamily, ObjectKind
from pool_server.storage.errors import StoreError
from pool_server.storage.postgres.connection import DatabasePool, ResultRow

log = logging.getLogger(__name__)

REMEMBERED = 20_000
WITHIN_S = 5.0

_Place = tuple[ApiFamily, ObjectKind, bytes]
_List = tuple[str, ApiFamily, ObjectKind]


class DatabaseOwners(OwnersPort):
    """One node's. `mine`: whether it is this node that sweeps; `clock` gives unix seconds."""

    elsewhere = True

    def __init__(self, pool: DatabasePool, clock: Callable[[], float], *, mine: Callable[[], bool]) -> None:
        self._pool = pool
        self._clock = clock
        self._mine = mine
        self._known: dict[_Place, list[Owned]] = {}
        self._lists: dict[_List, dict[str, set[bytes]]] = {}

    # -- before reading

    async def fetch(self, family: ApiFamily, references: Iterable[Reference]) -> None:
        places = list(dict.fromkeys((family, kind, digest(ident)) for kind, ident in references))
        if not places:
            return
        kinds, idents = [place[1].value for place in places], [place[2] for place in places]
        try:
            async with asyncio.timeout(WITHIN_S):
                rows = await self._pool.rows(
                    "select * from pool.object_read_1($1, $2, $3)", family.value, kinds, idents
                )
        except (StoreError, TimeoutError) as exc:
            log.warning("whose objects are whose could not be read: %s", exc or "no answer in time")
            return
        found: dict[_Place, list[Owned]] = {place: [] for place in places}
        for row in rows:
            found[family, ObjectKind(row["kind"]), row["ident"]].append(_owned(row))
        for place in places:
            _remember(self._known, place, found[place])

    async def fetch_list(self, user: str, family: ApiFamily, kind: ObjectKind) -> None:
        found: dict[str, set[bytes]] = {}
        try:
            async with asyncio.timeout(WITHIN_S):
                rows = await self._pool.rows(
                    "select * from pool.object_list_1($1, $2, $3)", user, family.value, kind.value
                )
        except (StoreError, TimeoutError) as exc:
            log.warning("whose objects are whose could not be read: %s", exc or "no answer in time")
            return
        for row in rows:
            found.setdefault(row["account"], set()).add(row["ident"])
        _remember(self._lists, (user, family, kind), found)

    # -- reading

    def get(self, user: str, family: ApiFamily, reference: Reference) -> Owned | None:
        return next((one for one in self.everybodys(family, reference) if one.user == user), None)

    def everybodys(self, family: ApiFamily, reference: Reference) -> list[Owned]:
        found = self._known.get((family, reference[0], digest(reference[1])))
        if found is None:
            raise StoreError("the database was not asked whose this is")
        now = self._clock()
        return [one for one in found if one.until > now]

    def of_user(self, user: str, family: ApiFamily, kind: ObjectKind) -> dict[str, set[bytes]]:
        found = self._lists.get((user, family, kind))
        if found is None:
            raise StoreError("the database was not asked whose these are")
        return {account: set(idents) for account, idents in found.items()}

    # -- writing

    async def keep(
        self,
        user: str,
        family: ApiFamily,
        references: Iterable[Reference],
        account: str,
        *,
        models: dict[str, int] | None = None,
        key: str = "",
        expected: dict[str, tuple[int, int]] | None = None,
        batch: str = "",
    ) -> bool:
        wanted = [one for one in references if one[1]]
        if not wanted:
            return True
        kinds, idents = [kind.value for kind, _ in wanted], [digest(ident) for _, ident in wanted]
        lives = [lifetime(family, kind) for kind, _ in wanted]
        facts = json.dumps(models or {}), json.dumps(expected or {}), key, batch
        return await self._written(
            "select pool.object_keep_1($1, $2, $3, $4, $5, $6, $7::jsonb, $8::jsonb, $9, $10)",
            user, family.value, kinds, idents, lives, account, *facts,
        )  # fmt: skip

    async def used(self, owned: Owned, family: ApiFamily, reference: Reference) -> None:
        life = lifetime(family, reference[0])
        if self._clock() + life - owned.until >= life * SLIDE:
            await self.keep(owned.user, family, (reference,), owned.account)

    async def forget(self, family: ApiFamily, reference: Reference, user: str = "") -> None:
        kind, ident = reference
        sql = "select pool.object_forget_1($1, $2, $3, $4)"
        await self._written(sql, family.value, kind.value, digest(ident), user)

    async def sweep(self) -> int:
        if not self._mine():
            return 0
        return int(await self._pool.value("select pool.object_sweep_1($1, $2)", MOST, STEP))

    async def _written(self, sql: str, *values: Any) -> bool:
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._pool.value(sql, *values)
        except (StoreError, TimeoutError) as exc:
            log.error("whose objects are whose could not be written: %s", exc or "no answer in time")
            return False
        return True


def _remember(known: dict[Any, Any], place: object, found: object) -> None:
    known.pop(place, None)
    known[place] = found
    if len(known) > REMEMBERED:
        del known[next(iter(known))]


def _owned(row: ResultRow) -> Owned:
    expected = {model: (prompts, answers) for model, (prompts, answers) in json.loads(row["expected"]).items()}
    models = json.loads(row["models"])
    return Owned(row["account"], row["made"], row["until"], models, row["key"], row["usr"], expected, row["batch"])
