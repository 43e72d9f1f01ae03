"""Real CLIs on accounts of other vendors: two turns, each with a tool the model asks for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_server.core.enums import Outcome
from pool_server.core.models import Usage
from tests.clients.cases import CLAUDE, CODEX, Case, missing
from tests.clients.jail import why_not
from tests.clients.stage import stage
from tests.clients.test_killed import ANSWER, TOOLS, clean
from tests.fakes import FakeAccount, account, key_account, plays

pytestmark = pytest.mark.clis

USAGE = Usage(input=37, cache_read=1100, output=11, known=True)
GPT, SONNET, FLASH, OTHER = "gpt-6.1-sol", "claude-sonnet-5-5", "gemini-3.8-flash", "house-model-1"
Cast = tuple[str, Callable[[], FakeAccount]]
ON: dict[str, Cast] = {
    "codex": (GPT, lambda: account("codex:a", used_5h=10)),
    "claude": (SONNET, lambda: account("claude:a", used_5h=10)),
    "code-assist": (FLASH, lambda: account("gemini:a")),
    "gemini-key": (FLASH, lambda: key_account("gemini:a")),
    "chat": (OTHER, lambda: key_account("openai:a", models=[OTHER], dialects=["chat"])),
}


def claude_code(model: str) -> Case:
    """Claude Code told by its own variables which model to ask for."""
    base = CLAUDE[0]

    def env(key: str) -> dict[str, str]:
        return {**base.env(key), "ANTHROPIC_MODEL": model, "ANTHROPIC_DEFAULT_HAIKU_MODEL": model}

    return dataclasses.replace(base, env=env)


def codex(base: Case, model: str) -> Case:
    """Codex told by its settings which model to ask for."""

    def files(key: str) -> dict[str, str]:
        made = base.files(key)
        return {**made, ".codex/config.toml": f'model = "{model}"\n' + made[".codex/config.toml"]}

    return dataclasses.replace(base, files=files)


CASES = [
    *(pytest.param(claude_code(ON[kind][0]), kind, id=f"claude-on-{kind}") for kind in ON if kind != "claude"),
    *(
        pytest.param(codex(base, ON[kind][0]), kind, id=f"{base.name}-on-{kind}")
        for base in (CODEX[0], CODEX[1])  # over a WebSocket, over HTTP
        for kind in ON
        if kind != "codex"
    ),
]


@pytest.mark.parametrize(("case", "kind"), CASES)
def test_two_turns_with_a_tool(case: Case, kind: str, tmp_path: Path) -> None:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    model, make = ON[kind]
    only = make()
    with stage(case, tmp_path, only=[only]) as scene:
        scene.fakes.always(only.id, plays.ok(USAGE, ANSWER).but(tools=TOOLS))
        for turn, argv in enumerate((case.first, case.second), 1):
            clean(scene, scene.turn(argv))
            assert len(scene.answers()) >= 2 * turn, scene.told(scene.run(["true"]))
        records = scene.answers()
        assert {(one.outcome, one.account, one.model) for one in records} == {(Outcome.OK, only.id, model)}
        assert all(one.usage == USAGE for one in records), [one.usage for one in records]
        assert all(one.decision["translation"] for one in records)
        assert scene.upstream_answers() == len(records), "every model call is recorded once"
        sent = json.dumps([call.json for call in scene.fakes.made()[-1:]])
        assert "say hi again" in sent and "seen" in sent, "the whole conversation goes up, with what the tools gave"
        assert all(scene.key not in repr(call.headers) + call.raw_path for call in scene.fakes.calls)
