"""A fake collector of OpenTelemetry: OTLP over HTTP, as protobuf, and the ways in which one refuses."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.loop_thread import LoopbackApp


class FakeCollector:
    """`async with FakeCollector() as collector`. `spans` are those that came, in their order; `raw` the bodies.
    `status` is what it answers; with `open` cleared it answers nothing."""

    def __init__(self) -> None:
        self.status = 200
        self.open = asyncio.Event()
        self.open.set()
        self.reached = asyncio.Event()
        self.raw: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}
        self._app = LoopbackApp(self._take)

    async def __aenter__(self) -> FakeCollector:
        self.origin = await self._app.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.open.set()
        await self._app.close()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.reached.set()
        await self.open.wait()
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.raw.append(body)
        if self.status == 200:
            self._decode(body)
        return web.Response(status=self.status, content_type="application/x-protobuf")

    def _decode(self, body: bytes) -> None:
        told = ExportTraceServiceRequest()
        told.ParseFromString(body)
        for one in told.resource_spans:
            self.resource = values(one.resource.attributes)
            for scope in one.scope_spans:
                self.spans.extend(scope.spans)


def values(attributes: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""
    return {one.key: _value(one) for one in attributes}


def _value(one: KeyValue) -> Any:
    kind = one.value.WhichOneof("value")
    return getattr(one.value, kind) if kind else None
