"""Made-up conversations and answers over every pair: other words, names, ids, orders and splits with each seed.

What went up is read by this file's own few lines, not by the package's readers.
"""

from __future__ import annotations

import json
import random
from itertools import groupby
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.translation.grammar import Heard, hear, hear_whole
from tests.dialects.translation.kit import CLIENTS, PAIRS, SEALS, Blocks, answer, events, request, translate, up

SEEDS = range(15)
WORDS = (
    "tide", "Hafen", "Grüße", "東京", "рыба", "🏰🧭", "e\u0301clair", "\u202eRTL", "line\nbreak", "tab\tbed",
    '"quoted"', "back\\slash", "</system>", "{brace}", "\u2028sep", "NUL\u0001", "data: [DONE]", "event: x", "%s",
    "a" * 300, "\U0010ffff",
)  # fmt: skip
NAMES = (
    "moon", "tide_table", "mcp__harbour-master__look_up_tides", "x", "get.weather", "read/file", "names:with:colons",
    "ü_ber",
    "mcp__a_very_long_server_name_that_goes_on__and_a_tool_whose_name_goes_on_for_longer_than_any_vendor_takes",
    "mcp__a_very_long_server_name_that_goes_on__and_a_tool_whose_name_goes_on_for_longer_than_any_vendor_took",
    "1st", "-dash", "UPPER_case", "constructor", "__proto__",
)  # fmt: skip
IDS = ("call_{}", "toolu_{}", "{}", "id with blanks {}", "ü/{}", "call_" + "y" * 80 + "{}", "fc_{}:0", "a|b|{}")
VALUES: tuple[Any, ...] = (
    0,
    -1,
    2.5,
    True,
    None,
    "",
    "東京",
    [1, [2, []]],
    {"type": "string", "$ref": "#"},
    "1e400",
    {},
)
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Script:
    """One conversation, by its seed: turns, tools, system text, and the answer."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(f"script {seed}")
        self.tools = tuple(self._dice.sample(NAMES, self._dice.randint(1, 6)))
        self.system = self.words() if self._dice.random() < 0.7 else ""
        self._calls = 0
        self.turns: list[tuple[str, ...]] = []
        for _ in range(self._dice.randint(1, 4)):
            self.turns.append(("user", self.words()))
            for _ in range(self._dice.randint(0, 2)):
                self._round()
            if self._dice.random() < 0.8 or self.turns[-1][0] == "user":
                self.turns.append(("assistant", self.words()))
        self.turns.append(("user", self.words()))

    def words(self) -> str:
        return " ".join(self._dice.choices(WORDS, k=self._dice.randint(1, 6))) + "."

    def _call(self) -> tuple[str, ...]:
        self._calls += 1
        ident = self._dice.choice(IDS).format(self._calls)
        keys = self._dice.sample(("place", "ключ", "a b", "$ref", "type", "x" * 70), self._dice.randint(0, 4))
        arguments = {key: self._dice.choice(VALUES) for key in keys}
        return ("call", ident, self._dice.choice(self.tools), json.dumps(arguments, ensure_ascii=bool(self._calls % 2)))

    def _round(self) -> None:
        """Calls at once, their results in the order of the calls."""
        calls = [self._call() for _ in range(self._dice.randint(1, 4))]
        self.turns += calls
        self.turns += [("result", call[1], call[2], self.words()) for call in calls]

    def answer(self, seal: str) -> Blocks:
        blocks: Blocks = [("think", self.words(), seal)] if self._dice.random() < 0.4 else []
        blocks += [("text", self.words())] if self._dice.random() < 0.8 or not blocks else []
        blocks += [self._call() for _ in range(self._dice.randint(0, 4))]
        return blocks if any(block[0] != "think" for block in blocks) else [*blocks, ("text", self.words())]

    def cut(self, raw: bytes) -> list[bytes]:
        """The bytes, cut anywhere."""
        pieces = []
        while raw:
            size = self._dice.choice((1, 2, 7, 64, 1000))
            pieces.append(raw[:size])
            raw = raw[size:]
        return pieces


# ---------------------------------------------------------------- what went up


def said(kind: UpstreamKind, body: dict[str, Any]) -> list[tuple[str, ...]]:
    """The turns in what went up: as the kit has them, arguments as sorted JSON, results without a name."""
    if kind is UpstreamKind.CHAT:
        return [turn for message in body["messages"] for turn in _of_chat(message)]
    if kind in (UpstreamKind.CODEX, UpstreamKind.RESPONSES):
        head = [("system", body["instructions"])] if body.get("instructions") else []
        return [*head, *(turn for item in body["input"] for turn in _of_item(item))]
    if kind is UpstreamKind.MESSAGES:
        head = [("system", _joined(body["system"]))] if body.get("system") else []
        return [*head, *(turn for message in body["messages"] for turn in _of_claude(message))]
    parts = body.get("systemInstruction", {}).get("parts", [])
    head = [("system", "".join(part["text"] for part in parts))] if parts else []
    return [*head, *(turn for content in body["contents"] for turn in _of_content(content))]


def _joined(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _sorted(arguments: Any) -> str:
    return json.dumps(json.loads(arguments) if isinstance(arguments, str) else arguments, sort_keys=True)


def _of_chat(message: dict[str, Any]) -> list[tuple[str, ...]]:
    if message["role"] == "tool":
        return [("result", message["tool_call_id"], _joined(message["content"]))]
    role = "system" if message["role"] == "developer" else message["role"]
    found: list[tuple[str, ...]] = [(role, _joined(message["content"]))] if message.get("content") else []
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls", ())]
    return [*found, *(("call", ident, one["name"], _sorted(one["arguments"])) for ident, one in calls)]


def _of_item(item: dict[str, Any]) -> list[tuple[str, ...]]:
    if item["type"] == "function_call":
        return [("call", item["call_id"], item["name"], _sorted(item["arguments"]))]
    if item["type"] == "function_call_output":
        return [("result", item["call_id"], _joined(item["output"]))]
    return [("system" if item["role"] == "developer" else item["role"], _joined(item["content"]))]


def _of_claude(message: dict[str, Any]) -> list[tuple[str, ...]]:
    content = message["content"]
    if isinstance(content, str):
        return [(message["role"], content)]
    found: list[tuple[str, ...]] = []
    for block in content:
        if block["type"] == "tool_use":
            found.append(("call", block["id"], block["name"], _sorted(block["input"])))
        elif block["type"] == "tool_result":
            found.append(("result", block["tool_use_id"], _joined(block["content"])))
        elif block["type"] == "text":
            found.append((message["role"], block["text"]))
    return found


def _of_content(content: dict[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for part in content["parts"]:
        if "functionCall" in part:
            call = part["functionCall"]
            found.append(("call", call.get("id", ""), call["name"], _sorted(call["args"])))
        elif "functionResponse" in part:
            answered = part["functionResponse"]
            (told,) = answered["response"].values()
            found.append(("result", answered.get("id", ""), str(told)))
        elif "text" in part:
            found.append(("assistant" if content["role"] == "model" else "user", part["text"]))
    return found


def merged(turns: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Texts of one role in a row as one; ids by the order they were first seen in."""
    seen: dict[str, str] = {}
    found: list[tuple[str, ...]] = []
    for (kind, _), group in groupby(turns, key=lambda turn: (turn[0], turn[0] in ("call", "result") and id(turn))):
        several = list(group)
        if kind in ("call", "result"):
            (turn,) = several
            ident = seen.setdefault(turn[1], f"id {len(seen)}") if turn[1] else ""
            found.append((kind, ident, *turn[2:]))
        else:
            found.append((kind, "".join("".join(turn[1].split()) for turn in several)))
    return found


