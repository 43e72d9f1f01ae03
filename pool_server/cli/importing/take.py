"""Taking what a source holds: files into the pool folder, people and their keys into the data folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from pool_server.accounts import NameTakenError, PoolFiles, SameAccountError
from pool_server.cli.importing.found import Found, FoundAccount
from pool_server.cli.user.common import SHELL
from pool_server.providers import SPECS, CredentialRejectedError, provider_module
from pool_server.users import TakenUser, Users


class ImportRow(msgspec.Struct, frozen=True):
    """What came of one thing: `taken` is the account's or person's name here, "" for what is left; `note` says more,
    or why."""

    where: str
    taken: str
    note: str


def accounts(found: Found, folder: Path, *, take: bool, write: bool) -> list[ImportRow]:
    """Put the accounts into the pool folder; without `write` only what would be done is told. A sign-in that can be
    refreshed lives in one program alone: without `take` it comes disabled, and nothing is asked of its vendor."""
    files = PoolFiles(folder, now=time.time())
    return [_dropping(one, _account(files, one, found.program, take=take, write=write)) for one in found.accounts]


def _dropping(one: FoundAccount, row: ImportRow) -> ImportRow:
    """With what of a taken account does not come over."""
    if not one.dropped or not row.taken:
        return row
    left = f"left: {', '.join(one.dropped)}"
    return msgspec.structs.replace(row, note=f"{row.note}; {left}" if row.note else left)


def _account(files: PoolFiles, one: FoundAccount, program: str, *, take: bool, write: bool) -> ImportRow:
    module, now = provider_module(one.provider), time.time()
    try:
        live = module.parse(one.data, f"{one.provider.value}:new", now=now).can_refresh
        data = {**one.data, "disabled": True} if live and not take else one.data
        file = files.judged(one.provider, one.name, data)
        files.add(file, write=write)
    except SameAccountError as known:
        return ImportRow(one.where, "", f"it is the account {known.account}")
    except (CredentialRejectedError, NameTakenError) as wrong:
        return ImportRow(one.where, "", str(wrong))
    except OSError as wrong:
        return ImportRow(one.where, "", f"cannot be written: {wrong.strerror or type(wrong).__name__}")
    cred = file.credential
    if live and take:
        return ImportRow(one.where, file.account, f"taken over: it ends in {program} at the pool's first refresh")
    if live:
        note = f"disabled: a refresh here ends it in {program}; `account enable` takes it over all the same"
        if module.spec.consent:
            note += f", `account login {one.provider.value}` makes a sign-in of the pool's own"
        return ImportRow(one.where, file.account, note)
    if cred.expires_at is not None and cred.expires_at <= now:
        return ImportRow(one.where, file.account, "its token has ended, and there is none to renew it with")
    return ImportRow(one.where, file.account, SPECS[one.provider].notice)


async def people(found: Found, users: Users) -> list[ImportRow]:
    """Add the people and their keys."""
    return _told(await users.import_people(found.people, found.secrets, actor=SHELL), found)


async def planned_people(found: Found, users: Users) -> list[ImportRow]:
    """What would come of them."""
    return _told(users.plan_people(found.people), found)


def _told(rows: list[TakenUser], found: Found) -> list[ImportRow]:
    return [
        ImportRow(row.entry.where, row.entry.name if row.user else "", row.why or _of_person(row.entry.marks, found))
        for row in rows
    ]


def people_of_nobody_yet(found: Found) -> list[ImportRow]:
    """The same for a pool that has no data folder yet."""
    return [
        ImportRow(one.where, "" if one.skipped else one.name, one.skipped or _of_person(one.marks, found))
        for one in found.people
    ]


def _of_person(marks: tuple[bytes, ...], found: Found) -> str:
    needs_secret = bool(marks) and marks[0][:1] != b"t"
    return "their key works here" if marks and (found.secrets or not needs_secret) else "they need a new key"


def report(rows: list[ImportRow], found: Found) -> list[dict[str, Any]]:
    """All rows for people and programs."""
    left = [ImportRow(one.where, "", one.why) for one in found.left]
    return [msgspec.to_builtins(row) for row in (*rows, *left)]
