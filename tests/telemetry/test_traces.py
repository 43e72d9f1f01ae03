"""Traces over real exchanges and a real collector: what they say, whose they are, and what a dead collector costs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

from pool_server.app import logs
from pool_server.core.settings import TelemetrySettings
from pool_server.telemetry import service, span_export
from tests.fakes import account, faults
from tests.fakes.collector import FakeCollector, values
from tests.gateway.sockets import create, socket
from tests.gateway.stack import Stack
from tests.gateway.test_transcripts import on_a_loop

ASKED = {"model": "claude-opus-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "a secret question"}]}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens there


def stack(folder: Path, endpoint: str, *accounts: str, ratio: float = 1.0, **more: Any) -> Stack:
    known = [account(one) for one in accounts or ("claude:one",)]
    return Stack(folder, known, friend_code="swim", telemetry=TelemetrySettings(endpoint, ratio), **more)


def counted(result: str) -> float:
    return float(service.spans_total.labels(result)._value.get())


async def ask(pool: Stack, key: str, expected: int = 200, **headers: str) -> None:
    status, body = await pool.post("/v1/messages", ASKED, token=key, **headers)
    assert status == expected, body
    await pool.idle()


@on_a_loop
async def test_an_exchange_is_a_span_and_each_attempt_one_within_it(tmp_path: Path) -> None:
    async with FakeCollector() as collector:
        async with stack(tmp_path, collector.origin, "claude:one", "claude:two") as pool:
            key = await pool.key("ada lovelace")
            plays = [faults.server_error(503)]
            pool.fakes.director = lambda account, call: plays.pop() if plays else None
            await ask(pool, key)
            [record] = pool.records()
            port = int(pool.fakes.origin.rpartition(":")[2])
        first, second, exchange = collector.spans
        assert collector.paths == ["/v1/traces"]
        assert collector.resource["service.name"] == "pool-server" and collector.resource["service.version"] == "1.2.3"
        called = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic"}
        called["gen_ai.request.model"] = "claude-opus-4-5"
        server = {"server.address": "127.0.0.1", "server.port": port}
        assert values(exchange.attributes) == called | {
            "gen_ai.response.model": record.answered or record.model,
            "gen_ai.usage.input_tokens": record.usage.prompt,
            "gen_ai.usage.output_tokens": record.usage.output,
            "gen_ai.usage.cache_read.input_tokens": record.usage.cache_read,
            "gen_ai.usage.cache_creation.input_tokens": record.usage.cache_write,
            "http.response.status_code": 200,
            "pool.request.id": record.id,
            "pool.outcome": "ok",
            "pool.attempts": 2,
        }
        assert record.usage.prompt > 0 and record.usage.output > 0
        assert values(first.attributes) == called | server | {
            "http.response.status_code": 503,
            "error.type": record.attempts[0].fault,
        }
        assert values(second.attributes) == called | server | {"http.response.status_code": 200}
        assert [one.status.code for one in (first, second, exchange)] == [
            SpanStatus.STATUS_CODE_ERROR, SpanStatus.STATUS_CODE_UNSET, SpanStatus.STATUS_CODE_UNSET,
        ]  # fmt: skip
        assert {one.name for one in collector.spans} == {"chat claude-opus-4-5"}
        assert [one.kind for one in collector.spans] == [
            Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER,
        ]  # fmt: skip
        assert not exchange.parent_span_id
        assert first.parent_span_id == second.parent_span_id == exchange.span_id
        assert len({one.trace_id for one in collector.spans}) == 1
        times = [exchange.start_time_unix_nano, first.start_time_unix_nano, first.end_time_unix_nano]
        times += [second.start_time_unix_nano, second.end_time_unix_nano]
        assert times == sorted(times) and exchange.end_time_unix_nano >= first.end_time_unix_nano


@on_a_loop
async def test_nothing_of_what_was_said_or_of_who_said_it_leaves(tmp_path: Path) -> None:
    async with FakeCollector() as collector:
        async with stack(tmp_path, collector.origin, "claude:secret-name") as pool:
            key = await pool.key("ada-lovelace")
            user = pool.user(key)
            await ask(pool, key, User_Agent="agent-of-ada/1.0")
            pool.fakes.then("claude:secret-name", faults.claude_invalid("about your secret question"))
            await ask(pool, key, 400)
            told = [pool.records()[-1].message, user, key, user.partition("_")[2] or user]
        assert len(collector.spans) == 4
        raw = b"".join(collector.raw)
        for word in ("secret question", "question", "lovelace", "secret-name", "agent-of-ada", "swim", *told):
            assert word.encode() not in raw, word


@pytest.mark.parametrize("flags", ["00", "01"])
@on_a_loop
async def test_the_clients_trace_is_continued(tmp_path: Path, flags: str) -> None:
    async with FakeCollector() as collector:
        async with stack(tmp_path, collector.origin) as pool:
            await ask(pool, await pool.key(), traceparent=f"00-{TRACE}-{PARENT}-{flags}")
        attempt, exchange = collector.spans
        assert exchange.trace_id.hex() == attempt.trace_id.hex() == TRACE
        assert exchange.parent_span_id.hex() == PARENT
        assert attempt.parent_span_id == exchange.span_id


@on_a_loop
async def test_the_pool_adds_no_trace_to_what_goes_up(tmp_path: Path) -> None:
    async with FakeCollector() as collector, stack(tmp_path, collector.origin) as pool:
        key = await pool.key()
        await ask(pool, key)
        sent = f"00-{TRACE}-{PARENT}-01"
        await ask(pool, key, traceparent=sent)
        up = [
            {name.lower(): value for name, value in call.headers}
            for call in pool.fakes.calls
            if call.path.endswith("/messages")
        ]
        assert "traceparent" not in up[0] and "tracestate" not in up[0]
        assert up[1]["traceparent"] == sent  # as every header of the client's


@pytest.mark.parametrize(
    ("ratio", "trace", "spans"),
    [
        (0.0, TRACE, 0),
        (1.0, TRACE, 2),
        (0.5, "0" * 16 + "7" + "f" * 15, 2),  # the lower half decides, as everywhere in OpenTelemetry
        (0.5, "1" * 16 + "8" + "0" * 14 + "1", 0),
    ],
)
@on_a_loop
async def test_the_ratio_decides_by_the_trace(tmp_path: Path, ratio: float, trace: str, spans: int) -> None:
    async with FakeCollector() as collector:
        trace = "1" + trace[1:]
        async with stack(tmp_path, collector.origin, ratio=ratio) as pool:
            await ask(pool, await pool.key(), traceparent=f"00-{trace}-{PARENT}-01")
        assert len(collector.spans) == spans
        assert bool(collector.raw) == bool(spans)


class _Kept(logging.Handler):
    """What reaches the root logger, as the server's own handlers get it; `caplog` hears silenced loggers, too."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.getMessage()))


