"""Fake providers for tests: real HTTP servers on loopback, scripted per account, every request recorded.

one, two = account("claude:one", used_5h=10), account("claude:two", used_5h=50)
async with FakeProviders([one, two]) as fakes:
    settings = fake_settings(tmp_path, fakes)
    fakes.then("claude:one", faults.claude_overloaded(), plays.ok(Usage(input=7, output=3, known=True)))
    …
    assert [call.account for call in fakes.made()] == ["claude:one", "claude:two"]
"""

from pool_server.demo.fake_account import DAY, FIVE_HOURS, WEEK, FakeAccount, Window
from pool_server.demo.fake_upstream import Call
from pool_server.demo.surfaces import Surface
from tests.fakes import faults, plays
from tests.fakes.plays import Gate, Play
from tests.fakes.pool import account, fake_settings, key_account, write_pool
from tests.fakes.server import FakeProviders

__all__ = [
    "DAY",
    "FIVE_HOURS",
    "WEEK",
    "Call",
    "FakeAccount",
    "FakeProviders",
    "Gate",
    "Play",
    "Surface",
    "Window",
    "account",
    "fake_settings",
    "faults",
    "key_account",
    "plays",
    "write_pool",
]
