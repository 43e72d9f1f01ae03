"""With telemetry, plugins and account checks on, a start shows nothing odd, and none of that reaches a provider."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.cases import CLAUDE, CODEX, GEMINI, QUIET, Case, Files, missing
from tests.clients.jail import why_not
from tests.clients.stage import stage
from tests.clients.test_killed import ANSWER, clean
from tests.fakes import Surface, plays

pytestmark = pytest.mark.clis

ACCOUNT = "11111111-2222-4333-8444-555555555555"
LONGEST_S = 25.0  # a start that waits for something nobody answers takes minutes


def _loud(case: Case) -> Case:
    """Codex with everything on that the set-up switches off."""

    def files(key: str) -> Files:
        return {name: text.replace(QUIET, "") for name, text in case.files(key).items()}

    return dataclasses.replace(case, name=f"{case.name}-loud", files=files)


def _with_account(case: Case) -> Case:
    """Codex with a login that names an account, so that it asks where that account's workspace lives."""

    def files(key: str) -> Files:
        made = case.files(key)
        login = json.loads(made[".codex/auth.json"])
        login["tokens"]["account_id"] = ACCOUNT
        return {**made, ".codex/auth.json": json.dumps(login)}

    return dataclasses.replace(case, name=f"{case.name}-account", files=files)


def _chatty(case: Case) -> Case:
    """Claude Code without the switch that keeps it quiet."""

    def env(key: str) -> dict[str, str]:
        return {k: v for k, v in case.env(key).items() if k != "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"}

    return dataclasses.replace(case, name=f"{case.name}-chatty", env=env)


CASES = [
    _loud(CODEX[0]),
    _loud(CODEX[1]),
    _with_account(CODEX[1]),
    *map(_chatty, CLAUDE),
    GEMINI[0],
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_start_is_quiet(case: Case, tmp_path: Path) -> None:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    with stage(case, tmp_path) as scene:
        for ident in scene.fakes.accounts:
            scene.fakes.always(ident, plays.ok(pieces=ANSWER))
        began = time.monotonic()
        clean(scene, scene.turn(case.first))
        assert time.monotonic() - began < LONGEST_S
        wanted: Callable[[Surface], bool] = {*Surface}.difference({Surface.PROFILE, Surface.UNKNOWN}).__contains__
        assert all(wanted(call.surface) for call in scene.fakes.calls), scene.fakes.calls
        assert all(ACCOUNT not in repr(call.headers) for call in scene.fakes.calls)