@pytest.fixture
def logged() -> Iterator[list[tuple[str, str]]]:
    kept = _Kept()
    logging.getLogger().addHandler(kept)
    yield kept.lines
    logging.getLogger().removeHandler(kept)


@pytest.mark.slow
@pytest.mark.parametrize("status", [403, 400, 302])
@on_a_loop
async def test_a_collector_that_refuses_costs_a_counter_and_one_line(
    tmp_path: Path, status: int, logged: list[tuple[str, str]]
) -> None:
    failed, sent = counted("failed"), counted("sent")
    async with FakeCollector() as collector:
        collector.status = status
        async with stack(tmp_path, collector.origin) as pool:
            key = await pool.key()
            for _ in range(3):
                await ask(pool, key)
        assert len(collector.raw) == 1
    assert counted("failed") == failed + 6 and counted("sent") == sent
    told = [line for name, line in logged if name.startswith(("opentelemetry", "pool_server.telemetry"))]
    assert len(told) == 1 and str(status) in told[0]


@on_a_loop
async def test_a_collector_that_is_not_there_costs_a_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "TIMEOUT_S", 0.2)
    failed = counted("failed")
    async with stack(tmp_path, NOBODY) as pool:
        await ask(pool, await pool.key())
    assert counted("failed") == failed + 2


