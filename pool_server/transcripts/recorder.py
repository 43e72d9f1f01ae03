"""Writes captures into files, in a thread of its own: a draft that grows by zstd frames, renamed when the exchange is
over. Nothing that goes wrong here reaches the exchange; a capture that cannot be kept whole is not kept."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zstandard
from prometheus_client import Counter

from pool_server.core.disk import DRAFT
from pool_server.core.models import UsageRecord
from pool_server.transcripts import archive, jsonl
from pool_server.transcripts.capture import CaptureEvent, ExchangeCapture, HeldFile

log = logging.getLogger(__name__)

exchanges = Counter("pool_transcripts_total", "Exchanges whose transcript was asked for", ["result"])
BEHIND_BYTES = 64 << 20  # what may wait for the disk; a capture that would add to more is given up
TOLD_EVERY_S = 300.0  # a failing disk is told to the log so often
CLOSE_S = 10.0  # for what waits to be written when the server ends


class NotKeptError(Exception):
    """A capture is given up; the text is the label of the metric."""


class _Draft:
    """The file of a capture under way, known to the writing thread alone."""

    def __init__(self, path: Path, room: int) -> None:
        self.path = path
        self.draft = path.with_name(f".{path.name}{DRAFT}")
        self.room = room  # bytes that may still be kept
        self.cut = False
        self.request, self.up, self.down = jsonl.Totals(), jsonl.Totals(), jsonl.Totals()


class Recorder:
    """`stands` says, in any thread, whether a person's consent stands now; `free` how many bytes the disk has to
    keep free; `most` how many bytes of one exchange are kept; `kept` hears of each new file, in the thread."""

    def __init__(
        self,
        folder: Path,
        *,
        stands: Callable[[str], bool],
        free: Callable[[], int],
        most: Callable[[], int],
        kept: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self._folder = folder
        self._stands = stands
        self._free = free
        self._most = most
        self._kept = kept
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._taken = self._written = 0  # bytes: one is the loop's, the other the thread's
        self._drafts: dict[ExchangeCapture, _Draft] = {}
        self._thread: threading.Thread | None = None
        self._told = -TOLD_EVERY_S

    # -- on the event loop

    def take(self, capture: ExchangeCapture, events: list[CaptureEvent], size: int) -> None:
        if self._taken - self._written + size > BEHIND_BYTES:
            exchanges.labels("behind").inc()
            capture.drop()
            return
        self._taken += size
        self._put(lambda: self._write(capture, events, size))

    def end(self, capture: ExchangeCapture, record: UsageRecord | None) -> None:
        self._put(lambda: self._finish(capture, record))

    def drop(self, capture: ExchangeCapture) -> None:
        self._put(lambda: self._discard(capture))

    def _put(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="transcripts", daemon=True)
            self._thread.start()
        self._queue.put(work)

    def flush(self) -> None:
        """Returns when all that was handed over by now is written. Blocks."""
        done = threading.Event()
        if self._thread is not None:
            self._put(done.set)
            done.wait()

    def close(self) -> None:
        """Returns when what waits is written, or has taken too long. Blocks."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(CLOSE_S)

    # -- in the thread

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def _write(self, capture: ExchangeCapture, events: list[CaptureEvent], size: int) -> None:
        self._try(capture, lambda: self._append(capture, events, size))
        self._written += size

    def _finish(self, capture: ExchangeCapture, record: UsageRecord | None) -> None:
        self._try(capture, lambda: self._keep(capture, record))
        self._forget(capture)

    def _try(self, capture: ExchangeCapture, work: Callable[[], None]) -> None:
        if capture.dropped:
            return
        try:
            work()
        except NotKeptError as why:
            self._give_up(capture, str(why))
        except FileNotFoundError:
            self._give_up(capture, "deleted")  # with its whole conversation, while it was under way
        except OSError as error:
            self._tell(f"{error.strerror or error}")
            self._give_up(capture, "disk")
        except Exception:
            log.exception("a transcript could not be made")
            self._give_up(capture, "failed")

    def _give_up(self, capture: ExchangeCapture, label: str) -> None:
        exchanges.labels(label).inc()
        capture.dropped = True  # the loop adds nothing more
        self._discard(capture)

    def _tell(self, why: str) -> None:
        now = time.monotonic()
        if now - self._told >= TOLD_EVERY_S:
            self._told = now
            log.warning("transcripts are not kept for now: %s", why)

    def _append(self, capture: ExchangeCapture, events: list[CaptureEvent], size: int) -> None:
        draft = self._drafts.get(capture)
        lines: list[bytes] = []
        if draft is None:
            draft = self._drafts[capture] = self._begin(capture)
            lines.append(jsonl.head_line(capture.head))
            lines += jsonl.request_lines(capture.body, draft.request, draft.room)
            draft.cut = draft.request.bytes > draft.room
            draft.room -= min(draft.request.bytes, draft.room)
        made = jsonl.event_lines(events, draft.up, draft.down, began=capture.began, websocket=capture.head.websocket)
        if draft.cut or size > draft.room:
            draft.cut = True
            for _ in made:  # counted all the same
                pass
        else:
            lines += made
            draft.room -= size
        self._add(draft, lines)

    def _begin(self, capture: ExchangeCapture) -> _Draft:
        head = capture.head
        path = archive.place(self._folder, head.user, head.agent, head.conversation, head.id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        volume = os.statvfs(path.parent)
        if volume.f_bavail * volume.f_frsize < self._free():
            self._tell("the disk is short of room")
            raise NotKeptError("disk")
        return _Draft(path, self._most())

    def _add(self, draft: _Draft, lines: list[bytes]) -> None:
        data = zstandard.ZstdCompressor().compress(b"".join(lines))
        descriptor = os.open(draft.draft, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def _keep(self, capture: ExchangeCapture, record: UsageRecord | None) -> None:
        if capture not in self._drafts:
            self._append(capture, [], 0)
        draft = self._drafts[capture]
        self._add(draft, [jsonl.end_line(record, draft.request, draft.up, draft.down, cut=draft.cut)])
        user = capture.head.user
        if not self._stands(user):
            raise NotKeptError("withdrawn")
        os.rename(draft.draft, draft.path)
        if not self._stands(user):  # it was withdrawn, and what there is deleted, just now
            draft.path.unlink(missing_ok=True)
            raise NotKeptError("withdrawn")
        exchanges.labels("kept").inc()
        self._kept(draft.path)

    def _discard(self, capture: ExchangeCapture) -> None:
        draft = self._drafts.get(capture)
        if draft is not None:
            try:
                draft.draft.unlink(missing_ok=True)
            except OSError:
                pass  # found by its age later
        self._forget(capture)

    def _forget(self, capture: ExchangeCapture) -> None:
        self._drafts.pop(capture, None)
        if isinstance(capture.body, HeldFile):
            capture.body.close()
        capture.body = None
