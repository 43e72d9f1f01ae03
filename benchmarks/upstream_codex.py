"""A Codex provider that costs next to nothing: the same events as server-sent events and as WebSocket frames.

`python benchmarks/upstream_codex.py PORT`. The request's "model" says what comes: "events:N:MS" are N text deltas MS
milliseconds apart, then the end.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys
from collections.abc import Callable

_CREATED = b'{"type":"response.created","response":{"id":"resp_1","status":"in_progress","model":"m"}}'
_DELTA = (
    b'{"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_0123456789abcdef","output_index":0,'
    b'"content_index":0,"delta":" a few words","obfuscation":"aBcDeFgH"}'
)
_COMPLETED = (
    b'{"type":"response.completed","response":{"id":"resp_1","status":"completed","model":"m","output":[],"usage":'
    b'{"input_tokens":500,"input_tokens_details":{"cached_tokens":400},"output_tokens":100,"output_tokens_details":'
    b'{"reasoning_tokens":10},"total_tokens":600}}}'
)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_MODEL = re.compile(rb'"model"\s*:\s*"events:(\d+):(\d+)"')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"sec-websocket-key:\s*(\S+)", re.IGNORECASE)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key: bytes) -> bytes:
    return base64.b64encode(hashlib.sha1(key + _GUID).digest())


def frame(payload: bytes) -> bytes:
    """A server's text frame."""
    size = len(payload)
    return (b"\x81" + bytes([size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


def _event(payload: bytes) -> bytes:
    kind = payload[9 : payload.index(b'"', 9)]
    data = b"event: %b\ndata: %b\n\n" % (kind, payload)
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _events(writer: asyncio.StreamWriter, request: bytes, wrap: Callable[[bytes], bytes]) -> None:
    found = _MODEL.search(request)
    count, pause = (int(found[1]), int(found[2]) / 1000) if found else (1, 0.0)
    writer.write(wrap(_CREATED))
    for _ in range(count):
        writer.write(wrap(_DELTA))
        if pause:
            await asyncio.sleep(pause)
    writer.write(wrap(_COMPLETED))
    await writer.drain()


async def _socket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
    found = _KEY.search(head)
    assert found
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept_of(found[1])
        + b"\r\n\r\n"
    )
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        mask = await reader.readexactly(4)
        payload = await reader.readexactly(size)
        if first & 0x0F == 8:
            return
        if first & 0x0F == 9:
            writer.write(b"\x8a\x00")
        elif first & 0x0F == 1:
            repeated = mask * (size // 4 + 1)
            text = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")
            await _events(writer, text.to_bytes(size, "big"), frame)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if _KEY.search(head):
                await _socket(reader, writer, head)
                return
            found = _LENGTH.search(head)
            body = await reader.readexactly(int(found[1])) if found else b""
            writer.write(_STREAM_HEAD)
            await _events(writer, body, _event)
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", int(sys.argv[1]), backlog=8192, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
