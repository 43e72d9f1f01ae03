"""The newest lines of the server's log, of every worker: read from the bounded files that `app.logs` writes."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

FOLDER = "recent-log"  # in the data folder
SUFFIX = ".jsonl"
MOST_FILES = 32  # newest first; of dead processes the last few are kept
MOST_LINES = 1000  # of one answer
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_RANKS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class LogLine(msgspec.Struct, frozen=True):
    """One line as it is written: JSON, redacted. `time` in UTC, to the millisecond."""

    time: str
    level: str
    logger: str
    message: str
    request_id: str = ""
    exception: str = ""


class LogFilter(NamedTuple):
    """`level` and above; `text` anywhere in the line, in any case; `request` by its id."""

    level: Level = "DEBUG"
    text: str = ""
    request: str = ""

    def passes(self, line: LogLine) -> bool:
        if _RANKS.get(line.level, 0) < _RANKS[self.level]:
            return False
        if self.request and self.request != line.request_id and self.request not in line.message:
            return False
        wanted = self.text.casefold()
        return not wanted or any(wanted in said.casefold() for said in (line.message, line.logger, line.exception))


Place = tuple[str, str, int]  # a line's time, its file and its number there: no two lines have the same
_decode = msgspec.json.Decoder(LogLine).decode


def files(folder: Path) -> list[Path]:
    """The files of lines in a data folder, newest first."""
    try:
        found = [(path.stat().st_mtime_ns, path) for path in (folder / FOLDER).iterdir() if path.suffix == SUFFIX]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)[:MOST_FILES]]


def mark(folder: Path) -> int:
    """Another number whenever a line was written."""
    try:
        return max((path.stat().st_mtime_ns for path in files(folder)), default=0)
    except OSError:
        return 0


def newest(folder: Path, wanted: LogFilter, most: int, before: str = "") -> tuple[list[LogLine], str]:
    """At most `most` lines that pass, newest first, older than the cursor `before`; and the cursor of the next page,
    "" where there is none. No more lines than that are held at once. Raises ValueError for a foreign cursor."""
    limit = _cursor(before) if before else None
    kept: list[tuple[Place, LogLine]] = []
    for path in files(folder):
        for number, line in enumerate(_lines(path)):
            place = (line.time, path.name, number)
            if (limit is None or place < limit) and wanted.passes(line):
                heapq.heappush(kept, (place, line))
                if len(kept) > most + 1:
                    heapq.heappop(kept)
    kept.sort(key=lambda entry: entry[0], reverse=True)
    following = "/".join(map(str, kept[most - 1][0])) if len(kept) > most else ""
    return [line for _, line in kept[:most]], following


def _cursor(text: str) -> Place:
    stamp, _, rest = text.partition("/")
    name, _, number = rest.rpartition("/")
    if not _STAMP.fullmatch(stamp) or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise ValueError("that cursor was not given by this log")
    return stamp, name, int(number)


def _lines(path: Path) -> Iterator[LogLine]:
    """The lines of a file; one that is cut off or damaged is none."""
    try:
        with path.open("rb") as file:
            yield from _read(file)
    except OSError:
        return


def _read(raws: Iterable[bytes]) -> Iterator[LogLine]:
    for raw in raws:
        try:
            line = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if _STAMP.fullmatch(line.time):
            yield line
