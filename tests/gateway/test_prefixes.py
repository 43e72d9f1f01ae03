"""A long conversation on an account of another dialect: what goes up begins as it did the turn before, byte for byte.

Vendors' prompt caches hold what a request has in common with the one before it from its first byte on.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from tests.dialects.translation.kit import request
from tests.fakes import plays
from tests.gateway.stack import Stack, run
from tests.gateway.test_sdks import ACCOUNTS

TURNS = 50
TOOL = "mcp__an_office_whose_name_is_so_long_that_no_vendor_takes_it__tide_table_of_a_place"
OWN = {  # accounts that speak the client's dialect: bytes pass as they come
    Dialect.CHAT: {"openai-key", "codex-key", "qwen", "chat"},
    Dialect.RESPONSES: {"codex", "codex-key", "openai-key", "responses"},
    Dialect.MESSAGES: {"claude", "claude-key", "messages"},
    Dialect.GEMINI: {"code-assist", "gemini-key"},
}
PAIRS = [(client, kind) for client in OWN for kind in ACCOUNTS if kind not in OWN[client]]


def path_of(client: Dialect, model: str) -> str:
    if client is Dialect.GEMINI:
        return f"/v1beta/models/{model}:generateContent"
    paths = {Dialect.CHAT: "chat/completions", Dialect.RESPONSES: "responses", Dialect.MESSAGES: "messages"}
    return f"/v1/{paths[client]}"


@pytest.mark.slow
@pytest.mark.parametrize(("client", "kind"), PAIRS)
def test_fifty_turns_share_their_beginning(tmp_path: Path, client: Dialect, kind: str) -> None:
    model, make = ACCOUNTS[kind]

    async def main() -> None:
        one = make()
        async with Stack(tmp_path, [one], friend_code="swim") as stack:
            stack.fakes.always(one.id, plays.ok(pieces=["Low ", "tide."]))
            key = await stack.key()
            turns: list[tuple[str, ...]] = []
            for number in range(TURNS):
                turns.append(("user", f"Day {number}, Grüße 🌊?"))
                body: dict[str, Any] = request(client, turns, tools=(TOOL, "moon"), system="Be brief.")
                body |= {"model": model} if client is not Dialect.GEMINI else {}
                status, raw = await stack.post(path_of(client, model), body, token=key)
                assert status == 200, raw
                if number % 3 == 0:
                    ident = f"call:{number}/ü"
                    turns += [("call", ident, TOOL, '{"place":"x"}'), ("result", ident, TOOL, "ebb")]
                turns.append(("assistant", f"Low at {number}."))
            bodies = [call.body for call in stack.fakes.made()]
            assert len(bodies) == TURNS
            for before, after in pairwise(bodies):
                turns_end = before.rindex(b"]")
                assert after[:turns_end] == before[:turns_end] and len(after) > len(before)

    run(main)


def test_no_pair_is_left_out() -> None:
    assert {client for client, _ in PAIRS} == set(OWN) and {kind for _, kind in PAIRS} == set(ACCOUNTS)