@on_a_loop
async def test_what_no_slow_collector_takes_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_export, "MOST_WAITING", 4)
    monkeypatch.setattr(span_export, "BATCH", 2)
    monkeypatch.setattr(service, "CLOSE_S", 0.0)
    dropped = counted("dropped")
    async with FakeCollector() as collector:
        collector.open.clear()
        async with stack(tmp_path, collector.origin) as pool:
            key = await pool.key()
            await ask(pool, key)
            await collector.reached.wait()  # two are taken from the queue and never answered for
            for _ in range(4):
                await ask(pool, key)  # all are served: eight spans, four of which may wait
            assert counted("dropped") == dropped + 4
            assert [one.outcome for one in pool.records()] == ["ok"] * 5


@on_a_loop
async def test_headers_for_the_collector_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[tuple[str, str]]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret-of-the-collector,not a header")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our pool")
    async with FakeCollector() as collector:
        async with stack(tmp_path, collector.origin + "/v1/traces") as pool:
            await ask(pool, await pool.key())
        assert collector.headers[0]["api-key"] == "s3cret-of-the-collector"
        assert collector.paths == ["/v1/traces"]
        assert collector.resource["service.name"] == "our pool"
    assert not [line for _, line in logged if "s3cret" in line or "not a header" in line]


@on_a_loop
async def test_a_socket_s_turn_is_traced_too(tmp_path: Path) -> None:
    async with FakeCollector() as collector:
        async with stack(tmp_path, collector.origin, "codex:one") as pool:
            async with socket(pool, Authorization=f"Bearer {await pool.key()}") as talk:
                await talk.turn(create())
            await pool.idle()
        attempt, exchange = collector.spans
        assert values(exchange.attributes)["gen_ai.provider.name"] == "openai"
        assert "server.address" not in values(attempt.attributes)  # its connection may be older than the exchange


@on_a_loop
async def test_the_line_in_json_names_the_trace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeCollector() as collector, stack(tmp_path, collector.origin, ratio=0.0) as pool:
        pool.ledger.on_record.append(logs.exchange)
        with caplog.at_level(logging.DEBUG, "pool_server.exchanges"):
            await ask(pool, await pool.key(), traceparent=f"00-{TRACE}-{PARENT}-01")
        [record] = [one for one in caplog.records if one.name == "pool_server.exchanges"]
        told = json.loads(logs.JsonLines().format(record))
        assert (told["request_id"], told["trace_id"]) == (pool.records()[0].id, TRACE)


@on_a_loop
async def test_off_it_gives_no_trace_and_no_name_to_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Stack(tmp_path, [account("claude:one")], friend_code="swim") as pool:
        pool.ledger.on_record.append(logs.exchange)
        with caplog.at_level(logging.DEBUG, "pool_server.exchanges"):
            await ask(pool, await pool.key(), traceparent=f"00-{TRACE}-{PARENT}-01")
        [record] = [one for one in caplog.records if one.name == "pool_server.exchanges"]
        assert "trace_id" not in json.loads(logs.JsonLines().format(record))


@on_a_loop
async def test_a_trace_that_cannot_be_made_costs_no_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(span_export, "exchange_span", broken)
    async with FakeCollector() as collector, stack(tmp_path, collector.origin) as pool:
        key = await pool.key()
        await ask(pool, key)
        await ask(pool, key)
        assert [one.outcome for one in pool.records()] == ["ok", "ok"]
    assert caplog.text.count("told once") == 1


def test_without_the_extra_the_server_starts_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pool_server.telemetry.span_export", None)
    asyncio.run(service.Telemetry(TelemetrySettings(NOBODY), version="1").start())
    assert "pool-server[otel]" in caplog.text
