"""Logging to stderr: a line a fact, and nothing secret in any of them."""

from __future__ import annotations

import logging

from pool_server.core.models import UsageRecord
from pool_server.providers import redact

log = logging.getLogger("pool_server.exchanges")


class Redacting(logging.Formatter):
    """Every line, tracebacks too, passes the pool's one redaction helper."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def setup(*, debug: bool) -> None:
    """Log to stderr. There is no access log; `debug` gives a line an exchange."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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
        )  # fmt: skip
