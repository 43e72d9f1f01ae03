"""The operator's API against its own description: schemathesis makes calls up from it, good and bad ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pool_server.core.enums import TokenScope
from pool_server.users import SERVER
from tests.web.pool import ADMIN
from tests.web.site import LiveSite

DESCRIPTION = Path(__file__).resolve().parents[2] / "docs/openapi.json"
EXAMPLES = 4  # of each call by who may make it
WITHIN_S = 600.0  # what only a hang reaches


def answered(
    live: LiveSite, folder: Path, bearer: str, examples: int, phases: str = "examples,coverage,fuzzing"
) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", str(DESCRIPTION), "--url", live.url,
        "--header", f"Authorization: Bearer {bearer}", "--phases", phases, "--mode", "all",
        "--max-examples", str(examples), "--generation-deterministic", "--continue-on-failure",
        "--checks", "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


def test_made_up_calls_are_answered_as_described(live_friends: LiveSite, tmp_path: Path) -> None:
    answered(live_friends, tmp_path, ADMIN, EXAMPLES)


@pytest.mark.parametrize("scope", list(TokenScope))
def test_calls_of_a_token_are_answered_as_described_within_its_scope_and_outside(
    live_friends: LiveSite, tmp_path: Path, scope: TokenScope
) -> None:
    made = live_friends.run(
        lambda: live_friends.ctx.users.admin_tokens.create(actor=SERVER, label="made up", scopes=[scope])
    )
    answered(live_friends, tmp_path, made["token"], 1, phases="examples,fuzzing")
