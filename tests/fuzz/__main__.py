"""`python -m tests.fuzz MINUTES [TARGET …]` tries inputs of ever higher seeds, all targets in turn, and prints what
fails; `python -m tests.fuzz TARGET:SEED` repeats one. What was found belongs into the target's corpus."""

from __future__ import annotations

import sys
import time
import traceback

from tests.fuzz.mutation import mutated, seeds
from tests.fuzz.targets import TARGETS
from tests.fuzz.test_targets import INPUTS


def main(words: list[str]) -> int:
    """How many inputs failed."""
    if words and ":" in words[0]:
        one, _, number = words[0].partition(":")
        TARGETS[one](mutated(seeds(one), int(number)))
        return 0
    minutes, names = float(words[0]) if words else 1.0, words[1:] or list(TARGETS)
    corpora = {name: seeds(name) for name in names}
    deadline, seed, failed = time.monotonic() + 60 * minutes, INPUTS, 0
    while time.monotonic() < deadline:
        for name in names:
            data = mutated(corpora[name], seed)
            try:
                TARGETS[name](data)
            except Exception:
                failed += 1
                print(f"{name}:{seed} {data!r}\n{traceback.format_exc(limit=-1)}", flush=True)
        seed += 1
    print(f"{(seed - INPUTS) * len(names)} inputs, {failed} failed", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
