"""A new server that does not serve is judged without anybody waiting for it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pool_server.app import budgets
from pool_server.app.lifecycle.successor import VARIABLE, Successor
from tests.process import until

PIPE = f"import json, os, sys; pipe = json.loads(os.environ[{VARIABLE!r}])['ready']; "
Start = Callable[[str], Successor]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a successor that runs this code instead of a server's."""
    begun: list[Successor] = []
    with socket.socket() as lock:

        def begin(code: str) -> Successor:
            monkeypatch.setattr(sys, "orig_argv", ["python", "-c", PIPE + code])
            begun.append(Successor(lock.fileno(), [], "127.0.0.1:0"))
            return begun[-1]

        yield begin
        for one in begun:
            one.give_up("")
            one.close()


@contextmanager
def many_descriptors() -> Iterator[None]:
    """What is opened in the block gets a number that select() cannot take."""
    budgets.raise_descriptor_limit()
    held = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while held[-1] < 1024:
            held.append(os.dup(held[-1]))
        yield
    finally:
        for one in held:
            os.close(one)


def test_one_that_serves(start: Start) -> None:
    one = start("os.write(pipe, b'1'); sys.stdin.read()")
    assert until(lambda: one.judge() == "", "it serves") and not one.failed


def test_one_that_is_told_over_a_high_descriptor(start: Start) -> None:
    with many_descriptors():
        one = start("os.write(pipe, b'1')")
    assert one.fileno() >= 1024
    until(lambda: one.judge() == "", "it serves")


@pytest.mark.parametrize("code", [0, 1, 78])
def test_one_that_ends(start: Start, code: int) -> None:
    one = start(f"sys.exit({code})")
    assert f"ended with {code}" in str(until(one.judge, "it has ended"))


def test_one_that_fails_and_goes_on_is_not_waited_for(start: Start) -> None:
    one = start("os.close(pipe); import threading; threading.Event().wait()")
    until(lambda: one.judge() is None and one.failed, "its pipe has ended")
    assert [one.judge() for _ in range(3)] == [None] * 3
    assert one.deadline < time.monotonic() + 60, "it has less time than one that starts"
    one.deadline = time.monotonic()
    assert one.judge() == "it neither serves nor ends"
    assert not os.path.exists(f"/proc/{one.pid}/exe"), "it was ended"


def test_one_that_says_nothing_has_its_time(start: Start) -> None:
    one = start("import threading; threading.Event().wait()")
    assert one.judge() is None and not one.failed
    one.deadline = time.monotonic()
    assert one.judge() == "it did not serve in time"
