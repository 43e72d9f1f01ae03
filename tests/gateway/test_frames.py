"""What may go up on a WebSocket: strict JSON text of a known type, and only once a turn was let in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Outcome
from pool_server.gateway.websocket.frames import BadFrameError, FrameKind, judge
from tests.fakes import Gate, Surface, account, plays
from tests.gateway.sockets import Client, create, final_id, socket
from tests.gateway.stack import ADMIN, Stack, run

CREATE = '{"type":"response.create","model":"gpt-5-codex","input":[]'
# Frames that one parser reads as a turn and another one does not, or reads otherwise.
WRONG: list[str | bytes] = [
    CREATE + ',"x":NaN}', CREATE + ',"x":-Infinity}', CREATE + ',"x":"\\ud800"}', CREATE + ',"x":"\\udc00\\ud800"}',
    CREATE + ',"\\ud800":1}', CREATE + ',"x":"\\q"}', CREATE + ',"x":"a\nb"}', CREATE + ',"x":"\x00"}', CREATE + ",}",
    CREATE + ',"x":[1,]}', CREATE + ',"x":01}', CREATE + ',"x":+1}', CREATE + ',"x":.5}', CREATE + ',"x":1.}',
    CREATE + ',"x":0x10}', CREATE + ',"x":1_000}', CREATE + ',"x":undefined}', CREATE + ",'x':1}", CREATE + ",x:1}",
    CREATE + ' /* c */}', CREATE + "} // c", CREATE + "}{}", CREATE + "}\x00", CREATE + "}" + CREATE + "}",
    "\ufeff" + CREATE + "}", "[" + CREATE + "}]", CREATE, "", " ", "null", "[]", "{}", "1", '"response.create"',
    CREATE + ',"model":"gpt-5"}', CREATE + ',"type":"response.processed"}', CREATE + ',"mod\\u0065l":"gpt-5"}',
    '{"type":"response.processed","type":"response.create","model":"m"}', CREATE + ',"a":1,"b":2,"a":1}',
    CREATE + ',"previous_response_id":"a","previous_response_id":null}', '{"a":{},"type":"response.create","a":{}}',
    CREATE + ',"x":' + "[" * 20_000 + "]" * 20_000 + "}", CREATE + ',"x":' + '{"a":' * 100_000, "[" * 200_000,
    '{"type":["response.create"]}', '{"type":{"type":"response.create"}}', '{"type":"Response.create"}',
    '{"type":"response.create "}', '{"type":"response.cancel"}', '{"type":"session.update"}', '{"type":null}',
    '{"type":"response.processed","response_id":"r","input":[]}', '{"type":"response.processed","response_id":7}',
    '{"type":"response.processed","response_id":"' + "r" * 5000 + '"}',
    (CREATE + "}").encode(), (CREATE + "}").encode("utf-16"), b"", b"\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("frame", WRONG, ids=lambda frame: repr(frame[:60]))
def test_what_parsers_may_read_differently_is_no_frame(frame: str | bytes) -> None:
    with pytest.raises(BadFrameError) as told:
        judge(frame)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (CREATE + "}", FrameKind.CREATE),
        (" \t\r\n" + CREATE.replace(":", " :\n ").replace(",", " , ") + " }\n", FrameKind.CREATE),
        (CREATE + ',"x":"\\ud83d\\ude00","y":1e999,"z":-0.0,"":{"a":1,"a":2},"\\"":[],"\\\\":"}"}', FrameKind.CREATE),
        ('{"t\\u0079pe":"response.append","input":[]}', FrameKind.APPEND),
        ('{"type":"response.processed","response_id":"resp_1"}', FrameKind.PROCESSED),
        (json.dumps(create(), indent=2), FrameKind.CREATE),
        (CREATE + ',"x":' + "[" * 200 + "]" * 200 + "}", FrameKind.CREATE),
    ],
)
def test_what_clients_send_is_known(frame: str, kind: FrameKind) -> None:
    assert judge(frame) is kind


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


class Twice(Exception):
    pass


def strictly(text: str) -> dict[str, Any]:
    """Another parser's opinion, of keys that stand there twice too."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(found) | {"\0keys": len(found)}

    def constant(name: str) -> None:
        raise ValueError(name)

    found = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    if not isinstance(found, dict):
        raise ValueError
    if found.pop("\0keys") != len(found):
        raise Twice
    return found


