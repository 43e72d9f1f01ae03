"""How the ledger's tables are keyed.

- `records`: time of the exchange (microseconds, 8 bytes) + 4 bytes of its id's hash → the record
- `record_ids`: the id → the key in `records`; what makes recording exactly-once, of records and of jobs
- `record_index`: kind + 4 bytes of the value's hash + the key in `records` → nothing
- `rollups`: grain + dimension + start of the bucket (4 bytes) + names joined by NUL → sums; buckets first, so that
  what is being written lies together and a range of time is one scan
- `recent`: the key in `records` → what the exchange adds to the rollups, until it is in them
- `quota_history`: account NUL scope NUL window NUL + time (8 bytes) → one sighting
- `ledger_notes`: small facts (what was pruned, where days begin, open incidents)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

from pool_server.core.enums import Outcome
from pool_server.core.models import UsageRecord
from pool_server.storage import Txn

RECORDS = "records"
RECORD_IDS = "record_ids"
RECORD_INDEX = "record_index"
ROLLUPS = "rollups"
RECENT = "recent"
QUOTA = "quota_history"
NOTES = "ledger_notes"
TABLES = (RECORDS, RECORD_IDS, RECORD_INDEX, ROLLUPS, RECENT, QUOTA, NOTES)

# Format 2 has `recent` beside the rollups: a program of format 1 would leave what lies there out of its sums.
FORMAT = 2
USABLE_FROM = 2  # the oldest format whose programs can use what this one writes: one less for a release that only adds
MIGRATIONS: dict[int, Callable[[Txn], None]] = {1: lambda txn: None}  # the table begins empty

Grain = Literal[b"m", b"h", b"d", b"M"]
GRAINS: tuple[Grain, ...] = (b"m", b"h", b"d")  # what every exchange adds to
MONTH: Grain = b"M"  # made of days afterwards

POOL, PROVIDER, ACCOUNT, USER, MODEL = b"-", b"p", b"a", b"u", b"m"
USER_MODEL, USER_ACCOUNT, ACCOUNT_MODEL, USER_ACCOUNT_MODEL = b"M", b"A", b"c", b"C"
DIMENSIONS = (POOL, PROVIDER, ACCOUNT, USER, MODEL, USER_MODEL, USER_ACCOUNT, ACCOUNT_MODEL, USER_ACCOUNT_MODEL)

# What exchanges are labelled with. Programs and projects have hours and days of the whole pool (name: the label), and
# like keys and conversations days of each user (names: user + NUL + label). There are no minute rows of labels, and
# only so many names a bucket, or a bucket and user: the rest is OTHER.
PROGRAM, PROJECT = b"g", b"j"
USER_PROGRAM, KEY, USER_PROJECT, CONVERSATION = b"G", b"k", b"J", b"s"
LABELS = (PROGRAM, PROJECT, USER_PROGRAM, KEY, USER_PROJECT, CONVERSATION)
HOURLY = frozenset({PROGRAM, PROJECT})
MOST_LABELS = {PROGRAM: 200, PROJECT: 200, USER_PROGRAM: 50, KEY: 100, USER_PROJECT: 50, CONVERSATION: 200}
OTHER = "other"

BY_USER, BY_ACCOUNT, BY_MODEL, BY_OUTCOME, FAILED = b"u", b"a", b"m", b"o", b"f"

Cell = tuple[str, str, str]  # user, account key, model
Labels = tuple[str, str, str, str]  # program, key, project, conversation; "" = none
Name = tuple[bytes, bytes]  # a dimension and the name part of a key in it
_LAST_SECOND = 0xFFFFFFFF


def account_key(rec: UsageRecord) -> str:
    """The account's name in keys. It always begins with "provider:", also when no account was chosen."""
    if rec.account.startswith(rec.provider + ":"):
        return rec.account
    return f"{rec.provider}:{rec.account}"


def record_key(at: float, ident: str) -> bytes:
    return time_key(at) + _hash4(ident)


def made_key(job: str) -> bytes:
    """In `record_ids`: the record that made a job. No record's id begins so."""
    return b"\xfe" + job.encode()


def counted_key(job: str) -> bytes:
    """In `record_ids`: the record in which a job's usage counts."""
    return b"\xff" + job.encode()


def job_key(account: str, identity: str) -> str:
    """What the ledger calls a stored response or a batch, "" for none: hashed, as ids are the provider's."""
    return hashlib.blake2b(f"{account}|{identity}".encode(), digest_size=16).hexdigest() if identity else ""


def time_key(at: float) -> bytes:
    """The least record key of an instant."""
    return max(0, int(at * 1_000_000)).to_bytes(8, "big")


def index_prefix(kind: bytes, value: str) -> bytes:
    """What the index keys of one value begin with. Values of equal hash share it: whoever reads, compares."""
    return kind + _hash4(value)


def index_keys(rec: UsageRecord, key: bytes) -> list[bytes]:
    """Every index entry of a record."""
    keys = [
        index_prefix(BY_USER, rec.user) + key,
        index_prefix(BY_ACCOUNT, rec.account) + key,
        index_prefix(BY_MODEL, rec.model) + key,
    ]
    if rec.outcome != Outcome.OK:
        keys.append(index_prefix(BY_OUTCOME, rec.outcome) + key)
        keys.append(index_prefix(FAILED, "") + key)
    return keys


def seconds_key(at: float) -> bytes:
    return min(max(0, int(at)), _LAST_SECOND).to_bytes(4, "big")


def names_of(cell: Cell) -> tuple[Name, ...]:
    """For each dimension its code and the name part of a cell's keys."""
    user, account, model = (part.encode() for part in cell)
    provider = account.partition(b":")[0]
    return (
        (POOL, b""),
        (PROVIDER, provider),
        (ACCOUNT, account),
        (USER, user),
        (MODEL, model),
        (USER_MODEL, user + b"\0" + model),
        (USER_ACCOUNT, user + b"\0" + account),
        (ACCOUNT_MODEL, account + b"\0" + model),
        (USER_ACCOUNT_MODEL, user + b"\0" + account + b"\0" + model),
    )


def label_names(user: str, labels: Labels) -> list[Name]:
    """For each label an exchange has, the dimensions it is summed in and the name parts of their keys."""
    program, key, project, conversation = (label.encode() for label in labels)
    head = user.encode() + b"\0"
    names = (
        (PROGRAM, program),
        (PROJECT, project),
        (USER_PROGRAM, program and head + program),
        (KEY, key and head + key),
        (USER_PROJECT, project and head + project),
        (CONVERSATION, conversation and head + conversation),
    )
    return [name for name in names if name[1]]


def _hash4(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
