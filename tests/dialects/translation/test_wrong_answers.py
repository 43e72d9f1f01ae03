"""Any value in any field of an upstream's answer: what the client gets keeps its dialect's grammar, or is an error."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import Translated, UpstreamKind
from tests.dialects.translation.grammar import hear, hear_whole
from tests.dialects.translation.kit import PAIRS, SEALS, Blocks, answer, events, request, translate

WRONG: tuple[Any, ...] = (None, 5, -1, 1.5, True, "other", [], ["other"], {}, {"other": 1}, 10**30, [None], [[]])
TRIES = 25
Path = tuple[str | int, ...]


def blocks(kind: UpstreamKind) -> Blocks:
    calls = [("call", f"c{place}", "moon", json.dumps({"place": place})) for place in "xy"]
    return [("think", "hm", SEALS[kind]), ("text", "Good moon."), *calls]


def nodes(value: Any, path: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in items:
        yield (*path, step)
        yield from nodes(inner, (*path, step))


def spoilt(dice: random.Random, whole: Any) -> Any:
    """The value with another one somewhere in it. A call's arguments are the model's own: they stay."""
    found = deepcopy(whole)
    *way, last = dice.choice([path for path in nodes(whole) if not {"arguments", "args", "input"} & {*path}])
    place = found
    for step in way:
        place = place[step]
    place[last] = dice.choice(WRONG)
    return found


def ended(found: Translated) -> bool:
    """Whether the answer was told to its end; if not, there is an error to tell."""
    if not found.response.complete:
        assert found.response.fault is not None
        status, body = found.response.fault_answer()
        assert status >= 400 and json.loads(body)["error"]
    return found.response.complete


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_any_value_in_a_whole_answer(client: Dialect, kind: UpstreamKind) -> None:
    dice, whole = random.Random(f"whole {client} {kind}"), json.loads(answer(kind, blocks(kind)))
    asked = request(client, [("user", "hi")], tools=("moon",))
    for _ in range(TRIES):
        found = translate(client, kind, deepcopy(asked))
        raw = found.response.whole(json.dumps(spoilt(dice, whole)).encode())
        if ended(found):
            hear_whole(client, raw)


@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_any_value_in_an_event(client: Dialect, kind: UpstreamKind) -> None:
    dice, stream = random.Random(f"event {client} {kind}"), events(kind, blocks(kind))
    asked = request(client, [("user", "hi")], tools=("moon",), stream=True)
    told = [index for index, event in enumerate(stream) if b"data: {" in event]
    for _ in range(TRIES):
        index = dice.choice(told)
        head, _, data = stream[index].partition(b"data: ")
        wrong = head + b"data: " + json.dumps(spoilt(dice, json.loads(data))).encode() + b"\n\n"
        found = translate(client, kind, deepcopy(asked), stream=True)
        raw = b"".join(found.response.feed(piece) for piece in [*stream[:index], wrong, *stream[index + 1 :]])
        raw += found.response.finish()
        if ended(found):
            hear(client, raw)
