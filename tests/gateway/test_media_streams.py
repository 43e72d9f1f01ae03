"""Streams that are no conversation, through the pool: each ends as its vendor ends it, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from tests.gateway.stack import run
from tests.gateway.test_relay import Upstream, stack_before

USAGE = b'"usage":{"input_tokens":7,"output_tokens":5,"total_tokens":12}'
PICTURE = b'"b64_json":"' + b"iVBORw0KGgo=" * 2000 + b'"'


def event(kind: str, more: bytes, *, name: bool = True) -> bytes:
    head = f"event: {kind}\n" if name else ""
    return head.encode() + b'data: {"type":"' + kind.encode() + b'",' + more + b"}\n\n"


# path → (events on the way, the end)
STREAMS = {
    "/v1/images/generations": (
        event("image_generation.partial_image", PICTURE) * 2,
        event("image_generation.completed", PICTURE + b"," + USAGE),
    ),
    "/v1/audio/transcriptions": (
        event("transcript.text.delta", b'"delta":"Tag"', name=False) * 3,
        event("transcript.text.done", b'"text":"Tag",' + USAGE, name=False) + b"data: [DONE]\n\n",
    ),
    "/v1/audio/speech": (
        event("speech.audio.delta", b'"audio":"AAAA"', name=False),
        event("speech.audio.done", USAGE, name=False),
    ),
    "/v1/embeddings": (b'data: {"object":"of a kind nobody knows"}\n\n', b"data: {" + USAGE + b"}\n\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", STREAMS)
def test_it_arrives_whole_and_is_counted(path: str, tmp_path: Path) -> None:
    upstream = Upstream(3)
    upstream.body = b"".join(STREAMS[path])

    async def test() -> None:
        async with stack_before(tmp_path, upstream) as stack:
            asked = {"model": "m", "stream": True, "input": "x", "prompt": "x"}
            for _ in range(5):
                assert await stack.post("/openai" + path, asked) == (200, upstream.body)
            told = [(one.outcome, one.usage.input, one.usage.output) for one in stack.records()]
            assert told == [("ok", 7, 5)] * 5

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in STREAMS if path != "/v1/embeddings"])
def test_one_that_lacks_its_end_is_no_success(path: str, tmp_path: Path) -> None:
    upstream = Upstream(4)
    upstream.body = STREAMS[path][0]

    async def test() -> None:
        async with stack_before(tmp_path, upstream) as stack:
            asked = json.dumps({"model": "m", "stream": True, "input": "x", "prompt": "x"})
            with pytest.raises(aiohttp.ClientError):
                async with stack.client.post(stack.url + "/openai" + path, data=asked) as answer:
                    await answer.read()
            await stack.idle()
            assert [one.outcome for one in stack.records()] == ["cut"]

    run(test)
