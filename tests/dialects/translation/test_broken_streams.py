"""Streams and arguments broken by the upstream, in every way and over every pair: a whole answer in the client's
grammar, or an error; never a call with other arguments than the model wrote."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.translation.grammar import Heard, hear, hear_whole
from tests.dialects.translation.kit import PAIRS, SEALS, Blocks, answer, events, request, translate

TOOLS = ("moon", "tide_table")
Events = list[bytes]


def blocks(kind: UpstreamKind) -> Blocks:
    return [
        ("think", "Ebbe.", SEALS[kind]),
        ("text", "Über den Deich 🌊."),
        ("call", "call_1", "tide_table", '{"place":"Büsum","days":[1,2]}'),
        ("call", "call_2", "moon", "{}"),
    ]


def heard_of(client: Dialect, kind: UpstreamKind, pieces: Events) -> Heard | None:
    """What the client understood, held to the grammar; None where it gets a plain error."""
    told = translate(client, kind, request(client, [("user", "?")], tools=TOOLS, stream=True), stream=True).response
    raw = b"".join(map(told.feed, pieces)) + told.finish()
    if not told.begun:
        status, body = told.fault_answer()
        assert raw == b"" and status >= 400 and json.loads(body)["error"]
        return None
    heard = hear(client, raw)
    assert (heard.error is None) is told.complete
    return heard


def dropped(dice: random.Random, stream: Events) -> Events:
    at = dice.randrange(len(stream))
    return stream[:at] + stream[at + 1 :]


def doubled(dice: random.Random, stream: Events) -> Events:
    at = dice.randrange(len(stream))
    return stream[: at + 1] + stream[at:]


def swapped(dice: random.Random, stream: Events) -> Events:
    found = list(stream)
    one, other = dice.randrange(len(found)), dice.randrange(len(found))
    found[one], found[other] = found[other], found[one]
    return found


def shuffled(dice: random.Random, stream: Events) -> Events:
    start = dice.randrange(len(stream))
    window = stream[start : start + 6]
    dice.shuffle(window)
    return stream[:start] + window + stream[start + 6 :]


def key_twice(dice: random.Random, stream: Events) -> Events:
    """An object of one event has one of its keys twice, once with another value."""
    found = list(stream)
    at = dice.choice([index for index, event in enumerate(found) if b'{"' in event])
    head, _, data = found[at].partition(b"data: ")
    places = [index for index in range(len(data)) if data[index : index + 2] == b'{"']
    place = dice.choice(places)
    name = data[place + 2 :].split(b'"', 1)[0]
    value = dice.choice([b"null", b"7", b'"other"', b"[]", b"{}", b"true"])
    twice = data[: place + 1] + b'"' + name + b'":' + value + b"," + data[place + 1 :]
    found[at] = head + b"data: " + twice
    return found


def cut_within(dice: random.Random, stream: Events) -> Events:
    """The middle of one event is lost; the rest goes on."""
    found = list(stream)
    at = dice.randrange(len(found))
    start = dice.randrange(len(found[at]))
    found[at] = found[at][:start] + found[at][start + dice.randrange(1, 40) :]
    return found


def unknown(dice: random.Random, stream: Events) -> Events:
    kinds = ["response.telepathy.delta", "content_block_hum", "message_pause", "response.output_item.moved"]
    event = {"type": dice.choice(kinds), "index": dice.choice([0, 1, 99, -1, "x", None]), "delta": {"text": "?"}}
    named = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    at = dice.randrange(len(stream))
    return [*stream[:at], named, *stream[at:]]


BREAKS: list[Callable[[random.Random, Events], Events]] = [
    dropped, doubled, swapped, shuffled, key_twice, cut_within, unknown,
]  # fmt: skip


@pytest.mark.parametrize("how", BREAKS, ids=lambda how: how.__name__)
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_broken_stream_is_whole_or_an_error(
    client: Dialect, kind: UpstreamKind, how: Callable[[random.Random, Events], Events]
) -> None:
    dice, stream = random.Random(f"{client} {kind} {how.__name__}"), events(kind, blocks(kind))
    for _ in range(30):
        broken = how(dice, how(dice, stream) if dice.random() < 0.3 else stream)
        heard_of(client, kind, broken)


@pytest.mark.slow
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_two_breaks_of_any_kind(client: Dialect, kind: UpstreamKind) -> None:
    dice, stream = random.Random(f"{client} {kind}"), events(kind, blocks(kind))
    for _ in range(300):
        broken = stream
        for how in dice.choices(BREAKS, k=dice.randint(2, 5)):
            broken = how(dice, broken)
        heard_of(client, kind, broken)


@pytest.mark.slow
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_stream_cut_at_any_byte_is_no_success(client: Dialect, kind: UpstreamKind) -> None:
    stream = events(kind, [("text", "Hi."), ("call", "call_1", "moon", '{"place":"x"}')])
    ending = {UpstreamKind.CHAT: 3, UpstreamKind.MESSAGES: 2}.get(kind, 1)  # from here on the end was said
    before, whole = b"".join(stream[:-ending]), b"".join(stream)
    said = len(before) + len(stream[-ending])
    for at in range(len(whole)):
        heard = heard_of(client, kind, [whole[:at]])
        if at < said - 4:
            assert heard is None or heard.error is not None, at


def in_event(kind: UpstreamKind, value: Any) -> Events:
    """A stream whose one call has this in the place of its arguments."""
    mark = json.dumps("@@")
    if kind is UpstreamKind.MESSAGES:
        stream = events(kind, [("call", "call_1", "moon", "{}")])
        start, stop = (
            next(i for i, one in enumerate(stream) if word in one) for word in (b"block_start", b"block_stop")
        )
        stream = [*stream[: start + 1], *stream[stop:]]
        old = '"input":{}' if '"input":{}' in stream[start].decode() else '"input": {}'
        return [one.replace(old.encode(), f'"input":{json.dumps(value)}'.encode()) for one in stream]
    if kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST):
        raw = b"".join(events(kind, [("call", "call_1", "moon", '{"a":"@@"}')]))
        for spelt in ('{"a": "@@"}', '{"a":"@@"}'):
            raw = raw.replace(spelt.encode(), json.dumps(value).encode())
        return [raw]
    raw = b"".join(events(kind, [("call", "call_1", "moon", "@@")]))
    return [raw.replace(mark.encode(), json.dumps(value).encode())]


VALUES: list[Any] = [{"a": [1, {"b": "ü"}]}, [1, 2], ["x"], 5, 0, True, False, "nonsense", '{"a": 1', '{"a":1}', "[1]"]


@pytest.mark.parametrize("value", VALUES, ids=map(json.dumps, VALUES))
@pytest.mark.parametrize(("client", "kind"), PAIRS)
@pytest.mark.parametrize("whole", [False, True])
def test_arguments_of_another_type_are_never_taken_for_none(
    client: Dialect, kind: UpstreamKind, value: Any, whole: bool
) -> None:
    """An object is one however it was sent; what is none goes to clients that take a text, to others as an error."""
    written = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if whole:
        shape = answer(kind, [("call", "call_1", "moon", '{"a":"@@"}')]).decode()
        for spelt in (json.dumps('{"a":"@@"}'), '{"a": "@@"}'):
            shape = shape.replace(spelt, json.dumps(value))
        told = translate(client, kind, request(client, [("user", "?")], tools=TOOLS)).response
        raw = told.whole(shape.encode())
        heard = hear_whole(client, raw) if told.complete else None
    else:
        heard = heard_of(client, kind, in_event(kind, value))
    found = None if heard is None or heard.error is not None else next(b for b in heard.blocks if b[0] == "call")[3]
    try:
        is_object = isinstance(json.loads(written), dict)
    except ValueError:
        is_object = False
    if is_object:
        assert found is not None and json.loads(found) == json.loads(written)
    elif client in (Dialect.CHAT, Dialect.RESPONSES):
        assert found == written
    else:
        assert found is None
