"""`python -m tests.fuzz MINUTES [TARGET …]` tries inputs of ever higher seeds, from one that no run began with, all
targets in turn, and prints what fails; `python -m tests.fuzz TARGET:SEED` repeats one. What was found belongs into the
target's corpus."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback

from tests.fuzz.mutation import mutated, seeds
from tests.fuzz.targets import TARGETS
from tests.fuzz.test_targets import INPUTS


def main(minutes: float, names: list[str]) -> int:
    """How many inputs failed."""
    corpora = {name: seeds(name) for name in names}
    first = INPUTS + secrets.randbelow(1 << 40)  # a run from the same seed on would try what the last one did
    deadline, seed, failed = time.monotonic() + 60 * minutes, first, 0
    while time.monotonic() < deadline:
        for name in names:
            data = mutated(corpora[name], seed)
            try:
                TARGETS[name](data)
            except Exception:
                failed += 1
                print(f"{name}:{seed} {data!r}\n{traceback.format_exc(limit=-1)}", flush=True)
        seed += 1
    print(f"{(seed - first) * len(names)} inputs from seed {first} on, {failed} failed", flush=True)
    return failed


def asked(words: list[str]) -> tuple[float, list[str], int | None]:
    """Minutes and targets, or a target and the seed of the one input to repeat. Ends the program for anything else."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("first", nargs="?", default="1", metavar="MINUTES | TARGET:SEED")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    found = parser.parse_args(words)
    name, colon, number = found.first.partition(":")
    names = [name] if colon else found.targets
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target is called {unknown[0]}")
    try:
        return (0.0, names, int(number)) if colon else (float(name), names or list(TARGETS), None)
    except ValueError:
        parser.error(f"{found.first}: minutes, or a target and the number of its seed")


if __name__ == "__main__":
    minutes, names, seed = asked(sys.argv[1:])
    if seed is None:
        sys.exit(min(1, main(minutes, names)))
    TARGETS[names[0]](mutated(seeds(names[0]), seed))
