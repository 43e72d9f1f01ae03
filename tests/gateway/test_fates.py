"""What became of a field nobody knows: in the answer's headers and in the request's record, for every dialect."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import account, key_account, plays
from tests.gateway.stack import Stack, run
from tests.gateway.test_translated import CLAUDE, GPT, USAGE, ask, said

DIALECTS = ("chat", "messages", "responses", "gemini")
HOSTILE: dict[str, Any] = {
    "a\r\nX-Evil: 1": 1,
    "ü🌊,x": 2,
    "\x00\x1b[31m": 3,
    "x" * 5000: 4,
    **{f"field_{number}": number for number in range(3000)},
}


async def asked(stack: Stack, client: str, model: str, more: dict[str, Any]) -> tuple[Any, bytes]:
    path, body = ask(client, model, stream=False)
    headers = {"Authorization": f"Bearer {await stack.key()}", "Content-Type": "application/json"}
    async with stack.client.post(stack.url + path, data=json.dumps(body | more), headers=headers) as answer:
        return answer, await answer.read()


@pytest.mark.parametrize("client", DIALECTS)
def test_left_out_it_is_named(client: str, tmp_path: Path) -> None:
    only = account("claude:a") if client != "messages" else account("codex:a")
    model = CLAUDE if client != "messages" else GPT

    async def main() -> None:
        async with Stack(tmp_path, [only], friend_code="swim") as stack:
            stack.fakes.always(only.id, plays.ok(USAGE, ["Hello."]))
            answer, raw = await asked(stack, client, model, {"wind_direction": {"deg": 270}})
            assert answer.status == 200 and said(client, raw, stream=False) == "Hello."
            assert "wind_direction" in answer.headers["X-Pool-Dropped"].split(",")
            assert b"wind_direction" not in stack.fakes.calls[-1].body
            await stack.idle()
            assert "wind_direction" in stack.records()[-1].decision["dropped"]

    run(main)


@pytest.mark.parametrize("client", DIALECTS)
def test_untranslated_it_goes_up_as_it_came(client: str, tmp_path: Path) -> None:
    home = {
        "chat": (key_account("openai:a", models=[CLAUDE], dialects=["chat"]), CLAUDE),
        "messages": (account("claude:a"), CLAUDE),
        "responses": (key_account("codex:a"), GPT),
        "gemini": (key_account("gemini:a"), "gemini-3.8-flash"),
    }
    only, model = home[client]

    async def main() -> None:
        async with Stack(tmp_path, [only], friend_code="swim") as stack:
            stack.fakes.always(only.id, plays.ok(USAGE, ["Hello."]))
            answer, _ = await asked(stack, client, model, {"wind_direction": {"deg": 270}})
            assert answer.status == 200 and "X-Pool-Dropped" not in answer.headers
            assert json.loads(stack.fakes.made()[-1].body)["wind_direction"] == {"deg": 270}
            await stack.idle()
            assert stack.records()[-1].decision.keys().isdisjoint({"translation", "dropped"})

    run(main)


@pytest.mark.slow
@pytest.mark.parametrize("client", DIALECTS)
def test_names_that_are_hostile_harm_neither_headers_nor_record(client: str, tmp_path: Path) -> None:
    only = account("claude:a") if client != "messages" else account("codex:a")
    model = CLAUDE if client != "messages" else GPT

    async def main() -> None:
        async with Stack(tmp_path, [only], friend_code="swim") as stack:
            stack.fakes.always(only.id, plays.ok(USAGE, ["Hello."]))
            answer, raw = await asked(stack, client, model, HOSTILE)
            assert answer.status == 200, raw
            assert "X-Evil" not in answer.headers
            told = answer.headers["X-Pool-Dropped"]
            assert told.isascii() and told.isprintable() and len(told) < 4000
            await stack.idle()
            (record,) = stack.records()
            assert record.outcome == "ok" and record.decision["translation"]
            assert re.fullmatch(r"29\d\d more", record.decision["dropped"][-1]) and told.endswith(" more")

    run(main)
