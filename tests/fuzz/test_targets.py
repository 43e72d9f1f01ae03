"""Some inputs of each target; `python -m tests.fuzz MINUTES` goes on from there, `… TARGET:SEED` repeats one."""

from __future__ import annotations

import pytest

from tests.fuzz.mutation import mutated, seeds
from tests.fuzz.targets import TARGETS

INPUTS = 150


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_is_read_or_refused(name: str) -> None:
    corpus = seeds(name)
    for data in corpus:
        TARGETS[name](data)
    for seed in range(INPUTS):
        data = mutated(corpus, seed)
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"python -m tests.fuzz {name}:{seed}  {data!r}") from error
