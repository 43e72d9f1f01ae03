"""Captures for a bug report: a key's next few exchanges, ordered by its holder, secrets hidden and texts replaced.

`ORDER` in a folder of its own says whose, of which key and how many; each exchange claims a number by making its file,
so that several workers never take more than was asked for. Texts are replaced before anything is written.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from pool_server.core.disk import write_private
from pool_server.core.models import UsageRecord
from pool_server.transcripts import archive, replacing
from pool_server.transcripts.capture import Answered, CaptureEvent, ExchangeCapture, HeldFile
from pool_server.transcripts.jsonl import without_secrets

log = logging.getLogger(__name__)

FOLDER = "captures"  # in the data folder
ORDER = "order.json"
MOST_EXCHANGES = 20
MOST_BYTES = 8 << 20  # of one exchange; the rest is left out
OPEN_S = 86_400.0  # an order that is not filled by then ends
KEEP_S = 7 * 86_400.0
MOST_ORDERS = 10  # of one person


class CaptureOrder(msgspec.Struct):
    """`key` "" = any of the person's; `texts`: they are kept. `made` in unix seconds."""

    id: str
    user: str
    key: str
    exchanges: int
    texts: bool
    made: float


class CaptureState(msgspec.Struct):
    """An order and how far it is: `taken` are complete; `open`: more are awaited."""

    id: str
    key: str
    exchanges: int
    texts: bool
    made: float
    taken: int
    open: bool


class Reports:
    """The orders of a data folder, as one worker knows them."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder / FOLDER
        self._clock = clock
        self._open: dict[str, list[CaptureOrder]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- on the event loop

    def wanted(self, user: str, key: str) -> bool:
        """Whether an order waits for an exchange of this key."""
        return user in self._open and any(order.key in ("", key) for order in self._open[user])

    def claim(self, user: str, key: str) -> ReportSink | None:
        """Takes the next exchange for an order that wants it; None where none is left."""
        for order in list(self._open.get(user, ())):
            if order.key not in ("", key):
                continue
            if order.made + OPEN_S > self._clock():
                for number in range(1, order.exchanges + 1):
                    path = self._folder / order.id / f"{number:02}.jsonl"
                    try:
                        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                    except FileExistsError:
                        continue
                    except OSError:
                        break
                    return ReportSink(self, order, path)
            self._open[user].remove(order)
        return None

    def background(self, work: Callable[[], None]) -> None:
        """Runs beside the loop what writes a file."""
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- blocking

    def load(self) -> None:
        """Learns the orders that are open, also those made by other workers."""
        found: dict[str, list[CaptureOrder]] = {}
        for order in self._orders():
            if self._state(order).open:
                found.setdefault(order.user, []).append(order)
        self._open = found

    def order(self, user: str, key: str, exchanges: int, *, texts: bool) -> CaptureState:
        """A new order. Raises ValueError, OSError."""
        if not 1 <= exchanges <= MOST_EXCHANGES:
            raise ValueError(f"between 1 and {MOST_EXCHANGES} exchanges can be captured")
        if len(self.of(user)) >= MOST_ORDERS:
            raise ValueError(f"there are {MOST_ORDERS} captures of yours: delete one first")
        made = CaptureOrder(secrets.token_hex(8), user, key, exchanges, texts, self._clock())
        place = self._folder / made.id
        place.mkdir(parents=True, mode=0o700)
        write_private(place / ORDER, msgspec.json.encode(made))
        self.load()
        return self._state(made)

    def of(self, user: str) -> list[CaptureState]:
        """A person's orders, the newest first."""
        return [self._state(one) for one in sorted(self._orders(), key=lambda one: -one.made) if one.user == user]

    def file(self, user: str, identifier: str) -> bytes | None:
        """All that was captured for an order, as JSON lines; None where the person has no such order."""
        place = self._place(user, identifier)
        return None if place is None else b"".join(path.read_bytes() for path in sorted(place.glob("*.jsonl")))

    def remove(self, user: str, identifier: str) -> bool:
        """Ends and deletes an order."""
        place = self._place(user, identifier)
        if place is None:
            return False
        shutil.rmtree(place, ignore_errors=True)
        self.load()
        return True

    def prune(self) -> None:
        """Deletes what was ordered long ago."""
        for order in self._orders():
            if order.made < self._clock() - KEEP_S:
                shutil.rmtree(self._folder / order.id, ignore_errors=True)

    def _place(self, user: str, identifier: str) -> Path | None:
        return next((self._folder / one.id for one in self._orders() if (one.id, one.user) == (identifier, user)), None)

    def _orders(self) -> Iterator[CaptureOrder]:
        for place in archive.folders(self._folder):
            try:
                yield msgspec.json.decode((place / ORDER).read_bytes(), type=CaptureOrder)
            except (OSError, msgspec.DecodeError):
                continue

    def _state(self, order: CaptureOrder) -> CaptureState:
        files = list((self._folder / order.id).glob("*.jsonl"))
        taken = sum(1 for path in files if _size(path))
        still = len(files) < order.exchanges and order.made + OPEN_S > self._clock()
        return CaptureState(order.id, order.key, order.exchanges, order.texts, order.made, taken, still)


