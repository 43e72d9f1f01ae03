"""Server-sent events, cut into events without reading any byte twice.

Lines end with LF, CRLF or CR (HTML Standard, 9.2.5); events are handed on with LF alone. An event the reader does not
want, or one larger than the cap, is passed over: its end is still found, its bytes are not kept.
"""

from __future__ import annotations

from typing import Protocol

EVENT_CAP = 16 << 20  # bytes; a larger event is classified by its head and passed over
_CR = 13  # looked for as a number, which is many times faster than as bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # one may stand before the stream's first line
HEAD = 1024  # bytes; enough to tell an event's type


class EventReader(Protocol):
    """What understands events. Answers are `Signal` values as plain ints."""

    def event(self, event: bytes) -> int:
        """Read one whole event, without its closing blank line."""

    def wanted(self, head: bytes) -> bool:
        """Whether an unfinished event that begins with `head` must be kept to be read whole."""

    def passed_over(self, head: bytes) -> int:
        """An event that is not kept begins with `head`; called once, before its end is known."""


def data_of(event: bytes) -> bytes:
    """The event's data: its `data:` lines joined by newlines, b"" where there are none."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].strip()
    lines = event.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    lines = [line[5:].strip(b" \r") for line in lines if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def closes(chunk: bytes, at: int) -> bool:
    """Whether the line that holds the byte at `at` is an event's last, and the chunk ends with that event."""
    left = len(chunk) - chunk.find(b"\n", at)
    return (left == 2 and chunk.endswith(b"\n\n")) or (left == 3 and chunk.endswith(b"\n\r\n"))


class Scanner:
    """Feeds whole events to a reader, however the bytes were cut."""

    def __init__(self, reader: EventReader, *, cap: int = EVENT_CAP) -> None:
        self._reader = reader
        self._cap = cap
        self._buffer = bytearray()  # the unfinished event
        self._searched = 0  # up to here the buffer holds no event end
        self._decided = False  # the reader has been asked about the unfinished event
        self._skipping = False  # the unfinished event is passed over; the buffer holds its last byte
        self._after_cr = False  # a line ended with CR: a LF that follows belongs to it
        self._lone_cr = False  # lines of this stream end with CR alone
        self.at_boundary = True  # no event is unfinished

    def feed(self, chunk: bytes) -> int:
        """Take bytes; return what the events that ended within them held."""
        if _CR in chunk or self._after_cr:
            chunk = self._with_lf(chunk)
        elif self.at_boundary and chunk.endswith(b"\n\n"):
            return self._whole(chunk)
        found = self._skip(chunk) if self._skipping else self._take(chunk)
        waits = self._after_cr and not self._lone_cr
        self.at_boundary = not (self._buffer or self._skipping or waits)
        return found

    def _with_lf(self, chunk: bytes) -> bytes:
        """The chunk with each line's end as one LF, wherever a CRLF was cut."""
        if not chunk:
            return chunk
        if self._after_cr:
            self._lone_cr = self._lone_cr or not chunk.startswith(b"\n")
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        chunk = chunk.replace(b"\r\n", b"\n")
        self._lone_cr = self._lone_cr or _CR in chunk[:-1]
        return chunk.replace(b"\r", b"\n")

    def finish(self) -> int:
        """The stream ended: an event without its closing blank line is read as if it had one."""
        if self._skipping or not self._buffer:
            return 0
        event = bytes(self._buffer).strip(b"\n")
        return self._reader.event(event) if event else 0

    def _whole(self, chunk: bytes) -> int:
        """A chunk made of whole events, as nearly all are."""
        events = chunk.split(b"\n\n")
        if len(events) == 2 and events[0][:1] != b"\n":
            return self._reader.event(events[0]) if events[0] else 0
        found = 0
        for event in events:
            if event := event.lstrip(b"\n"):
                found |= self._reader.event(event)
        return found

    def _take(self, chunk: bytes) -> int:
        """Add to the buffer and take the finished events out of it."""
        self._buffer += chunk
        buffer, found, start = self._buffer, 0, 0
        end = buffer.find(b"\n\n", self._searched)
        while end >= 0:
            event = bytes(buffer[start:end]).strip(b"\n")
            start = end + 2
            if event:
                found |= self._reader.event(event)
            end = buffer.find(b"\n\n", start)
        return found | self._keep(start)

    def _keep(self, start: int) -> int:
        """Keep what follows `start`: blank lines between events are dropped, unwanted events passed over."""
        buffer = self._buffer
        if start:
            self._decided = False
        size = len(buffer)
        while start < size and buffer[start] in b"\n":
            start += 1
        if start:
            del buffer[:start]
        self._searched = max(0, len(buffer) - 1)
        if len(buffer) < HEAD:
            return 0
        if self._decided and len(buffer) <= self._cap:
            return 0
        head = bytes(buffer[:HEAD])
        if not self._decided and self._reader.wanted(head) and len(buffer) <= self._cap:
            self._decided = True
            return 0
        self._skipping, self._decided = True, False
        del buffer[:-1]
        return self._reader.passed_over(head)

    def _skip(self, chunk: bytes) -> int:
        """Look for the end of the passed-over event; `_buffer` holds its last byte."""
        data = bytes(self._buffer) + chunk
        end = data.find(b"\n\n")
        if end < 0:
            self._buffer[:] = data[-1:]
            return 0
        self._skipping = False
        self._buffer.clear()
        self._searched = 0
        return self._take(data[end + 2 :])
