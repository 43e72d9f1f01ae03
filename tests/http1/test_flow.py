"""Flow control and heads, each by itself."""

from __future__ import annotations

from pool_server.http1.flow import FlowControl
from pool_server.http1.request import Headers
from tests.http1.wire import Transport, run


def test_nothing_is_written_or_read_without_a_transport() -> None:
    flow = FlowControl()
    flow.pause_reading()
    flow.resume_reading()
    assert flow.write(b"x") is None
    transport = flow.transport = Transport()
    assert flow.write(b"y") is None
    assert (transport.sent, transport.paused) == (b"y", False)


def test_reading_is_paused_once_and_resumed_once() -> None:
    flow = FlowControl()
    transport = flow.transport = Transport()
    flow.resume_reading()
    flow.pause_reading()
    flow.pause_reading()
    assert transport.paused
    flow.resume_reading()
    flow.resume_reading()
    assert not transport.paused


def test_all_who_wait_for_the_other_side_go_on_together() -> None:
    async def test() -> None:
        flow = FlowControl()
        flow.transport = Transport()
        flow.resume_writing()
        flow.pause_writing()
        first, second = flow.write(b"a"), flow.write(b"b")
        assert first is not None
        assert second is not None
        first.cancel()
        flow.resume_writing()
        await second
        assert flow.write(b"c") is None

    run(test)


def test_headers_are_a_mapping_by_name_in_any_case() -> None:
    headers = Headers([])
    headers.add(b"X-A", b"1 ")
    headers.add(b"x-a", b"\xe9")
    headers.add(b"Y" * 100, b"")
    assert (headers["X-a"], headers.get("nothing", 5), len(headers)) == ("1,é", 5, 2)
    assert dict(headers) == {"x-a": "1,é", "y" * 100: ""}
    assert headers.pairs[0] == ("X-A", "1")