class ReportSink:
    """Collects one exchange for an order, in memory, and writes it when it is over."""

    def __init__(self, reports: Reports, order: CaptureOrder, path: Path) -> None:
        self._reports = reports
        self._order = order
        self._path = path
        self._events: list[CaptureEvent] = []
        self._bytes = 0
        self._cut = False

    def take(self, capture: ExchangeCapture, events: list[CaptureEvent], size: int) -> None:
        self._bytes += size
        if self._bytes > MOST_BYTES:
            self._cut = True
            self._events += [event for event in events if isinstance(event[1], Answered)]
        else:
            self._events += events

    def end(self, capture: ExchangeCapture, record: UsageRecord | None) -> None:
        self._reports.background(lambda: self._write(capture, record))

    def drop(self, capture: ExchangeCapture) -> None:
        """The number is free again."""
        if isinstance(capture.body, HeldFile):
            capture.body.close()
        self._reports.background(lambda: self._path.unlink(missing_ok=True))

    def _write(self, capture: ExchangeCapture, record: UsageRecord | None) -> None:
        try:
            body = capture.body
            data = body.read(0, MOST_BYTES) if isinstance(body, HeldFile) else body or b""
            size = body.size if isinstance(body, HeldFile) else len(data)
            lines = self._lines(capture, data[:MOST_BYTES], record, cut=self._cut or size > MOST_BYTES)
            write_private(self._path, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        except OSError as error:
            log.warning("a capture for a bug report could not be written: %s", error.strerror or error)
            self._path.unlink(missing_ok=True)
        except Exception:
            log.exception("a capture for a bug report could not be made")
            self._path.unlink(missing_ok=True)
        finally:
            if isinstance(capture.body, HeldFile):
                capture.body.close()

    def _lines(
        self, capture: ExchangeCapture, body: bytes, record: UsageRecord | None, *, cut: bool
    ) -> Iterator[dict[str, object]]:
        head, texts = capture.head, self._order.texts
        yield {
            "type": "request", "id": head.id, "at": head.at, "dialect": head.dialect, "method": head.method,
            "path": head.path, "program": head.agent, "headers": without_secrets(head.headers),
            "bytes": len(body), "body": replacing.body(body, texts=texts) if body else None,
        }  # fmt: skip
        answer = b""
        for at, what, from_client in self._events:
            ms = round((at - capture.began) * 1000, 1)
            if isinstance(what, Answered):
                yield {"type": "answer", "ms": ms, "status": what.status, "headers": without_secrets(what.headers)}
            elif head.websocket:
                data = what.encode("utf-8", "surrogatepass") if isinstance(what, str) else what
                shown = replacing.body(data, texts=texts)
                yield {"type": "frame", "ms": ms, "from": "client" if from_client else "pool", "body": shown}
            else:
                answer += what if isinstance(what, bytes) else what.encode()
        if answer:
            yield {"type": "answer body", "bytes": len(answer), "body": replacing.body(answer, texts=texts)}
        told = {} if record is None else {
            name: getattr(record, name)
            for name in ("status", "outcome", "message", "provider", "model", "answered", "total_ms", "first_byte_ms")
        }  # fmt: skip
        yield {"type": "end", "cut": cut, **told}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
