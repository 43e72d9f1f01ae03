"""What a start costs, from the command to the first answer of the data plane.

`python benchmarks/start.py CHECKOUT [CHECKOUT …] [--accounts 10] [--rounds 5]`. Each checkout is served by this
checkout's Python, in turns, in a data folder that was there before. CPU is the process's own; "floor" is the start of
`benchmarks/floor.py`, the least a proxy in Python needs to listen.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from rich.console import Console
from rich.table import Table

from benchmarks import proxy, rig
from benchmarks.compare import ratio


def start(command: list[str], port: int, log: Path, path: str = "") -> float:
    """Milliseconds of CPU until a request for `path` is answered; "" = until a connection is taken."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        rig.wait_for(port, child, log)
        if path:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60).close()
            except urllib.error.HTTPError:
                pass  # 401: an answer all the same
        return rig.exact_cpu(child.pid) * 1000
    finally:
        child.terminate()
        child.wait(60)


def measure(folder: Path, checkouts: list[Path], accounts: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds by name, round by round."""
    commands: dict[str, tuple[list[str], int, str]] = {}
    port = rig.free_port()
    commands["floor"] = [sys.executable, str(Path(__file__).with_name("floor.py")), str(port), "9"], port, ""
    for number, checkout in enumerate(checkouts):
        home = folder / str(number)
        home.mkdir()
        port = rig.free_port()
        config = proxy.pool_config(home, port, 9, accounts)
        command = ["env", f"PYTHONPATH={checkout}", sys.executable, "-P", "-m", "pool_server", "serve"]
        commands[f"{number}: {checkout.name}"] = [*command, "--config", str(config)], port, "/v1/models"
    log = folder / "log"
    for command, port, path in commands.values():  # the first makes folders and bytecode
        start(command, port, log, path)
    figures: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in list(commands) if number % 2 == 0 else reversed(commands):
            figures[name].append(start(*commands[name][:2], log, commands[name][2]))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=lambda text: Path(text).resolve())
    parser.add_argument("--accounts", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pool-benchmark-") as folder:
        figures = measure(Path(folder), args.checkouts, args.accounts, args.rounds)
    first = next(name for name in figures if name != "floor")
    table = Table(title=f"start with {args.accounts} accounts: ms of CPU")
    for column in ("", "median", "least", f"× {first}", "× floor", "spread"):
        table.add_column(column, justify="right")
    for name, values in figures.items():
        to_first, to_floor = ratio(values, figures[first]), ratio(values, figures["floor"])
        table.add_row(
            name, f"{statistics.median(values):.0f}", f"{min(values):.0f}", f"{to_first.value:.2f}",
            f"{to_floor.value:.1f}", f"{to_first.spread:.0%}",
        )  # fmt: skip
    Console().print(table)
    print(f"load {os.getloadavg()[0]:.1f}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
