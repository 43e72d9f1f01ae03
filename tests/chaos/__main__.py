"""`python -m tests.chaos` runs named scenarios for ten minutes together, each again and again with other seeds until
its time is over; `… chaos NAME …` runs some, `--minutes N` for longer. A scenario is a selection of tests that start
real servers; a failure prints its seed, which repeats it as POOL_SEED.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import NamedTuple


class Scenario(NamedTuple):
    """What is done to servers, and by which tests. `settings` go into the environment."""

    what: str
    tests: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()


SCENARIOS = {
    "kill": Scenario(
        "kill -9 and SIGTERM under load, one worker and two",
        ("tests/test_restarts.py", "tests/ledger/test_kill.py", "tests/ledger/test_under_way.py"),
        (("POOL_RESTARTS", "4"), ("POOL_KILLS", "12")),
    ),
    "disk": Scenario(
        "full, failing and removed disks, at every step by turns",
        ("tests/failpoints/test_failpoints.py", "tests/ledger/test_disk_full.py", "tests/test_data_folder.py"),
    ),
    "clock": Scenario("steps of the clock, either way", ("tests/accounts/test_clock.py",)),
    "network": Scenario(
        "cut, garbled, dribbling and half-open connections",
        ("tests/gateway/test_bad_input.py", "tests/gateway/test_socket_wire.py", "tests/http1"),
    ),
    "hung-vendor": Scenario(
        "hosts that accept and say nothing", ("tests/gateway/test_silent_hosts.py", "tests/accounts/test_hosts.py")
    ),
    "cluster": Scenario(
        "several machines: each part killed, cut off or forgetful, and the books equal",
        (
            "tests/cluster/test_each_part_killed.py",
            "tests/cluster/test_machine_losses.py",
            "tests/cluster/test_node_reservations.py",
        ),
    ),
    "soak": Scenario("workers that share everything, sums exact after all", ("tests/test_workers.py",)),
}


def run(name: str, seconds: float) -> bool:
    """Whether the scenario held until its time was over; it runs at least once."""
    scenario, rounds = SCENARIOS[name], 0
    deadline = time.monotonic() + seconds
    while not rounds or time.monotonic() < deadline:
        seed = str(int(time.time() * 1000) % 1_000_000)
        environment = {**os.environ, **dict(scenario.settings), "POOL_SEED": seed}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", *scenario.tests]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: FAILED with POOL_SEED={seed}\n{done.stdout[-6000:]}", flush=True)
            return False
        rounds += 1
    print(f"{name}: {scenario.what}: held, {rounds} rounds", flush=True)
    return True


def main() -> int:
    """The number of scenarios that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Named scenarios of faults.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for all scenarios together (10)")
    asked = parser.parse_args()
    names = asked.names or list(SCENARIOS)
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]}; there are {', '.join(SCENARIOS)}")
    return sum(not run(name, 60 * asked.minutes / len(names)) for name in names)


if __name__ == "__main__":
    sys.exit(main())
