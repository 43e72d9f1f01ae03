"""For every test: nothing leaves loopback, every skip says why, and where all must run a skip is a failure."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Generator
from typing import Any, TypeVar

import pytest

from pool_server.core.loopback import is_loopback

pytest_plugins = ["pytester"]


Report = TypeVar("Report", pytest.CollectReport, pytest.TestReport)


def _stay_on_loopback(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and args[0].family in (socket.AF_INET, socket.AF_INET6):
        host = str(args[1][0])
        if host != "localhost" and not is_loopback(host):
            raise OSError(errno.ENETUNREACH, f"tests stay on loopback, not {host}")


sys.addaudithook(_stay_on_loopback)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real CLIs and the browser have races of their own: each gets one second chance, and the closing line counts
    those that took it."""
    for item in items:
        if item.get_closest_marker("clis") or item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=1))


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").strip()


def _judge(report: Report) -> Report:
    """A skip needs a reason; with POOL_REQUIRE_ALL=1 it is a failure."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = _reason(report)
        if reason in ("", "Skipped", "unconditional skip"):
            report.outcome, report.longrepr = "failed", "a skip must say why"
        elif os.environ.get("POOL_REQUIRE_ALL") == "1":
            report.outcome, report.longrepr = "failed", f"skipped where everything must run: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judge((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judge((yield))
