"""The real Codex over its WebSocket where the pool has only HTTP behind it, and where it has nothing left at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pool_server.core.enums import Outcome, Transport
from pool_server.core.models import Usage
from tests.clients.cases import CODEX, missing
from tests.clients.jail import why_not
from tests.clients.stage import stage
from tests.clients.test_killed import ANSWER, TOOLS, clean
from tests.fakes import Surface, faults, plays

pytestmark = pytest.mark.clis
USAGE = Usage(input=37, cache_read=1100, output=11, known=True)


@pytest.fixture(autouse=True)
def _possible() -> None:
    reason = missing("codex") or why_not()
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("kind", ["API keys", "426", "404"])
def test_turns_with_a_tool_are_bridged_unseen(tmp_path: Path, kind: str) -> None:
    case = dataclasses.replace(CODEX[0], keys_only=kind == "API keys")
    with stage(case, tmp_path) as scene:
        for ident in scene.fakes.accounts:
            scene.fakes.always(ident, plays.ok(USAGE, ANSWER).but(tools=TOOLS))
            if kind != "API keys":
                scene.fakes.always(ident, plays.status(int(kind)), on="handshake")
        for argv in (case.first, case.second):
            ran = scene.turn(argv)
            clean(scene, ran)
        records = scene.answers()
        assert {(one.transport, one.outcome) for one in records} == {(Transport.WEBSOCKET, Outcome.OK)}
        assert [one.usage for one in records] == [USAGE] * 4, "each turn calls the tool and hears of its result"
        assert len({one.account for one in records}) == 1
        calls = scene.fakes.made(surface=Surface.RESPONSES)
        assert len(calls) == len(records)
        assert all("previous_response_id" not in call.json for call in calls)
        assert calls[1].json["input"][-1]["type"] == "function_call_output"


def test_a_pool_without_room_is_told_once(tmp_path: Path) -> None:
    with stage(CODEX[0], tmp_path) as scene:
        for ident in scene.fakes.accounts:
            scene.fakes.always(ident, faults.codex_usage_limit(resets_in=3600))
        ran = scene.run(CODEX[0].first)
        shown = ran.out + ran.err
        assert ran.code != 0
        assert "out of room, or try again at" in shown, scene.told(ran)
        assert "Reconnecting" not in shown
        assert [one.outcome for one in scene.answers()] == [Outcome.UPSTREAM, Outcome.EXHAUSTED], scene.told(ran)
