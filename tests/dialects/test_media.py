"""Streams that are no conversation: each family's own end, and the body's end where a family has none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Operation, Signal
from pool_server.dialects import Meter, meter
from tests.dialects.streams import named, sse

PICTURE = {"b64_json": "iVBORw0KGgo=" * 400, "size": "1024x1024"}
USAGE = {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}


def ended(kind: str, **more: Any) -> list[bytes]:
    return [named({"type": kind, **more, "usage": USAGE})]


Case = tuple[Dialect, Operation, list[bytes], list[bytes], bool]
# (dialect, operation, the first events, the last ones, whether a cut shows)
CASES: dict[str, Case] = {
    "picture": (
        Dialect.CHAT,
        Operation.IMAGES,
        [named({"type": "image_generation.partial_image", **PICTURE, "partial_image_index": n}) for n in range(2)],
        ended("image_generation.completed", **PICTURE),
        True,
    ),
    "codex picture": (
        Dialect.RESPONSES,
        Operation.IMAGES,
        [named({"type": "image_edit.partial_image", **PICTURE})],
        ended("image_edit.completed", **PICTURE),
        True,
    ),
    "pictures one by one": (
        Dialect.CHAT,
        Operation.IMAGES,
        [named({"type": "image_generation.partial_succeeded", "url": "https://x", "image_index": n}) for n in range(3)],
        ended("image_generation.completed"),
        True,
    ),
    "transcript": (
        Dialect.CHAT,
        Operation.AUDIO,
        [sse({"type": "transcript.text.delta", "delta": 'Über "error": {'})],
        [sse({"type": "transcript.text.done", "text": "Über", "usage": USAGE}), sse("[DONE]")],
        True,
    ),
    "speech": (
        Dialect.CHAT,
        Operation.AUDIO,
        [named({"type": "speech.audio.delta", "audio": "AAAA" * 500})],
        ended("speech.audio.done"),
        True,
    ),
    "transcript as a chat": (
        Dialect.CHAT,
        Operation.AUDIO,
        [sse({"object": "transcription.chunk", "choices": [{"delta": {"content": "a"}, "finish_reason": None}]})],
        [
            sse({"object": "transcription.chunk", "choices": [{"delta": {}, "finish_reason": "stop"}]}),
            sse({"object": "transcription.chunk", "choices": [], "usage": USAGE}),
        ],
        True,
    ),
    "completion of old": (
        Dialect.MESSAGES,
        Operation.COMPLETIONS,
        [named({"type": "completion", "completion": " a", "stop_reason": None, "model": "m"}), sse({"type": "ping"})],
        [named({"type": "completion", "completion": "", "stop_reason": "stop_sequence", "usage": USAGE})],
        True,
    ),
    "of no known family": (
        Dialect.RESPONSES,
        Operation.SIDE,
        [sse({"jsonrpc": "2.0", "result": {}})],
        [sse({"found": 3, "usage": USAGE})],
        False,
    ),
}


def reading(case: Case, data: bytes, size: int = 0) -> tuple[Meter, Signal]:
    dialect, operation = case[:2]
    one, found = meter(dialect, operation, stream=True), Signal.NONE
    for at in range(0, len(data), size or len(data)):
        found |= one.feed(data[at : at + (size or len(data))])
    return one, found | one.finish()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_whole_stream_is_complete_and_counted(name: str, size: int) -> None:
    case = CASES[name]
    one, found = reading(case, b"".join(case[2] + case[3]), size)
    assert one.complete and one.fault is None and found & Signal.RENDERED
    assert (one.usage.input, one.usage.output) == (30, 12)


@pytest.mark.parametrize("name", CASES)
def test_a_stream_cut_between_two_events_is_not(name: str) -> None:
    case = CASES[name]
    one, found = reading(case, b"".join(case[2]))
    assert one.complete is not case[4] and not found & Signal.TERMINAL


@pytest.mark.parametrize("name", CASES)
def test_an_error_among_the_events_is_a_fault(name: str) -> None:
    case = CASES[name]
    error = sse({"type": "error", "error": {"type": "rate_limit_error", "message": "later"}}, "error")
    one, found = reading(case, b"".join(case[2]) + error)
    assert found & Signal.FAULT and one.fault is not None and one.fault[0] == 429


@pytest.mark.parametrize("name", CASES)
def test_nothing_at_all_is_no_answer(name: str) -> None:
    for data in (b": note\n\n", sse({"type": "ping"}), sse("[DONE]"), b"\n\n"):
        assert not reading(CASES[name], data)[0].complete


def test_several_last_events_are_one_answer() -> None:
    """A picture each: what follows the first one is not cut off."""
    case = CASES["picture"]
    one, found = reading(case, b"".join(case[3] * 3))
    assert one.complete and not found & Signal.TERMINAL


@pytest.mark.parametrize("name", CASES)
@given(
    junk=st.lists(
        st.sampled_from(["null", "[]", "17", "{", '{"choices":7}', '{"usage":[]}', '{"type":{}}']), max_size=4
    )
)
def test_junk_between_the_events_harms_nothing(name: str, junk: list[str]) -> None:
    case = CASES[name]
    one, _ = reading(case, b"".join([*case[2], *map(sse, junk), *case[3]]))
    assert one.complete and one.usage.output == 12
