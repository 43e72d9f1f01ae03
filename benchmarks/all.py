"""The goals of the data path, each a ratio to the least a proxy in Python costs, in one run; and how they stood before.

`python benchmarks/all.py [--check] [--keep]`. The floor (`benchmarks/floor.py`) moves with the machine as the server
does. `--check` exits 0 where every goal is met and nothing slid, 1 where one is not, 3 where the spread is too wide to
judge by. A slide is a tenth more than in the newest line of `benchmarks/results/history.jsonl` of the same interpreter,
where that could be judged; `--keep` adds a line to it, which says what was measured, on what, under which load.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rich.console import Console
from rich.table import Table

from benchmarks import compare, rig
from benchmarks.compare import MEASURES, WIDE, Ratio, ratio

ROOT = Path(__file__).resolve().parent.parent
HISTORY = Path(__file__).with_name("results") / "history.jsonl"
SLIDE = 1.1  # times the newest line's ratio, beyond which a ratio has slid
# Most a measure may cost, in floors. The floor is 1.4–1.6 nginx on requests, 1.2 on events, 2 and 4.3 on bodies.
GOALS = {"16": 6.0, "1": 2.9, "event": 1.07, "200k": 1.75, "8m": 0.7}


class Line(msgspec.Struct):
    """One run. `us` is the median CPU of the server, `floors` its ratio to the floor, `spread` that ratio's."""

    commit: str
    at: str
    python: str
    load: tuple[float, float]
    us: dict[str, float]
    floors: dict[str, float]
    spread: dict[str, float]


class Judged(NamedTuple):
    """What is said of one measure; `status` is an exit code."""

    words: str
    status: int


def judge(measure: str, found: Ratio, before: float | None) -> Judged:
    """Of a ratio to the floor; `before` is that of the newest line kept."""
    if found.spread > WIDE:
        return Judged("spread too wide", 3)
    if before is not None and found.value > before * SLIDE:
        return Judged(f"slid from {before:.2f}", 1)
    return Judged("met", 0) if found.value <= GOALS[measure] else Judged("not met", 1)


def status(judged: Mapping[str, Judged]) -> int:
    """The worst that can be relied on: a goal that is missed counts, whatever else could not be judged."""
    found = {one.status for one in judged.values()}
    return 1 if 1 in found else max(found)


def newest(history: Path, python: str) -> Line | None:
    """The last line of the same interpreter, None where there is none."""
    lines = history.read_bytes().splitlines() if history.exists() else []
    found = [line for line in (msgspec.json.decode(raw, type=Line) for raw in lines) if line.python == python]
    return found[-1] if found else None


def told(line: Line | None, measure: str) -> float | None:
    """The ratio to compare with: one that could be judged then."""
    if line is None or line.spread.get(measure, 1.0) > WIDE:
        return None
    return line.floors[measure]


def keep(history: Path, line: Line) -> None:
    history.parent.mkdir(exist_ok=True)
    with history.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def build() -> str:
    """The interpreter: one that was built without its optimizations costs a quarter more."""
    program = hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest()[:8]
    return f"{platform.python_version()} {platform.python_compiler()} {program}"


def commit() -> str:
    """This checkout's, with a mark where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def measure(rounds: int, requests: int) -> tuple[str, dict[str, compare.Figures]]:
    """The server's name among the targets, and every target's figures."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pool-benchmark-")))
        found = compare.targets(stack, folder, [ROOT])
        return found[-1].name, compare.measure(found, rounds, requests, GOALS)


def show(figures: dict[str, compare.Figures], name: str, judged: Mapping[str, Judged]) -> None:
    table = Table(title="CPU of the server")
    for column in ("", "µs", "× nginx", "× floor", "spread", "goal × floor", ""):
        table.add_column(column, justify="right")
    for one, goal in GOALS.items():
        values = figures[name][one]
        to_floor = ratio(values, figures["floor"][one])
        to_nginx = f"{ratio(values, figures['nginx'][one]).value:.2f}" if "nginx" in figures else "–"
        cells = (f"{statistics.median(values):.1f}", to_nginx, f"{to_floor.value:.2f}", f"{to_floor.spread:.0%}")
        table.add_row(MEASURES[one], *cells, f"{goal:g}", judged[one].words)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=1500, help="of a round, at 16 connections")
    parser.add_argument("--check", action="store_true", help="exit by what is met")
    parser.add_argument("--keep", action="store_true", help="add a line to the history")
    args = parser.parse_args()
    rig.raise_file_limit()
    load = os.getloadavg()[0]
    name, figures = measure(args.rounds, args.requests)
    ratios = {one: ratio(figures[name][one], figures["floor"][one]) for one in GOALS}
    before = newest(HISTORY, build())
    judged = {one: judge(one, ratios[one], told(before, one)) for one in GOALS}
    show(figures, name, judged)
    loads = round(load, 1), round(os.getloadavg()[0], 1)
    print(f"{commit()} on {build()}, load {loads[0]} to {loads[1]}")
    if args.keep:
        keep(
            HISTORY,
            Line(
                commit(),
                time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
                build(),
                loads,
                {one: round(statistics.median(figures[name][one]), 1) for one in GOALS},
                {one: round(found.value, 3) for one, found in ratios.items()},
                {one: round(found.spread, 3) for one, found in ratios.items()},
            ),
        )
    if args.check:
        sys.exit(status(judged))


if __name__ == "__main__":
    main()
