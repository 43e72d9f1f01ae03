"""What a request and an event cost in several checkouts, beside nginx and the least a proxy in Python costs.

`python benchmarks/compare.py BEFORE [AFTER …] [--check 1.03]`. Each argument is a checkout (`git worktree add`), served
by this checkout's Python. All servers run at once on one core and are measured in turns, forwards and backwards, so
that what else the machine does meets all of them; CPU is each process's own, from the scheduler. A ratio is the median
of the ratios within a round; its spread is that of the middle half of them. With `--check` the ratio of the last
checkout to the first decides the exit: 0 within it, 1 beyond, 3 where the spread is too wide to judge.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rich.console import Console
from rich.table import Table

from benchmarks import proxy, rig

WIDE = 0.12  # a spread beyond which a ratio says nothing
MEASURES = {
    "16": "request, 16 connections", "1": "request, 1 connection", "event": "streamed event",
    "200k": "body of 200 KB", "8m": "body of 8 MiB",
}  # fmt: skip
Figures = dict[str, list[float]]  # measure → µs of CPU, round by round


class Load(NamedTuple):
    """Requests of one size over some connections; `share` of the asked number of requests."""

    connections: int
    share: float
    size: int = 2048


_LOADS = {"16": Load(16, 1), "1": Load(1, 1 / 4), "200k": Load(4, 1 / 10, 200_000), "8m": Load(2, 1 / 150, 8 << 20)}


class Target(NamedTuple):
    """A server that is measured."""

    name: str
    pid: int
    port: int
    token: str


class Ratio(NamedTuple):
    """How a target's cost stands to another's: the median of the rounds, and how far apart their middle half lies."""

    value: float
    spread: float


def ratio(of: list[float], to: list[float]) -> Ratio:
    """Of figures taken round by round."""
    rounds = [a / b for a, b in zip(of, to, strict=True)]
    low, middle, high = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    return Ratio(middle, (high - low) / middle)


def verdict(found: Ratio, most: float) -> int:
    """The exit status of `--check`."""
    if found.spread > WIDE:
        return 3
    return 1 if found.value > most else 0


def cost(target: Target, measure: str, requests: int) -> float:
    """Microseconds of CPU."""
    if measure == "event":
        before = rig.exact_cpu(target.pid)
        asyncio.run(proxy.streams(target.port, target.token, 1, 1))
        short = rig.exact_cpu(target.pid) - before
        before = rig.exact_cpu(target.pid)
        asyncio.run(proxy.streams(target.port, target.token, 1, proxy.EVENTS + 1))
        return (rig.exact_cpu(target.pid) - before - short) / (proxy.STREAMS * proxy.EVENTS) * 1e6
    connections, share, size = _LOADS[measure]
    count = max(1, int(requests * share) // connections) * connections
    before = rig.exact_cpu(target.pid)
    asyncio.run(proxy.small_requests(target.port, target.token, count, connections, size=size))
    return (rig.exact_cpu(target.pid) - before) / count * 1e6


def targets(stack: contextlib.ExitStack, folder: Path, checkouts: list[Path]) -> list[Target]:
    """Starts everything that is measured."""
    here, upstream = Path(__file__).parent, rig.free_port()
    command = [sys.executable, str(here / "upstream.py"), str(upstream)]
    stack.enter_context(rig.process(command, core=1, port=upstream, log=folder / "upstream.log"))
    found: list[Target] = []

    def start(name: str, command: list[str], port: int) -> int:
        pid = stack.enter_context(rig.process(command, core=0, port=port, log=folder / f"{name}.log"))
        found.append(Target(name, pid, port, "x"))
        return pid

    port = rig.free_port()
    if shutil.which("nginx"):
        config = proxy.nginx_config(folder, port, upstream)
        start("nginx", ["nginx", "-p", str(folder), "-c", str(config)], port)
    port = rig.free_port()
    start("floor", [sys.executable, str(here / "floor.py"), str(port), str(upstream)], port)
    for number, checkout in enumerate(checkouts):
        home = folder / str(number)
        home.mkdir()
        port = rig.free_port()
        config = proxy.pool_config(home, port, upstream, 3)
        command = ["env", f"PYTHONPATH={checkout}", sys.executable, "-P", "-m", "pool_server", "serve"]
        start(f"{number}: {checkout.name}", [*command, "--config", str(config)], port)
        found[-1] = found[-1]._replace(token=proxy.make_key(port))
    return found


def measure(found: list[Target], rounds: int, requests: int, measures: Collection[str]) -> dict[str, Figures]:
    """By target's name."""
    figures: dict[str, Figures] = {target.name: {one: [] for one in measures} for target in found}
    for target in found:
        asyncio.run(proxy.small_requests(target.port, target.token, 800, 16))
    for number in range(rounds):
        for target in found if number % 2 == 0 else reversed(found):
            for one in measures:
                figures[target.name][one].append(cost(target, one, requests))
    return figures


def show(figures: dict[str, Figures], first: str) -> None:
    for one in figures[first]:
        table = Table(title=f"{MEASURES[one]}: µs of CPU")
        others = [name for name in ("nginx", "floor") if name in figures]
        for column in ("", "median", "least", *(f"× {name}" for name in (first, *others)), "spread"):
            table.add_column(column, justify="right")
        for name, rows in figures.items():
            values = rows[one]
            ratios = [ratio(values, figures[to][one]) for to in (first, *others)]
            shown = (f"{found.value:.3g}" for found in ratios)
            table.add_row(
                name, f"{statistics.median(values):.1f}", f"{min(values):.1f}", *shown, f"{ratios[0].spread:.0%}"
            )
        Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "checkouts", nargs="+", type=lambda text: Path(text).resolve(), help="the first is compared with"
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=1500, help="of a round, at 16 connections")
    parser.add_argument("--measures", nargs="+", choices=list(MEASURES), default=["16", "1", "event"])
    parser.add_argument("--check", type=float, metavar="RATIO", help="most a request at 16 connections may cost")
    args = parser.parse_args()
    rig.raise_file_limit()
    print("load before:", *(f"{load:.1f}" for load in os.getloadavg()))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pool-benchmark-")))
        found = targets(stack, folder, args.checkouts)
        figures = measure(found, args.rounds, args.requests, dict.fromkeys([*args.measures, "16"]))
    names = [target.name for target in found if target.name not in ("nginx", "floor")]
    show(figures, names[0])
    print("load after:", *(f"{load:.1f}" for load in os.getloadavg()))
    if args.check is not None:
        against = ratio(figures[names[-1]]["16"], figures[names[0]]["16"])
        status = verdict(against, args.check)
        words = {0: "within", 1: "beyond", 3: "too wide a spread to judge by"}[status]
        print(f"{names[-1]} is {against.value:.3f} × {names[0]} (spread {against.spread:.0%}): {words} {args.check}")
        sys.exit(status)


if __name__ == "__main__":
    main()
