"""For every test: nothing leaves loopback, every skip says why, and where all must run a skip is a failure."""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from pool_server.core.loopback import is_loopback

pytest_plugins = ["pytester"]


Report = TypeVar("Report", pytest.CollectReport, pytest.TestReport)


def _stay_on_loopback(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and args[0].family in (socket.AF_INET, socket.AF_INET6):
        host = str(args[1][0])
        if host != "localhost" and not is_loopback(host):
            raise OSError(errno.ENETUNREACH, f"tests stay on loopback, not {host}")


sys.addaudithook(_stay_on_loopback)


# Processes that are started, killed and filled, wide fuzz, tens of MiB: what `scripts/test` leaves to `--all`.
SLOW = frozenset({
    "accounts/test_escrow.py", "accounts/test_files.py", "accounts/test_folder.py",
    "simulation/test_bound.py", "simulation/test_properties.py", "simulation/test_standard_week.py",
    "accounts/test_week.py", "app/test_budgets.py", "cli/test_account.py", "cli/test_backup.py",
    "cli/test_doctor.py", "cli/test_fsck.py", "cli/test_run.py", "cli/test_user.py", "demo/test_stage.py",
    "dialects/test_encoding.py",
    "dialects/translation/test_grammar.py", "dialects/translation/test_parts.py",
    "dialects/translation/test_requests.py", "failpoints/test_failpoints.py", "gateway/test_decoding.py",
    "gateway/test_sdks.py", "gateway/test_socket_wire.py", "ledger/test_disk_full.py", "ledger/test_kill.py",
    "ledger/test_under_way.py", "storage/test_backup.py", "storage/test_short_file.py", "test_cycles.py",
    "test_data_folder.py", "test_front.py", "test_orphans.py", "test_restarts.py", "test_sentinels.py",
    "test_server.py", "test_strangers.py", "test_upgrade.py", "test_workers.py", "web/test_setup.py",
    "fuzz/test_targets.py", "gateway/test_sandbox.py", "simulated/test_limits_simulated.py",
    "failpoints/test_old_faults.py", "failpoints/test_read_only.py", "simulated/test_selection_simulated.py",
    "simulated/test_store_simulated.py", "test_serving_tls.py", "web/test_foreign_ids.py",
    "app/test_terms_processes.py", "cluster/test_one_rule.py", "gateway/test_clouds.py", "web/test_account_mishaps.py",
    "web/test_api_fuzz.py", "cli/test_replay_cli.py", "transcripts/test_mirror.py",
})  # fmt: skip
DATABASES = frozenset({"template", "empty", "own"})  # fixtures of tests/cluster that start a database server
HERE = Path(__file__).parent

# A busy machine is slow at random: neither an example's time nor that of its making is judged.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("patient"), max_examples=20)  # of `scripts/test`
settings.load_profile("patient")


gc.disable()  # until everything is collected: there is nothing to find among modules and tests


def pytest_collection_finish() -> None:
    """What is collected is frozen: a million objects would be gone through again and again. What tests leave is looked
    through at every 20,000th object, not at every 700th, which took 7 % of their processor time."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


def _starts_database(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and not DATABASES.isdisjoint(item.fixturenames)


def _is_slow(path: Path) -> bool:
    return path.is_relative_to(HERE) and path.relative_to(HERE).as_posix() in SLOW


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The quick tests need not even import what is slow: collecting it in every worker cost more than most of them."""
    return True if "not slow" in config.option.markexpr and _is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real CLIs have races of their own: each test of one gets a second chance, and the closing line counts those
    that took it."""
    for item in items:
        if item.get_closest_marker("clis"):
            item.add_marker(pytest.mark.flaky(reruns=1))
        if _is_slow(item.path) or _starts_database(item):
            item.add_marker(pytest.mark.slow)


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
