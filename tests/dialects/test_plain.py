"""Bodies in plain shapes name nothing: what the shapes let pass is held against the walk that reads everything."""

from __future__ import annotations

import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from pool_server.core.enums import Dialect
from pool_server.dialects.references import _marked, _walked, references
from pool_server.dialects.wire import plain as plain_module
from pool_server.dialects.wire.plain import plain

REQUESTS = Path(__file__).parent.parent / "fixtures" / "requests.jsonl"
DIALECTS = list(Dialect)


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written: names may stand there twice."""


def hostile(chance: random.Random) -> Any:
    """What names an object wherever a reference may stand."""
    return chance.choice(
        [
            Pairs([("file_id", "X")]),
            Pairs([("id", "X")]),
            Pairs([("type", "item_reference"), ("id", "X")]),
            Pairs([("container", Pairs([("id", "X")]))]),
            Pairs([("fileUri", "files/X"), ("type", "text")]),
            Pairs([("type", "tool_use"), ("input", Pairs([("file_ids", ["X"])]))]),
            [Pairs([("id", "X")]), Pairs([("cachedContent", "cachedContents/X")])],
            "files/X",
        ]
    )


def hostile_pair(chance: random.Random) -> tuple[str, Any]:
    name = chance.choice(
        [
            "file_id", "file_ids", "vector_store_ids", "previous_response_id", "container_id", "skill_id", "container",
            "conversation", "prompt", "voice", "video", "characters", "fileUri", "file_uri", "cachedContent",
            "fileName", "uri", "input", "items", "type", "content", "source", "role", "response", "functionResponse",
            "arguments", "metadata", "text", "id",
        ]
    )  # fmt: skip
    return name, chance.choice(["X", "files/X", ["X"], hostile(chance)])


def made(kind: inspect.Type, chance: random.Random, depth: int) -> Any:
    """Some value of a type of the shapes; what may be anything is hostile."""
    if isinstance(kind, inspect.UnionType):
        flat = [one for one in kind.types if not isinstance(one, inspect.ListType | inspect.StructType)]
        return made(chance.choice(flat if depth <= 0 and flat else kind.types), chance, depth)
    if isinstance(kind, inspect.StructType):
        pairs: list[tuple[str, Any]] = [] if kind.tag is None else [(str(kind.tag_field), kind.tag)]
        fields = chance.sample(kind.fields, min(len(kind.fields), chance.randint(1, 3) if depth > 0 else 1))
        pairs += [(field.encode_name, made(field.type, chance, depth - 1)) for field in fields]
        chance.shuffle(pairs)
        return Pairs(pairs)
    if isinstance(kind, inspect.ListType):
        return [made(kind.item_type, chance, depth - 1) for _ in range(chance.randrange(3) if depth > 0 else 0)]
    if isinstance(kind, inspect.DictType):
        assert isinstance(kind.key_type, inspect.LiteralType)
        names = chance.sample(kind.key_type.values, min(2, len(kind.key_type.values)))
        return Pairs([(str(name), made(kind.value_type, chance, depth - 1)) for name in names])
    if isinstance(kind, inspect.RawType):
        return hostile(chance)
    simple: dict[type[inspect.Type], list[Any]] = {
        inspect.StrType: ["", "X", "files/X", 'he wrote "file_id": "X"'],
        inspect.BoolType: [True, False],
        inspect.IntType: [0, 7],
        inspect.FloatType: [0.5],
        inspect.NoneType: [None],
    }
    return chance.choice(simple[type(kind)])


def written(value: Any, chance: random.Random) -> str:
    if isinstance(value, Pairs):
        inner = (f"{name_written(name, chance)}:{written(held, chance)}" for name, held in value)
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(held, chance) for held in value) + "]"
    return json.dumps(value)


def name_written(name: str, chance: random.Random) -> str:
    """Now and then with an escape, and with blanks behind it."""
    at = chance.randrange(12 * max(1, len(name)))
    hidden = f"\\u{ord(name[at]):04x}" if at < len(name) else None
    return f'"{name}"' if hidden is None else f'"{name[:at]}{hidden}{name[at + 1 :]}" \n'


def objects(tree: Any) -> list[Pairs]:
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Pairs):
            found.append(node)
            waiting += [held for _, held in node]
        elif isinstance(node, list):
            waiting += node
    return found


def disturbed(tree: Any, chance: random.Random) -> None:
    """Puts something somewhere: a field more, the same once more, another value, another name."""
    node = chance.choice(objects(tree))
    at = chance.randrange(len(node) + 1)
    held = node[min(at, len(node) - 1)] if node else ("type", "text")
    how = chance.randrange(4)
    if how == 0 or not node:
        node.insert(at, hostile_pair(chance))
    elif how == 1:
        node.insert(at, (held[0], hostile(chance)))
    elif how == 2:
        node[at - 1] = (node[at - 1][0], hostile(chance))
    else:
        node[at - 1] = (hostile_pair(chance)[0], node[at - 1][1])


@functools.cache
def shape(dialect: Dialect) -> inspect.Type:
    return inspect.type_info(plain_module._SHAPES[dialect])


def body(dialect: Dialect, chance: random.Random) -> Any:
    return made(shape(dialect), chance, chance.randrange(2, 8))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_plain_body_names_nothing(dialect: Dialect) -> None:
    """Whatever stands where anything may."""
    chance = random.Random(dialect.value)
    for _ in range(400):
        data = written(body(dialect, chance), chance).encode()
        assert plain(dialect, data), data
        assert _walked(dialect, data) == [], data


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_names_something_is_not_plain(dialect: Dialect) -> None:
    chance = random.Random(dialect.value)
    named = passed = 0
    for _ in range(1500):
        tree = body(dialect, chance)
        for _ in range(chance.randint(1, 2)):
            disturbed(tree, chance)
        data = written(tree, chance).encode()
        walked, let_pass = _walked(dialect, data), plain(dialect, data)
        assert not (walked and let_pass), data
        named, passed = named + bool(walked), passed + let_pass
    assert named > 100 and passed > 40, "the test sees both"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_short_way_finds_what_the_long_one_does(dialect: Dialect) -> None:
    chance = random.Random(dialect.value)
    for _ in range(600):
        tree = body(dialect, chance)
        if chance.random() < 0.7:
            disturbed(tree, chance)
        data = written(tree, chance).encode()
        assert references(dialect, data) == (_walked(dialect, data) if _marked(dialect, data) else []), data


def test_what_real_programs_send_is_plain() -> None:
    """So that the shapes are of use. What Claude Code calls safeguards has fields without an end, and is searched."""
    plain_ones = 0
    for line in REQUESTS.read_text(encoding="utf-8").splitlines():
        path, sent = json.loads(line)["path"], json.loads(line)["body"]
        dialect = (
            Dialect.MESSAGES if "messages" in path
            else Dialect.CHAT if "chat" in path
            else Dialect.CODE_ASSIST if "v1internal" in path
            else Dialect.GEMINI if ":" in path
            else Dialect.RESPONSES
        )  # fmt: skip
        is_plain = plain(dialect, json.dumps(sent).encode())
        assert is_plain or {"safeguards", "previous_response_id"} & sent.keys() or "configuration_update" in line, line
        plain_ones += is_plain
    assert plain_ones > 35


@pytest.mark.parametrize("data", [b"", b"[]", b'"x"', b"{", b"\xff", b'{"model":"\xff"}', b"[" * 100_000, b"nul"])
def test_what_is_no_json_object_is_not_plain(data: bytes) -> None:
    assert not any(plain(dialect, data) for dialect in DIALECTS)