@given(
    st.lists(st.tuples(st.sampled_from(["type", "model", "a", "b"]) | st.text(max_size=5), JSON), max_size=6),
    st.sampled_from(["response.create", "response.append", "x"]),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_two_parsers_agree_on_whatever_passes(
    fields: list[tuple[str, Any]], kind: str, indent: int | str | None, escaped: bool
) -> None:
    pairs = [*fields, ("type", kind)]
    gap = "" if indent is None else "\n" + (" " if indent == 1 else "\t")
    items = [f"{gap}{json.dumps(k, ensure_ascii=escaped)}:{gap}{json.dumps(v, ensure_ascii=escaped)}" for k, v in pairs]
    text = "{" + ",".join(items) + gap + "}"
    try:
        found = judge(text)
    except BadFrameError:
        try:
            other = strictly(text)
        except (Twice, ValueError, UnicodeError):
            return
        assert other["type"] not in ("response.create", "response.append") or "\\ud" in text.lower() or _lone(text)
    else:
        assert strictly(text)["type"] == found.value


def _lone(text: str) -> bool:
    return any(0xD800 <= ord(char) < 0xE000 for char in text)


NOISE = st.text(alphabet='{}[]":,\\ntruefalse0123.eE+- \n', max_size=60)


@given(st.text() | NOISE.map(lambda noise: f"{CREATE},{noise}}}"))
def test_text_at_random_passes_only_where_another_parser_takes_it(text: str) -> None:
    try:
        kind = judge(text)
    except BadFrameError:
        return
    assert strictly(text)["type"] == kind.value


# -- on a socket


async def raw(client: Client, frame: str | bytes) -> None:
    if isinstance(frame, bytes):
        await client.connection.send_bytes(frame)
    else:
        await client.connection.send_str(frame)


SENT = [frame for frame in WRONG if isinstance(frame, bytes) or "\ufeff" not in frame][::3]


@pytest.mark.slow
@pytest.mark.parametrize("frame", SENT, ids=lambda frame: repr(frame[:60]))
@pytest.mark.parametrize("after", ["nothing", "refused", "served"])
def test_a_wrong_frame_ends_the_socket_and_nothing_goes_up(tmp_path: Path, frame: str | bytes, after: str) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            user = await stack.users.people.create_user("ada", actor=ADMIN, limits={"models": ["gpt-5-codex"]})
            async with socket(stack, Authorization=f"Bearer {user['key']}") as client:
                if after == "refused":
                    events = await client.turn(create(model="o3"))
                    assert events[-1]["status"] == 403
                elif after == "served":
                    final_id(await client.turn(create()))
                before = len(stack.fakes.made(surface=Surface.SOCKET)[0].frames)
                await raw(client, frame)
                message = await client.connection.receive()
                assert message.type is aiohttp.WSMsgType.TEXT
                assert (json.loads(message.data)["type"], json.loads(message.data)["status"]) == ("error", 400)
                assert await client.closed() == 1007
            assert len(stack.fakes.made(surface=Surface.SOCKET)[0].frames) == before == (after == "served")

    run(test)


def test_a_turn_that_was_refused_opens_the_way_for_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [account("codex:one")], friend_code="swim") as stack:
            user = await stack.users.people.create_user("ada", actor=ADMIN, limits={"models": ["gpt-5-codex"]})
            async with socket(stack, Authorization=f"Bearer {user['key']}") as client:
                assert (await client.turn(create(model="o3")))[-1]["status"] == 403
                for frame in ({"type": "response.processed"}, {"type": "response.append", "input": [], "model": "o3"}):
                    assert "first frame" in (await client.turn(frame))[-1]["error"]["message"]
                final_id(await client.turn(create()))
            assert len(stack.fakes.made(surface=Surface.SOCKET)[0].frames) == 1
            assert [record.outcome for record in stack.records()] == [Outcome.DENIED, Outcome.OK]

    run(test)


def test_a_wrong_frame_within_a_turn_ends_that_too(tmp_path: Path) -> None:
    async def test() -> None:
        gate = Gate()
        async with Stack(tmp_path, [account("codex:one")]) as stack:
            stack.fakes.then("codex:one", plays.stall(gate, at=3))
            async with socket(stack) as client:
                await client.connection.send_json(create())
                await gate.reached()
                await raw(client, CREATE + ',"x":NaN}')
                assert await client.closed() == 1007
            gate.open()
            while stack.gateway.sockets or not stack.records():
                await asyncio.sleep(0.005)
            assert [record.outcome for record in stack.records()] == [Outcome.CLIENT_GONE]

    run(test)
