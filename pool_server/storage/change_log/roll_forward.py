"""From a copy of a store and its log to the store as it was at any second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pool_server.storage.change_log.segments import PREFIX, Segment, SegmentError, following, listed, unpacked
from pool_server.storage.errors import StoreError
from pool_server.storage.lmdb.change_frames import POSITION, Frame, read_frame
from pool_server.storage.lmdb.engine import META, Engine
from pool_server.storage.lmdb.store import MAP_SIZE, MAX_SIZE
from pool_server.storage.lmdb.transaction import Txn
from pool_server.storage.object_store import ObjectStore, ObjectStoreError

AT_ONCE = 8  # pieces that are fetched at the same time
BATCH, BATCH_BYTES = 10_000, 32 << 20  # transactions, or bytes of changes, that are put back in one
TRIES = 3  # the pieces of a server that runs are put together meanwhile: then what there is is looked at again

_TABLE = itemgetter(0)  # of a change
Progress = Callable[[int, int], None]  # so many of so many transactions


class RolledForward(NamedTuple):
    """`at`: when the last change was made that is part of it, unix seconds; 0 where there was none after the copy.
    `short`: why later ones are not, though they were made by then; "" for none."""

    transactions: int
    at: float
    short: str


def roll_forward(
    folder: Path, place: ObjectStore, until: float, keys: Mapping[str, bytes], scratch: Path, progress: Progress
) -> RolledForward:
    """Bring the copied store in `folder` forward to how it stood at `until`, unix seconds. `scratch` is an empty folder
    for what is fetched. Blocks. Raises StoreError."""
    engine = Engine(folder, (), durable=True, map_size=MAP_SIZE, max_size=MAX_SIZE)
    try:
        position = engine.position()
    finally:
        engine.close()
    if position is None:
        return RolledForward(0, 0.0, "")
    if position.at > until:
        raise TooNewError
    fetched, short = _fetched(place, position.generation, position.number, until, scratch)
    pieces = _Pieces(fetched, position.number, keys)
    times: list[float] = []
    tables: set[str] = set()
    for frame in pieces:
        times.append(frame.at)
        tables.update(map(_TABLE, frame.changes))
    count = best_cut(times, until)
    short = "" if count < len(times) else pieces.broken or short
    _apply(folder, sorted(tables), islice(iter(pieces), count), count, progress)
    return RolledForward(count, times[count - 1] if count else 0.0, short)


class TooNewError(Exception):
    """The copy is of a later moment than the one that is wanted."""


def best_cut(times: Sequence[float], until: float) -> int:
    """How many of the transactions, in their order, were made by `until`: their times fall back where a clock was set,
    so that the cut is where the fewest stand on the wrong side; of several such places the last."""
    wrong = fewest = sum(at <= until for at in times)
    cut = 0
    for number, at in enumerate(times, 1):
        wrong += 1 if at > until else -1
        if wrong <= fewest:
            fewest, cut = wrong, number
    return cut


def _fetched(
    place: ObjectStore, generation: str, number: int, until: float, scratch: Path
) -> tuple[list[tuple[Segment, Path]], str]:
    last = ""
    for _ in range(TRIES):
        try:
            found = listed(place.list(f"{PREFIX}/{generation}"))
            chosen, beyond = following(found, number)
            short = f"the log has a hole after transaction {chosen[-1].last if chosen else number}" if beyond else ""
            wanted = [one for one in chosen if one.since <= until * 1000]
            if len(wanted) < len(chosen):
                chosen, short = chosen[: chosen.index(wanted[-1]) + 1] if wanted else [], ""
            return _fetch(place, chosen, scratch), short
        except ObjectStoreError as exc:
            last = str(exc)
    raise StoreError(f"the log of changes cannot be read: {last}")


def _fetch(place: ObjectStore, chosen: Sequence[Segment], scratch: Path) -> list[tuple[Segment, Path]]:
    targets = [scratch / one.name.rpartition("/")[2] for one in chosen]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda pair: place.fetch(pair[0].name, pair[1]), zip(chosen, targets, strict=True)))
    return list(zip(chosen, targets, strict=True))


class _Pieces:
    """The transactions after `number`, each once, up to a piece that is not whole: `broken` says which."""

    def __init__(self, fetched: Sequence[tuple[Segment, Path]], number: int, keys: Mapping[str, bytes]) -> None:
        self._fetched = fetched
        self._number = number
        self._keys = keys
        self.broken = ""

    def __iter__(self) -> Iterator[Frame]:
        number = self._number
        for one, path in self._fetched:
            try:
                contents = unpacked(path.read_bytes(), self._keys, one.last - one.first + 1)
                frames = [read_frame(content) for content in contents]
            except (SegmentError, ValueError) as exc:
                self.broken = f"{one.name} cannot be read: {exc}"
                return
            for frame in frames:
                if frame.number == number + 1:
                    number += 1
                    yield frame


def _apply(folder: Path, tables: list[str], frames: Iterator[Frame], count: int, progress: Progress) -> None:
    engine = Engine(folder, tables, durable=True, map_size=MAP_SIZE, max_size=MAX_SIZE)
    try:
        engine.end_log()  # what follows is another row of transactions
        done = 0
        for number, changes in _batches(frames):
            engine.run(lambda txn, changes=changes: _put(txn, changes))  # type: ignore[misc]
            done += number
            progress(done, count)
    finally:
        engine.close()


_Last = dict[str, dict[bytes, bytes | None]]  # table → key → what it was last, None: deleted


def _batches(frames: Iterator[Frame]) -> Iterator[tuple[int, _Last]]:
    """So many transactions at a time, and what they leave of each key: a counter that each of them changed is written
    once."""
    frame = next(frames, None)
    while frame is not None:
        last: _Last = {}
        number = size = 0
        while frame is not None and number < BATCH and size < BATCH_BYTES:
            for table, key, value in frame.changes:
                last.setdefault(table, {})[key] = value
                size += len(value) if value is not None else 0
            number += 1
            frame = next(frames, None)
        yield number, last


def _put(txn: Txn, last: _Last) -> None:
    """In the order of the keys, so that a page is filled once."""
    last.get(META, {}).pop(POSITION, None)
    for table, values in last.items():
        for key, value in values.items():
            if value is None:
                txn.delete(table, key)
        txn.put_many(table, sorted((key, value) for key, value in values.items() if value is not None))
