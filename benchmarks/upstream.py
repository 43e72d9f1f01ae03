"""A provider that costs next to nothing: answers chat completions small and whole, or as paced events.

`python benchmarks/upstream.py PORT`. The body's "model" picks the answer: "small" a short JSON, "events:N:MS" a
stream of N events MS milliseconds apart, "hold" a stream of one event and then nothing until the client leaves.
"""

from __future__ import annotations

import asyncio
import re
import sys

_USAGE = b'"usage":{"prompt_tokens":500,"completion_tokens":100,"total_tokens":600}'
_SMALL = (
    b'{"id":"c1","object":"chat.completion","model":"small","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hello."},"finish_reason":"stop"}],' + _USAGE + b"}"
)
_EVENT = (
    b'data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":'
    b'" a few words"},"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\ndata: {"id":"c1","object":"chat.completion.chunk","model":"m","choices":[],'
    + _USAGE
    + b"}\n\ndata: [DONE]\n\n"
)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_MODEL = re.compile(rb'"model"\s*:\s*"([^"]+)"')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            body = await reader.readexactly(int(found[1])) if found else b""
            model = _MODEL.search(body)
            await _answer(reader, writer, model[1].decode() if model else "small")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, model: str) -> None:
    if model.startswith("events:"):
        _, count, pause = model.split(":")
        writer.write(_STREAM_HEAD)
        for _ in range(int(count)):
            writer.write(_chunk(_EVENT))
            await asyncio.sleep(int(pause) / 1000)
        writer.write(_chunk(_LAST) + b"0\r\n\r\n")
    elif model == "hold":
        writer.write(_STREAM_HEAD + _chunk(_EVENT))
        await reader.read(1)
        raise ConnectionError
    else:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_SMALL))
        writer.write(_SMALL)
    await writer.drain()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", int(sys.argv[1]), backlog=8192, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
