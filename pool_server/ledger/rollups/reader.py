"""Reads rollup rows for any filter and grouping.

Nine dimensions are kept, and one a label. A question is answered from the smallest that knows all the names it filters
or groups by. An account's name begins with its provider, so a provider beside another name is read from the account's.
What is not in the rollups yet is read beside them, as rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Literal

import msgspec

from pool_server.ledger.records import layout
from pool_server.ledger.rollups import pending
from pool_server.ledger.rollups.pending import Share
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.time_slices import Slice
from pool_server.storage import Reader

Field = Literal["provider", "account", "user", "model", "program", "key", "project", "conversation"]
# A label's dimension of the whole pool, if there is one, and of each user; its place among an exchange's labels.
LABELS: dict[Field, tuple[bytes | None, bytes, int]] = {
    "program": (layout.PROGRAM, layout.USER_PROGRAM, 0),
    "key": (None, layout.KEY, 1),
    "project": (layout.PROJECT, layout.USER_PROJECT, 2),
    "conversation": (None, layout.CONVERSATION, 3),
}
_ORDER: dict[frozenset[str], tuple[bytes, tuple[Field, ...]]] = {
    frozenset(): (layout.POOL, ()),
    frozenset({"provider"}): (layout.PROVIDER, ("provider",)),
    frozenset({"account"}): (layout.ACCOUNT, ("account",)),
    frozenset({"user"}): (layout.USER, ("user",)),
    frozenset({"model"}): (layout.MODEL, ("model",)),
    frozenset({"user", "model"}): (layout.USER_MODEL, ("user", "model")),
    frozenset({"user", "account"}): (layout.USER_ACCOUNT, ("user", "account")),
    frozenset({"account", "model"}): (layout.ACCOUNT_MODEL, ("account", "model")),
    frozenset({"user", "account", "model"}): (layout.USER_ACCOUNT_MODEL, ("user", "account", "model")),
}
for _label, (_of_pool, _of_user, _) in LABELS.items():
    _ORDER[frozenset({"user", _label})] = _of_user, ("user", _label)
    _ORDER[frozenset({_label})] = (_of_pool, (_label,)) if _of_pool else (_of_user, ("user", _label))
FIELDS_OF = dict(_ORDER.values())  # dimension → the fields that name its rows, in their order
_END = b"\xff"  # greater than any byte of UTF-8 text


class Filters(msgspec.Struct, frozen=True):
    """Only exchanges with these names; None = any. Account "claude:" is for claude with no account chosen."""

    provider: str | None = None
    account: str | None = None
    user: str | None = None
    model: str | None = None


def hourly(by: Field, filters: Filters) -> bool:
    """Whether there are hours of a label, not only days."""
    return LABELS[by][0] is not None and filters.user is None


# The start of a rollup row's bucket, the names asked for, its encoded sums. More than one row may have both.
RollupRow = tuple[int, tuple[str, ...], bytes]


class _Plan(msgspec.Struct, frozen=True):
    dimension: bytes
    order: tuple[Field, ...]
    prefix: bytes  # what the names of every wanted row begin with
    exact: bool  # `prefix` is the whole name: one row a bucket
    second: bytes  # of two parts of a name only the second is wanted: what it is
    wanted: tuple[tuple[int, str, bool], ...]  # position, text, whether the text is only the name's beginning


def rows(
    reader: Reader,
    slices: Iterable[Slice],
    filters: Filters,
    by: tuple[Field, ...] = (),
    newest: Sequence[Share] | None = None,
) -> Iterator[RollupRow]:
    """Every row of the slices that passes the filters, named by the fields of `by`; bucket by bucket, the newest
    exchanges of a slice after its others. `newest`: what `pending.shares` found in the same transaction, where it was
    asked already."""
    plan = _plan(filters, by)
    pick = [_picker(field, plan.order) for field in by]
    if newest is None:
        newest = pending.shares(reader)
    shares = newest
    found = (row for part in slices for row in chain(_scan(reader, part, plan), _newest(shares, part, plan)))
    return _passing(found, plan, pick)


def newest_rows(
    newest: Sequence[Share], slices: Iterable[Slice], filters: Filters, by: tuple[Field, ...] = ()
) -> Iterator[RollupRow]:
    """What `rows` makes of the newest exchanges alone."""
    plan = _plan(filters, by)
    pick = [_picker(field, plan.order) for field in by]
    return _passing((row for part in slices for row in _newest(newest, part, plan)), plan, pick)


def _passing(
    found: Iterable[tuple[int, bytes, bytes]], plan: _Plan, pick: Sequence[tuple[int, bool]]
) -> Iterator[RollupRow]:
    named: dict[bytes, tuple[str, ...] | None] = {}  # a name is told apart once, not in each of its buckets
    for bucket, name, raw in found:
        if name in named:
            names = named[name]
        else:
            names = named[name] = _named(name, plan, pick)
        if names is not None:
            yield bucket, names, raw


def _named(name: bytes, plan: _Plan, pick: Sequence[tuple[int, bool]]) -> tuple[str, ...] | None:
    """What a row of this name is called; None where it does not pass the filters."""
    names = name.decode().split("\0") if name else [""]
    if plan.wanted and not _passes(names, plan.wanted):
        return None
    return tuple([_pick(names, p) for p in pick])


def _plan(filters: Filters, by: tuple[Field, ...]) -> _Plan:
    known: dict[str, str] = {
        field: value
        for field in ("provider", "account", "user", "model")
        if (value := getattr(filters, field)) is not None
    }
    dimension, order = order_of(filters, by)
    wanted: list[tuple[int, str, bool]] = []
    prefix, open_end = b"", False
    leading = True
    for position, field in enumerate(order):
        text, partial = _condition(field, known)
        if text is None:
            leading = False
            continue
        if leading:
            prefix += text.encode() + (b"" if partial or position == len(order) - 1 else b"\0")
            open_end = partial
            leading = not partial
        else:
            wanted.append((position, text, partial))
    if "provider" in known and "account" in known:
        wanted.append((order.index("account"), known["provider"] + ":", True))
    exact = leading and not open_end
    only_second = not prefix and len(order) == 2 and len(wanted) == 1 and not wanted[0][2]
    second = wanted[0][1].encode() if only_second else b""
    return _Plan(dimension, order, prefix, exact, second, tuple(wanted))


def order_of(filters: Filters, by: tuple[Field, ...]) -> tuple[bytes, tuple[Field, ...]]:
    """The dimension a question is answered from, and the fields that name its rows. Raises ValueError where there is
    none."""
    needed = {field for field in ("provider", "account", "user", "model") if getattr(filters, field) is not None}
    needed |= set(by)
    if "provider" in needed and len(needed) > 1:
        needed = (needed - {"provider"}) | {"account"}
    return _order(needed)


def _order(needed: set[str]) -> tuple[bytes, tuple[Field, ...]]:
    """The dimension that knows these fields. Raises ValueError where none does: labels are kept by user alone."""
    found = _ORDER.get(frozenset(needed))
    if found is None:
        label = next((field for field in sorted(needed) if field in LABELS), "")
        others = ", ".join(sorted(needed - {label, "user"}))
        raise ValueError(f"use by {label} is known by user only, not by {others}")
    return found


def _condition(field: Field, known: dict[str, str]) -> tuple[str | None, bool]:
    """What a part of the name must be, and whether only its beginning."""
    if field == "account" and "account" not in known and "provider" in known:
        return known["provider"] + ":", True
    return known.get(field), False


def _scan(reader: Reader, part: Slice, plan: _Plan) -> Iterator[tuple[int, bytes, bytes]]:
    base = part.grain + plan.dimension
    if plan.second:
        yield from _by_second(reader, part, plan)
        return
    if not plan.order or not (plan.prefix or plan.exact):
        for key, raw in reader.scan(layout.ROLLUPS, *_bounds(base, part)):
            yield int.from_bytes(key[2:6], "big"), key[6:], raw
        return
    for bucket in _buckets(reader, part):
        head = base + bucket + plan.prefix
        at = int.from_bytes(bucket, "big")
        if plan.exact:
            raw_row = reader.get(layout.ROLLUPS, head)
            if raw_row is not None:
                yield at, plan.prefix, raw_row
            continue
        for key, raw in reader.scan(layout.ROLLUPS, head, head + _END):
            yield at, key[6:], raw


def _by_second(reader: Reader, part: Slice, plan: _Plan) -> Iterator[tuple[int, bytes, bytes]]:
    """Rows of two names of which the second is given: the first ones come from their own rows, which are fewer than
    all pairs."""
    leading, base = _ORDER[frozenset(plan.order[:1])][0], part.grain + plan.dimension
    for key, _ in reader.scan(layout.ROLLUPS, *_bounds(part.grain + leading, part)):
        name = key[6:] + b"\0" + plan.second
        raw = reader.get(layout.ROLLUPS, base + key[2:6] + name)
        if raw is not None:
            yield int.from_bytes(key[2:6], "big"), name, raw


def _newest(shares: Sequence[Share], part: Slice, plan: _Plan) -> Iterator[tuple[int, bytes, bytes]]:
    """What `_scan` would find if the newest exchanges were in the rollups, a row for each of them; of labels, counts
    alone as there."""
    grain = layout.GRAINS.index(b"d" if part.grain == layout.MONTH else part.grain)
    counted = plan.dimension in layout.LABELS
    for share in shares:
        start = share.starts[grain]
        if part.start <= start < part.stop:
            name = _name(share, plan.order)
            if name is None:
                continue
            if name == plan.prefix if plan.exact else name.startswith(plan.prefix):
                yield start, name, Sums.decode(share.sums).slim().encode() if counted else share.sums


def _name(share: Share, order: tuple[Field, ...]) -> bytes | None:
    """The name part of the row an exchange would add to; None where it has no such label."""
    user, account, model = share.cell
    if order and order[-1] in LABELS:
        label = share.labels[LABELS[order[-1]][2]]
        return (f"{user}\0{label}" if len(order) > 1 else label).encode() if label else None
    parts = {"user": user, "account": account, "model": model, "provider": account.partition(":")[0]}
    return "\0".join([parts[field] for field in order]).encode()


def _buckets(reader: Reader, part: Slice) -> list[bytes]:
    """The buckets in which anything happened; the pool's own rows name them."""
    return [key[2:6] for key, _ in reader.scan(layout.ROLLUPS, *_bounds(part.grain + layout.POOL, part))]


def _bounds(head: bytes, part: Slice) -> tuple[bytes, bytes]:
    """Where a slice's rows lie. A month's stand at its first second alone: others within it are of months as another
    time zone has them."""
    stop = part.start + 1 if part.grain == layout.MONTH else part.stop
    return head + layout.seconds_key(part.start), head + layout.seconds_key(stop)


def _passes(names: list[str], wanted: tuple[tuple[int, str, bool], ...]) -> bool:
    for position, text, partial in wanted:
        name = names[position]
        if not (name.startswith(text) if partial else name == text):
            return False
    return True


def _picker(field: Field, order: tuple[Field, ...]) -> tuple[int, bool]:
    """Where a field's text is among a row's names, and whether it is an account's provider."""
    if field in order:
        return order.index(field), False
    return order.index("account"), True


def _pick(names: list[str], picker: tuple[int, bool]) -> str:
    position, provider = picker
    name = names[position]
    return name.partition(":")[0] if provider else name
