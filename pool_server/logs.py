"""Logging to stderr: a line a fact, and nothing secret in any of them."""

from __future__ import annotations

import logging

from pool_server.providers import redact


class Redacting(logging.Formatter):
    """Every line, tracebacks too, passes the pool's one redaction helper."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def setup(*, debug: bool) -> None:
    """Log to stderr. There is no access log; `debug` lets the gateway tell one line an exchange."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("pool_server").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
