"""Logging to stderr, as text or as JSON: a line a fact, and nothing secret in any of them.

The newest lines of each process stand in two small files of the data folder besides, for the page that shows them. A
process writes its own files, so that no lock is needed; of those that ended the newest stay, since what a worker said
last is what one wants to know when it died.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pool_server.core import processes
from pool_server.core.models import UsageRecord
from pool_server.providers import redact
from pool_server.telemetry import trace_context
from pool_server.web.base.recent_log import FOLDER, MOST_FILES, SUFFIX

log = logging.getLogger("pool_server.exchanges")
REQUEST_ID, TRACE_ID = "request_id", "trace_id"  # of a record's `extra`, and of a line in JSON
MOST_BYTES = 512 * 1024  # of one file; the one before it stays, too
BEFORE = ".before"  # what the file before is called: sorted by name, it comes first
LONGEST = 16 * 1024  # bytes of one line
RETRY_S = 30.0  # after the disk could not take a line


# Characters that a terminal acts on or that begin another line: C0, DEL, C1, line and paragraph separators, marks that
# turn text around.
_UNSHOWN = (*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSHOWN}
_WITHIN_TRACES = {code: text for code, text in _ESCAPES.items() if code != ord("\n")}


class Redacting(logging.Formatter):
    """Every line, tracebacks too, passes the pool's one redaction helper. What a client or an upstream said can begin
    no line of its own: a message is one line, and those of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = record.message.translate(_ESCAPES)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


class JsonLines(Redacting):
    """Every record as one JSON object: time, level, logger, message, what `extra` names, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told = {"time": f"{at}.{int(record.msecs):03d}Z", "level": record.levelname, "logger": record.name}
        told["message"] = redact(record.getMessage())
        for name in (REQUEST_ID, TRACE_ID):
            if isinstance(ident := getattr(record, name, None), str):
                told[name] = ident
        if record.exc_info:
            told["exception"] = redact(logging.Formatter.formatException(self, record.exc_info))
        return json.dumps(told, ensure_ascii=True)


def _indented(trace: str) -> str:
    return "\n".join(f"    {line}" for line in trace.translate(_WITHIN_TRACES).split("\n"))


def setup(*, debug: bool, as_json: bool = False) -> None:
    """Log to stderr. There is no access log; `debug` gives a line an exchange."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    set_debug(debug)
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def set_debug(debug: bool) -> None:
    """Whether exchanges are told; may change while the server runs."""
    logging.getLogger("pool_server").setLevel(logging.DEBUG if debug else logging.INFO)


def exchange(rec: UsageRecord) -> None:
    """The line of one exchange: who, what, where, how it ended. No content, no key."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug(
            "%s %s %s %s on %s: %d %s, %d attempts, %d tokens, %.0f ms",
            rec.id, rec.user, rec.operation, rec.model or "-", rec.account or "-",
            rec.status, rec.outcome, len(rec.attempts), rec.usage.total, rec.total_ms,
            extra={REQUEST_ID: rec.id, TRACE_ID: trace_context.TRACE_ID.get() or None},
        )  # fmt: skip


class RecentLog(logging.Handler):
    """Writes lines to files of the process that logs, also after a fork. A disk that takes none costs no request: the
    log itself goes to stderr all the same."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._folder = data_dir / FOLDER
        self._pid, self._file, self._size = 0, -1, 0
        self._path = self._folder / SUFFIX
        self._not_before = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            line = self.format(record).encode() + b"\n"
            if len(line) > LONGEST:
                record = logging.makeLogRecord({**record.__dict__, "exc_info": None, "args": ()})
                record.msg = record.getMessage()[: LONGEST // 8] + " …"
                line = self.format(record).encode() + b"\n"
            if self._pid != os.getpid():
                self._open()
            elif self._size + len(line) > MOST_BYTES:
                self._turn_over()
            self._size += os.write(self._file, line)
        except OSError:
            self._not_before = time.monotonic() + RETRY_S
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        if self._pid == os.getpid() and self._file >= 0:
            os.close(self._file)
        self._pid, self._file = 0, -1
        super().close()

    def _open(self) -> None:
        with suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        self._path = self._folder / f"{processes.name()}{SUFFIX}"
        self._begin()
        self._pid = os.getpid()
        self._drop_oldest()

    def _begin(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file, self._size = os.open(self._path, flags, 0o600), 0

    def _turn_over(self) -> None:
        os.replace(self._path, self._path.with_suffix(f"{BEFORE}{SUFFIX}"))
        before = self._file
        self._begin()
        os.close(before)

    def _drop_oldest(self) -> None:
        """Of processes that have ended, what is beyond the newest files goes."""
        found = sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in found[MOST_FILES // 2 :]:
            if not processes.alive(path.name):
                path.unlink(missing_ok=True)


@contextmanager
def kept(data_dir: Path) -> Iterator[None]:
    """Keeps the newest lines of this process and of those it forks."""
    handler = RecentLog(data_dir)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
