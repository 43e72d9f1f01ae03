"""What is lost when the machine is gone: `python -m benchmarks.point_in_time`.

A ledger takes usage records, its changes go to another place, and its process is killed at a random moment. The copy
and what that place holds are put together in a new folder. Lost is what was said to be durable and is not there: the
figure is the age, at the kill, of the oldest such record. `--place` may name a bucket (`AWS_…` in the environment).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ledger import Source
from pool_server.app.backup_schedule import change_log, open_log_place
from pool_server.app.server import open_durable
from pool_server.core.settings import Backup, Settings
from pool_server.ledger import Ledger
from pool_server.storage.backup import backup, restore
from pool_server.storage.change_log.roll_forward import RolledForward, roll_forward

COPY = "copy.tar.zst"


def settings(place: str) -> Backup:
    return Backup(folder=place, mirror=place, point_in_time=True)


async def record(folder: Path, place: str, rate: float) -> None:
    """Record without an end; say of each record when it was durable."""
    store = open_durable(folder / "data")
    store.keep_log(True)
    ledger, source = Ledger(store, Settings(), write_ahead=True), Source()
    await ledger.start(leader=False)
    shipper = change_log(settings(place), store)
    assert shipper is not None
    await shipper.start()
    await asyncio.to_thread(backup, {"ledger": store}, folder / "data", folder / COPY, now=time.time())
    number, began = 0, time.monotonic()
    while True:
        while number < (time.monotonic() - began) * rate:
            made = source.one(number, time.time())
            ledger.record(made).add_done_callback(lambda _, ident=made.id: print(ident, time.time(), flush=True))  # type: ignore[misc]
            number += 1
        await asyncio.sleep(0.002)


def lose(folder: Path, place: str, rate: float) -> tuple[float, int, RolledForward, float]:
    """Seconds and records that are lost, what came back, and how long that took."""
    command = [sys.executable, "-m", "benchmarks.point_in_time", "--child", str(folder), "--place", place]
    with subprocess.Popen([*command, "--rate", str(rate)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(random.uniform(3, 8))
        child.kill()
        killed = time.time()
        acknowledged = [first, *child.stdout.read().splitlines()]
    shutil.rmtree(folder / "data")  # the machine is gone
    made: list[RolledForward] = []

    def forward(store: Path, scratch: Path) -> None:
        made.append(
            roll_forward(store, open_log_place(settings(place)), killed + 60, {}, scratch, lambda done, all: None)
        )

    began = time.perf_counter()
    restore(folder / COPY, folder / "data", forward)
    took = time.perf_counter() - began
    store = open_durable(folder / "data")
    Ledger(store, Settings())  # takes in what the copy's write-ahead log holds
    with store.read() as reader:
        there = {bytes(key).decode("latin-1") for key, _ in reader.scan("record_ids")}
    store.close()
    rows = [(line.split()[0], float(line.split()[1])) for line in acknowledged if len(line.split()) == 2]
    lost = [at for ident, at in rows if not any(ident in key for key in (ident,) if key in there)]
    return (killed - min(lost) if lost else 0.0), len(lost), made[0], took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--rate", type=float, default=200, help="records a second")
    parser.add_argument("--place", default="", help="a folder or bucket (default: a temporary folder)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        asyncio.run(record(args.child, args.place, args.rate))
        return
    losses = []
    for turn in range(args.repeat):
        with tempfile.TemporaryDirectory() as name:
            place = f"{args.place.rstrip('/')}/{turn}" if args.place else f"{name}/place"
            seconds, count, back, took = lose(Path(name), place, args.rate)
        losses.append(seconds)
        print(
            f"killed: {count:>4} records of the last {seconds:.2f} s are lost; "
            f"{back.transactions} transactions came back in {took:.1f} s {back.short}",
            flush=True,
        )
    print(f"lost, median and most: {statistics.median(losses):.2f} and {max(losses):.2f} s; goal 1 s")


if __name__ == "__main__":
    main()