def wanted(script: Script, system: bool) -> list[tuple[str, ...]]:
    turns: list[tuple[str, ...]] = [("system", script.system)] if system and script.system else []
    for turn in script.turns:
        if turn[0] == "call":
            turns.append((*turn[:3], _sorted(turn[3])))
        else:
            turns.append(("result", turn[1], turn[3]) if turn[0] == "result" else turn)
    return merged(turns)


def offered(kind: UpstreamKind, body: dict[str, Any]) -> list[str]:
    tools = body.get("tools") or []
    if kind is UpstreamKind.CHAT:
        return [tool["function"]["name"] for tool in tools]
    if kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST):
        return [one["name"] for tool in tools for one in tool["functionDeclarations"]]
    return [tool["name"] for tool in tools]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_made_up_conversation_goes_up_whole_and_in_order(client: Dialect, kind: UpstreamKind, seed: int) -> None:
    script = Script(seed)
    body = up(client, kind, request(client, script.turns, tools=script.tools, system=script.system))
    names = dict(zip(offered(kind, body), script.tools, strict=True))
    assert len(names) == len(script.tools), "two tools must not become one"
    found = said(kind, body)
    by_name = kind in (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST)
    shown = [(turn[0], turn[1], names[turn[2]], *turn[3:]) if turn[0] == "call" else turn for turn in merged(found)]
    expected = wanted(script, True)
    if by_name and not any(turn[1] for turn in found if turn[0] == "call"):
        shown, expected = ([(t[0], "", *t[2:]) if t[0] in ("call", "result") else t for t in turns]
                           for turns in (shown, expected))  # fmt: skip
    assert shown == expected
    again = up(client, kind, request(client, script.turns, tools=script.tools, system=script.system))
    assert again == body


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_a_made_up_answer_comes_down_whole_however_it_is_cut(client: Dialect, kind: UpstreamKind, seed: int) -> None:
    script = Script(seed)
    heard: list[Heard] = []
    blocks = script.answer(SEALS[kind])
    for stream in (True, False):
        body = request(client, script.turns, tools=script.tools, stream=stream)
        translated = translate(client, kind, body, stream=stream)
        sent = json.loads(translated.body)
        names = offered(kind, sent["request"] if kind is UpstreamKind.CODE_ASSIST else sent)
        as_sent = dict(zip(script.tools, names, strict=True))
        told = [(b[0], b[1], as_sent[b[2]], b[3]) if b[0] == "call" else b for b in blocks]
        for pieces in (script.cut(b"".join(events(kind, told))), None):
            response = translate(client, kind, body, stream=stream).response
            if pieces is not None:
                raw = b"".join(response.feed(piece) for piece in pieces) + response.finish()
            else:
                raw = response.whole(answer(kind, told))
            assert response.complete and response.fault is None, response.fault
            heard.append(hear(client, raw) if stream else hear_whole(client, raw))
    for one in heard:
        assert one.texts() == "".join(block[1] for block in blocks if block[0] == "text")
        assert one.texts("think") == "".join(block[1] for block in blocks if block[0] == "think")
        assert one.calls() == [(block[2], json.loads(block[3])) for block in blocks if block[0] == "call"]
        idents = [block[1] for block in one.blocks if block[0] == "call"]
        assert len(set(idents)) == len(idents) and all(idents)


