"""The scanner: events are the same however the bytes were cut, and its work is linear."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.dialects.wire.sse import EVENT_CAP, HEAD, Scanner, data_of


class Listener:
    """Collects events; wants them all, but those whose data begins with `skip`."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.heads: list[bytes] = []

    def event(self, event: bytes) -> int:
        self.events.append(event)
        return 1

    def wanted(self, head: bytes) -> bool:
        return not head.startswith(b"data: skip")

    def passed_over(self, head: bytes) -> int:
        self.heads.append(head)
        return 2


def scan(data: bytes, size: int) -> tuple[Listener, Scanner]:
    listener = Listener()
    scanner = Scanner(listener)
    for at in range(0, len(data), size):
        scanner.feed(data[at : at + size])
    return listener, scanner


line = st.text(alphabet='ab:" ', max_size=12).map(str.encode)
event = st.lists(line.map(lambda text: b"data: " + text), min_size=1, max_size=3)
streams = st.lists(st.tuples(event, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.integers(0, 2)), max_size=5)


@given(streams, st.integers(1, 40))
def test_events_do_not_depend_on_how_the_bytes_were_cut(
    stream: list[tuple[list[bytes], bytes, int]], size: int
) -> None:
    data = b"".join(end.join(lines) + end * (2 + more) for lines, end, more in stream)
    whole, _ = scan(data, max(1, len(data)))
    cut, scanner = scan(data, size)
    assert [data_of(e) for e in cut.events] == [data_of(e) for e in whole.events]
    assert [data_of(e) for e in whole.events] == [
        b"\n".join(part[5:].strip(b" ") for part in lines) for lines, _, _ in stream
    ]
    assert scanner.at_boundary


def test_a_boundary_is_where_a_keepalive_may_stand() -> None:
    scanner = Scanner(Listener())
    states = []
    for chunk in (b"data: 1\n", b"\n", b"\n", b"\r\n", b"data: 2", b"\r\n\r", b"\n", b": note\n\n"):
        scanner.feed(chunk)
        states.append(scanner.at_boundary)
    assert states == [False, True, True, True, False, False, True, True]


def test_lines_that_end_with_cr_alone_are_lines() -> None:
    scanner = Scanner(listener := Listener())
    states = []
    for chunk in (b"data: 1\r\r", b"data: 2\r", b"\r", b"\r", b"id: 3\rdata: 3\r\rdata: 4"):
        scanner.feed(chunk)
        states.append(scanner.at_boundary)
    assert states == [True, False, True, True, False]
    scanner.finish()
    assert [data_of(e) for e in listener.events] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_a_byte_order_mark_may_stand_before_the_first_line(size: int) -> None:
    listener, scanner = scan("\ufeffdata: 1\n\ndata: \ufeff2\n\n".encode(), size)
    assert [data_of(e) for e in listener.events] == [b"1", "\ufeff2".encode()] and scanner.at_boundary


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("start", ["\n", "\n\n\n", "\n\ufeff", "\r\n"])
def test_blank_lines_before_an_event_are_no_part_of_it(start: str, size: int) -> None:
    listener, scanner = scan(f"{start}data: 1\n\n\ndata: 2\n\n".encode(), size)
    assert listener.events == [(start.strip() + "data: 1").encode(), b"data: 2"] and scanner.at_boundary


def test_several_data_lines_are_one_datum() -> None:
    assert data_of(b'event: x\ndata: {"a":\ndata: 1}\nid: 7') == b'{"a":\n1}'
    assert data_of(b"data:{}\r") == b"{}"
    assert data_of(b": comment") == b""


@pytest.mark.parametrize("size", [1, 5, 1000, 65536])
def test_an_unwanted_event_is_passed_over_and_the_next_is_read(size: int) -> None:
    data = b"data: a\n\ndata: skip " + b"x" * 5000 + b"\r\n\r\ndata: b\n\n"
    listener, scanner = scan(data, size)
    read = [e for e in listener.events if not e.startswith(b"data: skip")]
    assert read == [b"data: a", b"data: b"]
    assert scanner.at_boundary
    # In one piece the event is finished before it needs to be kept; cut up it is told once, by its head.
    assert [h[:10] for h in listener.heads] == ([b"data: skip"] if size < 5000 else [])


def test_an_event_beyond_the_cap_is_passed_over() -> None:
    listener = Listener()
    scanner = Scanner(listener, cap=10 * HEAD)
    found = [scanner.feed(b"data: " + b"y" * HEAD)]
    found += [scanner.feed(b"y" * HEAD) for _ in range(12)]
    assert found.count(2) == 1 and not scanner.at_boundary
    assert scanner.feed(b"\n\ndata: z\n\n") == 1
    assert listener.events == [b"data: z"]


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"data: skip", b"data: want"])
def test_a_64_mib_event_costs_linear_time_and_bounded_memory(start: bytes) -> None:
    listener = Listener()
    scanner = Scanner(listener)
    chunk = b"x" * 65536
    scanner.feed(start)
    began = time.thread_time()
    for _ in range(1024):
        scanner.feed(chunk)
        assert len(scanner._buffer) <= EVENT_CAP + len(chunk)
    scanner.feed(b"\n\ndata: end\n\n")
    assert listener.events == [b"data: end"]
    assert len(listener.heads) == 1
    # Copying 64 MiB takes about 20 ms; a scanner that re-reads its buffer takes minutes.
    assert time.thread_time() - began < 5


def test_an_event_without_its_blank_line_is_read_at_the_end() -> None:
    listener = Listener()
    scanner = Scanner(listener)
    scanner.feed(b"data: a\n\ndata: b\n")
    assert scanner.finish() == 1
    assert listener.events == [b"data: a", b"data: b"]
    assert Scanner(listener).finish() == 0
