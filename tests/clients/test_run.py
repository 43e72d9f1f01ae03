"""`pool-server run` with each real CLI of somebody who has set it up for something else: this run goes to the pool, and
nothing of theirs is changed or sent there."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from pool_server.core.enums import Outcome
from tests.clients.cases import CLAUDE, CODEX, GEMINI, OPENCODE, QUIET, QWEN, Case, missing
from tests.clients.jail import Jail, why_not
from tests.clients.stage import stage
from tests.fakes import plays

pytestmark = pytest.mark.clis

URL_ELSEWHERE = "http://127.0.0.1:9"  # nobody answers there
THEIRS = "their-own-secret"
CODEX_LOGIN = {
    "auth_mode": "chatgpt",
    "OPENAI_API_KEY": None,
    "tokens": {"id_token": "e30.e30.e30", "access_token": THEIRS, "refresh_token": "", "account_id": None},
    "last_refresh": "2099-01-01T00:00:00Z",
}
OPENCODE_PROVIDER = {
    "npm": "@ai-sdk/openai-compatible",
    "options": {"baseURL": f"{URL_ELSEWHERE}/v1", "apiKey": THEIRS},
    "models": {"mine": {"name": "mine"}},
}
FILES: dict[str, dict[str, str]] = {
    "codex": {".codex/config.toml": 'model = "gpt-5.5"\n' + QUIET, ".codex/auth.json": json.dumps(CODEX_LOGIN)},
    "claude": {
        ".claude/settings.json": json.dumps(
            {"env": {"ANTHROPIC_BASE_URL": URL_ELSEWHERE, "ANTHROPIC_AUTH_TOKEN": THEIRS}}
        )
    },
    "gemini": {
        ".gemini/settings.json": json.dumps(
            {
                "security": {"auth": {"selectedType": "gemini-api-key"}},
                "privacy": {"usageStatisticsEnabled": False},
            }
        ),
        ".gemini/.env": f"GEMINI_API_KEY={THEIRS}\nGOOGLE_GEMINI_BASE_URL={URL_ELSEWHERE}\n",
    },
    "qwen": {
        ".qwen/settings.json": json.dumps(
            {
                "privacy": {"usageStatisticsEnabled": False},
                "$version": 4,
                "security": {"auth": {"selectedType": "qwen-oauth", "apiKey": THEIRS, "baseUrl": URL_ELSEWHERE}},
            }
        ),
        ".qwen/.env": f"OPENAI_API_KEY={THEIRS}\nOPENAI_BASE_URL={URL_ELSEWHERE}/v1\n",
    },
    "opencode": {
        ".config/opencode/opencode.json": json.dumps(
            {
                "$schema": "https://opencode.ai/config.json",
                "provider": {"mine": OPENCODE_PROVIDER},
                "model": "mine/mine",
                "autoupdate": False,
                "share": "disabled",
            }
        )
    },
}
ARGS = {
    "codex": CODEX[0].first[1:],
    "claude": ["-p", "say hi"],
    "gemini": ["--skip-trust", "-p", "say hi"],
    "qwen": ["-p", "say hi"],
    "opencode": ["run", "-m", "pool/qwen3-coder-plus", "say hi"],
}


def _case(like: Case) -> Case:
    run = [sys.executable, "-m", "pool_server", "run", "--pool", Jail.url, *_labelled(like.client), like.client]

    def env(key: str) -> dict[str, str]:
        quiet = {"OPENCODE_DISABLE_MODELS_FETCH": "1"} if like.client == "opencode" else {}
        return {**quiet, "POOL_SERVER_KEY": key, "ANTHROPIC_API_KEY": THEIRS, "OPENAI_API_KEY": THEIRS}

    return dataclasses.replace(
        like,
        name=f"run-{like.client}",
        first=[*run, *ARGS[like.client]],
        files=lambda key: FILES[like.client],
        env=env,
    )


def _labelled(client: str) -> list[str]:
    return ["--as", f"my-{client}"]


CASES = [_case(one) for one in (CODEX[0], CLAUDE[0], GEMINI[0], QWEN, OPENCODE)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_goes_to_the_pool_and_edits_nothing(case: Case, tmp_path: Path) -> None:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    with stage(case, tmp_path) as scene:
        for ident in scene.fakes.accounts:
            scene.fakes.always(ident, plays.ok(pieces=["Hello", " from", " the fake."]))
        scene.turn(case.first)
        records = scene.answers()
        assert records, "the pool served it"
        assert {record.outcome for record in records} == {Outcome.OK}
        assert {record.agent for record in records} == {f"my-{case.client}"}
        assert all(THEIRS not in repr(call.headers) for call in scene.fakes.calls)
        home = tmp_path / "home"
        for name, text in FILES[case.client].items():
            assert (home / name).read_text() == text, name
