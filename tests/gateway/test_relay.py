"""What passes through: the same bytes and the same count, however the upstream's socket cut them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pool_server.gateway.pipeline import Pipeline
from pool_server.http1 import Answer
from tests.gateway.stack import Stack, run
from tests.http1.wire import Talk, raw_server, read_request

WORDS = ["", "a", "a few words", "Grüße \N{WAVING HAND SIGN}", "x" * 3000, 'quoted "data: " within']


def event(data: object) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]})


def stream(rng: random.Random, output: int) -> bytes:
    """A chat stream: words, comments, an event of its own kind, then the usage."""
    pieces = [delta(rng.choice(WORDS)) for _ in range(rng.randint(1, 30))]
    pieces.insert(rng.randrange(len(pieces) + 1), b": a comment\n\n")
    pieces.insert(rng.randrange(len(pieces) + 1), event({"unknown": True}))
    usage = {"prompt_tokens": 7, "completion_tokens": output, "total_tokens": 7 + output}
    pieces += [event({"id": "c", "model": "m", "choices": [], "usage": usage}), event(b"[DONE]")]
    return b"".join(pieces)


class Upstream:
    """Sends `body` in pieces cut at random, at the ends of events and within them, each in a write of its own."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.body = b""

    def pieces(self) -> Iterator[bytes]:
        rest = self.body
        while rest:
            whole = rest.find(b"\n\n") + 2
            size = self.rng.choice([whole, whole, whole + 5, 1, 5, whole - 1, 170, 2000])
            yield rest[:size]
            rest = rest[size:]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in self.pieces():
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                if self.rng.random() < 0.8:
                    await writer.drain()
                    for _ in range(self.rng.choice([1, 4, 8])):
                        await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")


@contextlib.asynccontextmanager
async def stack_before(folder: Path, talk: Talk, **more: Any) -> AsyncIterator[Stack]:
    """A pool whose one account is asked at a raw server; `more` fields of its file."""
    async with raw_server(talk) as port:
        (folder / "pool").mkdir()
        fields = {"api_key": "sk-raw", "base_url": f"http://127.0.0.1:{port}/v1", **more}
        (folder / "pool" / "openai_raw.json").write_text(json.dumps(fields))
        async with Stack(folder, []) as stack:
            yield stack


PLAIN = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
ASKED = PLAIN | {"stream_options": {"include_usage": True}}
PATH = "/openai/v1/chat/completions"


@pytest.mark.slow
def test_streams_cut_anywhere_pass_whole_and_are_counted_right(tmp_path: Path) -> None:
    upstream = Upstream(5)

    async def test() -> None:
        async with stack_before(tmp_path, upstream) as stack:
            for output in range(60):
                upstream.body = stream(upstream.rng, output)
                assert await stack.post(PATH, ASKED) == (200, upstream.body)
                *shown, usage, done = upstream.body.split(b"\n\n")[:-1]
                without = b"".join(piece + b"\n\n" for piece in (*shown, done))
                assert b'"usage"' in usage and await stack.post(PATH, PLAIN) == (200, without)
            told = [(r.outcome, r.usage.input, r.usage.output) for r in stack.records()]
            assert sorted(told) == [("ok", 7, output) for output in range(60) for _ in range(2)]

    run(test)


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[Pipeline]:
    """The pipelines that were made, for a test's upstream to look at."""
    found: list[Pipeline] = []
    made = Pipeline.__init__

    def remembered(self: Pipeline, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        found.append(self)

    monkeypatch.setattr(Pipeline, "__init__", remembered)
    return found


async def hurried(pipelines: list[Pipeline]) -> Answer:
    """The upstream's answer, once ordinary events may go the short way."""
    while not pipelines or (source := pipelines[0]._source) is None or source.at_once is None:
        await asyncio.sleep(0.001)
    assert isinstance(source, Answer)
    return source


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
USAGE = event({"model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})


def test_ordinary_events_go_the_short_way(
    tmp_path: Path, pipelines: list[Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would notice that it was lost."""
    events = [delta(f"word {number}") for number in range(20)]
    passed = asyncio.Event()
    taken: list[bytes] = []
    at_once = Pipeline._at_once

    def counted(self: Pipeline, chunk: bytes) -> bool:
        took = at_once(self, chunk)
        if took:
            taken.append(chunk)
        passed.set()
        return took

    monkeypatch.setattr(Pipeline, "_at_once", counted)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + events[0])
        await hurried(pipelines)
        for piece in events[1:]:
            passed.clear()
            writer.write(piece)
            await passed.wait()
        writer.write(event(b"[DONE]"))

    async def test() -> None:
        async with stack_before(tmp_path, talk) as stack:
            _, body = await stack.post(PATH, ASKED)
            assert body == b"".join(events) + event(b"[DONE]")
            pipelines.clear()

    run(test)
    assert taken == events[1:]


def test_what_comes_before_the_task_is_awake_is_read_too(tmp_path: Path, pipelines: list[Pipeline]) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + delta("a"))
        answer = await hurried(pipelines)
        for piece in (USAGE[:30], USAGE[30:], delta("b")):
            answer.feed(piece)
        writer.write(event(b"[DONE]"))

    async def test() -> None:
        async with stack_before(tmp_path, talk) as stack:
            _, body = await stack.post(PATH, ASKED)
            assert body == delta("a") + USAGE + delta("b") + event(b"[DONE]")
            assert [(r.outcome, r.usage.input, r.usage.output) for r in stack.records()] == [("ok", 7, 5)]
            pipelines.clear()

    run(test)


def test_an_event_cut_in_two_on_the_short_way_leaves_no_half_at_the_client(
    tmp_path: Path, pipelines: list[Pipeline]
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + delta("a"))
        await hurried(pipelines)
        writer.write(delta("b") + delta("half")[:40])

    async def test() -> None:
        async with stack_before(tmp_path, talk) as stack:
            async with stack.client.post(stack.url + PATH, json=ASKED) as answer:
                got = b""
                with pytest.raises(aiohttp.ClientError):
                    while piece := await answer.content.readany():
                        got += piece
            assert got.startswith(delta("a") + delta("b") + b"data: ")
            assert b'"half' not in got
            assert all(json.loads(one.removeprefix(b"data: ")) for one in got.split(b"\n\n")[:-1])
            pipelines.clear()

    run(test)
