"""Logging to stderr, as text or as JSON: a line a fact, and nothing secret in any of them."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from pool_server.core.models import UsageRecord
from pool_server.providers import redact

log = logging.getLogger("pool_server.exchanges")
REQUEST_ID = "request_id"  # of a record's `extra`, and of a line in JSON


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
        if isinstance(ident := getattr(record, REQUEST_ID, None), str):
            told[REQUEST_ID] = ident
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
            rec.status, rec.outcome, len(rec.attempts), rec.usage.total, rec.total_ms, extra={REQUEST_ID: rec.id},
        )  # fmt: skip
