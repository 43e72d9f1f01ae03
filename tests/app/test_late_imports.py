"""A start loads what it needs to answer; the rest comes once the server listens."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
from itertools import pairwise

import pytest

from pool_server.app.lifecycle import late_imports

WORKER = "import pool_server.cli.serve, pool_server.app.lifecycle.worker"


@functools.cache
def loaded(code: str) -> set[str]:
    """The modules a new process has after `code`."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return set(json.loads(told.stdout))


@pytest.mark.slow
def test_a_start_loads_nothing_that_only_some_requests_need() -> None:
    dear = {
        "aiohttp",
        "yarl",
        "jwt",
        "cryptography",
        "rich",
        "watchfiles",
        "tornado",
        "pool_server.web.routes",
        "asyncpg",
        "opentelemetry",
        "pool_server.telemetry.span_export",
        "pool_server.cluster",
        "pool_server.storage.postgres",
    }
    assert not loaded(WORKER) & dear


@pytest.mark.slow
def test_each_late_module_is_still_to_be_loaded_at_a_start_and_is_loaded_then() -> None:
    after = loaded(
        f"{WORKER}\nimport asyncio\nfrom pool_server.app.lifecycle.late_imports import load\nasyncio.run(load())"
    )
    assert not loaded(WORKER) & set(late_imports.LATE)
    assert after > set(late_imports.LATE)


def test_the_loop_goes_on_between_two_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(late_imports, "PAUSE_S", 0.0)
    monkeypatch.setattr(late_imports, "import_module", order.append)

    async def run() -> None:
        task = asyncio.create_task(late_imports.load())
        while not task.done():
            await asyncio.sleep(0)
            order.append("a turn")

    asyncio.run(run())
    places = [order.index(name) for name in late_imports.LATE]
    assert all("a turn" in order[first:second] for first, second in pairwise(places))
