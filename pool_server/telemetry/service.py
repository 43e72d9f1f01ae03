"""Traces as a service of a worker: off unless `[telemetry]` names a collector, and then nothing that waits for one."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import Counter

from pool_server.core.models import UsageRecord
from pool_server.core.settings import TelemetrySettings
from pool_server.telemetry.trace_context import trace_parent

if TYPE_CHECKING:
    from pool_server.telemetry.span_export import SpanExport

log = logging.getLogger(__name__)

CLOSE_S = 5.0  # a worker that ends waits no longer for the collector to take the rest
spans_total = Counter("pool_spans_total", "Spans of traces", ["result"])


class Telemetry:
    """`start` loads OpenTelemetry's SDK, where it is wanted; `ended` is called with every exchange."""

    def __init__(self, settings: TelemetrySettings, *, version: str) -> None:
        self._settings = settings
        self._version = version
        self._export: SpanExport | None = None

    async def start(self) -> None:
        """Not in a thread: modules that import each other are loaded on the event loop alone, before it serves."""
        if not self._settings.endpoint:
            return
        try:
            from pool_server.telemetry.span_export import SpanExport
        except ImportError:
            log.warning('telemetry.endpoint needs OpenTelemetry: pip install "pool-server[otel]"')
            return
        self._export = SpanExport(self._settings, version=self._version, count=_count)

    def ended(
        self, record: UsageRecord, *, asked: str, answered: str, urls: Sequence[str], headers: Sequence[tuple[str, str]]
    ) -> str:
        """Hands the exchange's spans over → its trace id, also where it is not sampled; "" with telemetry off.

        See `exchange_span` and `attempt_spans`; `headers` are the client's. What is cleaned in the record afterwards
        may be told as it was before."""
        if self._export is None:
            return ""
        return self._export.ended(record, asked, answered, urls, trace_parent(headers))

    async def close(self) -> None:
        """What waits is sent, unless that takes too long."""
        export, self._export = self._export, None
        if export is None:
            return
        closing = threading.Thread(target=export.close, name="telemetry-close", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)
        if closing.is_alive():
            export.abandon()


def _count(result: str, spans: int) -> None:
    spans_total.labels(result).inc(spans)
