"""Spans on their way to the collector: made on the event loop, batched, encoded and sent in a thread of OpenTelemetry's
SDK, over OTLP/HTTP. Loads the SDK: import it late.

As many spans wait as `MOST_WAITING`; those that come while a collector is slow or gone are counted and dropped.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from pool_server.core.settings import TelemetrySettings
from pool_server.telemetry.spans import SpanFacts
from pool_server.telemetry.trace_context import TraceParent

log = logging.getLogger(__name__)

MOST_WAITING = 2048  # spans
BATCH = 512  # spans sent at once
EVERY_MS = 5000.0  # between two batches that are not full
TIMEOUT_S = 10.0  # of one batch, with the SDK's own repeats
_PATH = "/v1/traces"
_FAILED = Status(StatusCode.ERROR)  # without a description: it would be somebody's message

Count = Callable[[str, int], None]  # what became of so many spans: sent, failed, dropped


class SpanExport:
    """The tracer of this process, which is no other's: nothing global is set."""

    def __init__(self, settings: TelemetrySettings, *, version: str, count: Count) -> None:
        self._sender = _Sender(_address(settings.endpoint), count)
        self._count = count
        self._given = 0
        name = os.environ.get("OTEL_SERVICE_NAME") or "pool-server"
        resource = Resource.create({"service.name": name, "service.version": version})
        sampler = TraceIdRatioBased(settings.ratio)  # the client's flag decides nothing: who pays for traces does
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._sender, max_queue_size=MOST_WAITING, schedule_delay_millis=EVERY_MS, max_export_batch_size=BATCH
            )
        )
        self._tracer = self._provider.get_tracer("pool_server", version)

    def begin(self, facts: SpanFacts, parent: TraceParent | None) -> ExchangeTrace:
        """The exchange's span, within the client's trace if it has one."""
        context = Context()
        if parent is not None:
            within = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(within), context)
        return ExchangeTrace(self._tracer, facts, context, self._end)

    def _end(self, span: Span, at: int) -> None:
        if self._given - self._sender.taken >= MOST_WAITING:
            self._count("dropped", 1)
            return
        self._given += 1
        span.end(at)

    def close(self) -> None:
        """Sends what waits. Blocks, up to half a minute."""
        self._provider.shutdown()

    def abandon(self) -> None:
        """Ends what `close` still tries."""
        self._sender.shutdown()


class ExchangeTrace:
    """The span of one exchange and those within it."""

    def __init__(self, tracer: Tracer, facts: SpanFacts, context: Context, end: Callable[[Span, int], None]) -> None:
        self._tracer = tracer
        self._facts = facts
        self._end = end
        self._span = _started(tracer, facts, context, SpanKind.SERVER)
        told = self._span.get_span_context()
        self.sampled = told.trace_flags.sampled
        self.trace_id = f"{told.trace_id:032x}" if told.trace_id else ""
        self._within = set_span_in_context(self._span, context)

    def child(self, facts: SpanFacts) -> None:
        """One attempt, which has ended."""
        self._end(_started(self._tracer, facts, self._within, SpanKind.CLIENT), facts.end)

    def end(self) -> None:
        self._end(self._span, self._facts.end)


def _started(tracer: Tracer, facts: SpanFacts, context: Context, kind: SpanKind) -> Span:
    span = tracer.start_span(facts.name, context, kind, attributes=facts.attributes, start_time=facts.start)
    if facts.failed:
        span.set_status(_FAILED)
    return span


class _Sender(SpanExporter):
    """The SDK's exporter, with what becomes of the spans counted and an outage told once. `taken`: so many spans have
    left the queue. One thread calls it."""

    def __init__(self, address: str, count: Count) -> None:
        self._exporter: SpanExporter = OTLPSpanExporter(endpoint=address, timeout=TIMEOUT_S, session=_session())
        self._count = count
        self._failing = False
        self._abandoned = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        _WORDS.forget()
        try:
            result = self._exporter.export(spans)
        finally:
            sent = result is SpanExportResult.SUCCESS
            self._count("sent" if sent else "failed", len(spans))
            if self._failing and sent:
                log.info("the collector takes traces again")
            elif not sent and not self._failing and not self._abandoned:
                log.warning("the collector takes no traces (pool_spans_total counts them): %s", _WORDS.last())
            self._failing = not sent
        return result

    def shutdown(self) -> None:
        self._abandoned = True
        self._exporter.shutdown()


def _session() -> requests.Session:
    session = requests.Session()
    session.hooks["response"].append(_refuse_redirect)
    return session


def _refuse_redirect(answer: requests.Response, *_: Any, **__: Any) -> None:
    """The SDK follows none, and would take one for success."""
    if 300 <= answer.status_code < 400:
        answer.close()
        raise requests.TooManyRedirects(f"the collector answered {answer.status_code}")


class _LastWords(logging.Handler):
    """Keeps the SDK's complaints from the log, but for a thread's last: it repeats them with every batch and names
    headers. Stays as long as the process."""

    def __init__(self) -> None:
        super().__init__()
        self._of = threading.local()
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self._of.last = record.getMessage()[:300]

    def forget(self) -> None:
        self._of.last = ""

    def last(self) -> str:
        return str(getattr(self._of, "last", ""))


_WORDS = _LastWords()


def _address(endpoint: str) -> str:
    return endpoint if endpoint.endswith(_PATH) else endpoint + _PATH
