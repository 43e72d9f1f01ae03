"""Exchanges on their way to the collector: noted on the event loop; spans are made, encoded and sent in a thread,
over OTLP/HTTP by OpenTelemetry's SDK. Loads the SDK: import it late.

As many spans wait as `MOST_WAITING`; those that come while a collector is slow or gone are counted and dropped.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from pool_server.core.models import UsageRecord
from pool_server.core.settings import TelemetrySettings
from pool_server.telemetry.spans import SpanFacts, attempt_spans, exchange_span
from pool_server.telemetry.trace_context import TraceParent

log = logging.getLogger(__name__)

MOST_WAITING = 2048  # spans
BATCH = 512  # spans sent at once
EVERY_S = 5.0  # between two batches that are not full
TIMEOUT_S = 10.0  # of one batch, with the SDK's own repeats
_PATH = "/v1/traces"
_FAILED = Status(StatusCode.ERROR)  # without a description: it would be somebody's message
_DONE = Status(StatusCode.UNSET)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

Count = Callable[[str, int], None]  # what became of so many spans: sent, failed, dropped


class EndedExchange(NamedTuple):
    """What spans are made of. See `exchange_span` and `attempt_spans`."""

    record: UsageRecord
    asked: str
    answered: str
    urls: Sequence[str]
    trace_id: int
    parent: TraceParent | None

    @property
    def spans(self) -> int:
        return 1 + len(self.record.attempts)


class SpanExport:
    """The traces of this process, which are no other's: nothing global is set."""

    def __init__(self, settings: TelemetrySettings, *, version: str, count: Count) -> None:
        self._sender = _Sender(_address(settings.endpoint), count)
        self._count = count
        self._given = 0
        self._taken = 0  # of the spans given, those that have left the queue; the thread's
        self._broken = False
        name = os.environ.get("OTEL_SERVICE_NAME") or "pool-server"
        self._resource = Resource.create({"service.name": name, "service.version": version})
        self._scope = InstrumentationScope("pool_server", version)
        # The client's flag decides nothing: who pays for traces does.
        self._bound = TraceIdRatioBased.get_bound_for_rate(settings.ratio)
        self._queue: queue.SimpleQueue[EndedExchange | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def ended(
        self, record: UsageRecord, asked: str, answered: str, urls: Sequence[str], parent: TraceParent | None
    ) -> str:
        """Note an exchange within its client's trace, if it has one → the trace's id. Costs microseconds."""
        trace_id = random.getrandbits(128) or 1 if parent is None else parent.trace_id
        if trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound:
            exchange = EndedExchange(record, asked, answered, urls, trace_id, parent)
            if self._given - self._taken + exchange.spans > MOST_WAITING:
                self._count("dropped", exchange.spans)
            else:
                self._given += exchange.spans
                self._queue.put(exchange)
        return f"{trace_id:032x}"

    def close(self) -> None:
        """Sends what waits. Blocks, up to half a minute."""
        self._queue.put(None)
        self._thread.join()
        self._sender.shutdown()

    def abandon(self) -> None:
        """Ends what `close` still tries."""
        self._sender.shutdown()

    # -- in the thread

    def _run(self) -> None:
        batch: list[ReadableSpan] = []
        due = 0.0  # monotonic seconds; of the batch that is gathered
        while True:
            try:
                exchange = self._queue.get(timeout=max(0.0, due - time.monotonic()) if batch else None)
            except queue.Empty:
                self._send(batch)
                continue
            if exchange is None:
                self._send(batch)
                return
            self._taken += exchange.spans
            due = due if batch else time.monotonic() + EVERY_S
            batch += self._made(exchange)
            if len(batch) >= BATCH:
                self._send(batch)

    def _send(self, batch: list[ReadableSpan]) -> None:
        if batch:
            self._sender.export(tuple(batch))
            batch.clear()

    def _made(self, exchange: EndedExchange) -> list[ReadableSpan]:
        """The attempts' spans and the exchange's own; a trace is not worth the others."""
        try:
            return list(self._spans(exchange))
        except Exception:
            if not self._broken:
                log.exception("an exchange has no trace; this is told once")
            self._broken = True
            self._count("failed", exchange.spans)
            return []

    def _spans(self, exchange: EndedExchange) -> Iterator[ReadableSpan]:
        record, asked, parent = exchange.record, exchange.asked, exchange.parent
        here = _context(exchange.trace_id)
        above = None if parent is None else SpanContext(parent.trace_id, parent.span_id, True, _SAMPLED)
        for facts in attempt_spans(record, asked, exchange.urls):
            yield self._span(facts, _context(exchange.trace_id), here, SpanKind.CLIENT)
        yield self._span(exchange_span(record, asked, exchange.answered), here, above, SpanKind.SERVER)

    def _span(self, facts: SpanFacts, context: SpanContext, parent: SpanContext | None, kind: SpanKind) -> ReadableSpan:
        return ReadableSpan(
            facts.name, context, parent, self._resource, facts.attributes, kind=kind,
            instrumentation_scope=self._scope, status=_FAILED if facts.failed else _DONE,
            start_time=facts.start, end_time=facts.end,
        )  # fmt: skip


def _context(trace_id: int) -> SpanContext:
    return SpanContext(trace_id, random.getrandbits(64) or 1, False, _SAMPLED)


class _Sender(SpanExporter):
    """The SDK's exporter, with what becomes of the spans counted and an outage told once. One thread calls it."""

    def __init__(self, address: str, count: Count) -> None:
        self._exporter: SpanExporter = OTLPSpanExporter(endpoint=address, timeout=TIMEOUT_S, session=_session())
        self._count = count
        self._failing = False
        self._abandoned = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        _WORDS.forget()
        try:
            result = self._exporter.export(spans)
        except Exception as exc:
            _WORDS.say(type(exc).__name__)
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

    def say(self, words: str) -> None:
        self._of.last = words

    def last(self) -> str:
        return str(getattr(self._of, "last", ""))


_WORDS = _LastWords()


def _address(endpoint: str) -> str:
    return endpoint if endpoint.endswith(_PATH) else endpoint + _PATH
