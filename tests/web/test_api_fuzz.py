"""The operator's API against its own description: schemathesis makes calls up from it, good and bad ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.web.pool import ADMIN
from tests.web.site import LiveSite

EXAMPLES = 4  # of each call
WITHIN_S = 600.0  # what only a hang reaches


def test_made_up_calls_are_answered_as_described(live_friends: LiveSite, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{live_friends.url}/api/v1/openapi.json",
        "--header", f"Authorization: Bearer {ADMIN}", "--phases", "examples,coverage,fuzzing", "--mode", "all",
        "--max-examples", str(EXAMPLES), "--generation-deterministic", "--continue-on-failure",
        "--checks", "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN_S)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