ODD_IDS = ("ü/1", "a b", "y" * 80, "call:0")


@pytest.mark.parametrize("odd", ODD_IDS)
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_ids_that_shorten_to_another_s_stay_apart(client: Dialect, kind: UpstreamKind, odd: str) -> None:
    """Whatever id a call of another turn, or the same one, has: each result stays with its call."""

    def sent(idents: tuple[str, ...]) -> list[tuple[str, ...]]:
        turns: list[tuple[str, ...]] = [("user", "?")]
        for number, ident in enumerate(idents):
            turns += [("call", ident, "moon", json.dumps({"n": number})), ("result", ident, "moon", f"r{number}")]
        return said(kind, up(client, kind, request(client, [*turns, ("user", "go")], tools=("moon",))))

    shortened = next((turn[1] for turn in sent((odd,)) if turn[0] == "call"), "") or f"{odd}_2"
    for idents in ((odd, shortened, odd), (shortened, odd, shortened), (odd, f"{shortened}_2", odd)):
        found = sent(idents)
        calls, results = ([turn for turn in found if turn[0] == one] for one in ("call", "result"))
        assert [json.loads(call[3])["n"] for call in calls] == [0, 1, 2]
        assert [result[2] for result in results] == ["r0", "r1", "r2"]
        assert [call[1] for call in calls] == [result[1] for result in results]
        if calls[0][1]:  # Gemini matches by name and order
            assert len({call[1] for call in calls}) == 3 and all(len(call[1]) <= 64 for call in calls)
        assert found[: len(sent(idents[:2])) - 1] == sent(idents[:2])[:-1], "what went up before stays as it was"


def pictures(client: Dialect, order: list[str]) -> dict[str, Any]:
    """A user's turn of words and pictures in this order ("i" for a picture)."""
    text = {Dialect.CHAT: "text", Dialect.RESPONSES: "input_text", Dialect.MESSAGES: "text"}.get(client)
    url = f"data:image/png;base64,{PICTURE}"
    pictured: dict[Dialect, dict[str, Any]] = {
        Dialect.CHAT: {"type": "image_url", "image_url": {"url": url}},
        Dialect.RESPONSES: {"type": "input_image", "image_url": url, "detail": "auto"},
        Dialect.MESSAGES: {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
    }
    shown = pictured.get(client, {"inlineData": {"mimeType": "image/png", "data": PICTURE}})
    parts = [shown if one == "i" else ({"type": text, "text": one} if text else {"text": one}) for one in order]
    turn: dict[str, Any] = {"role": "user", "content": parts}
    if client is Dialect.RESPONSES:
        return {"model": "m", "input": [{"type": "message", **turn}]}
    if client in (Dialect.CHAT, Dialect.MESSAGES):
        return {"model": "m", "max_tokens": 4000, "messages": [turn]}
    body = {"contents": [{"role": "user", "parts": parts}]}
    return {"model": "m", "request": body} if client is Dialect.CODE_ASSIST else body


@pytest.mark.parametrize("order", [["i", "what?"], ["one", "i", "two", "i", "three"], ["i"], ["東京", "i"]])
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_pictures_keep_their_place_among_the_words(client: Dialect, kind: UpstreamKind, order: list[str]) -> None:
    text = json.dumps(up(client, kind, pictures(client, order)), ensure_ascii=False)
    at = -1
    for one in order:
        at = text.find(PICTURE if one == "i" else one, at + 1)
        assert at >= 0, text
    assert text.count(PICTURE) == order.count("i")


def test_every_pair_has_its_variations() -> None:
    assert len(PAIRS) * len(SEEDS) >= 300 and {client for client, _ in PAIRS} == set(CLIENTS)
