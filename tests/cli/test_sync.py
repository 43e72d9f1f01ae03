"""`pool-server sync`: an account lent to a program, in its own file; undone to the byte."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shell
from tests.fakes import account

CLAUDE = {
    "claudeAiOauth": {"accessToken": "sk-ant-oat01-x", "refreshToken": "r", "expiresAt": int(time.time() + 9e5) * 1000}
}


@pytest.fixture
def files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Where each program keeps its credentials; the pool has one account of each kind."""
    work = account("codex:work", used_5h=1, used_7d=1).file()
    for name, data in {
        "codex_work": {**work, "label": "Work", "owner": "u_1"},
        "openai_key": {"api_key": "sk-lent-key"},
        "openai_far": {"api_key": "sk-lent-far", "base_url": "https://models.example.org/v1"},
        "claude_max": CLAUDE,
        "claude_key": {"api_key": "sk-ant-api03-lent"},
    }.items():
        (folder / f"pool/{name}.json").write_text(json.dumps(data))
    for name in ("CODEX_HOME", "XDG_DATA_HOME", "PI_CODING_AGENT_DIR"):
        monkeypatch.setenv(name, str(folder / name))
    return {
        "codex": folder / "CODEX_HOME/auth.json",
        "opencode": folder / "XDG_DATA_HOME/opencode/auth.json",
        "pi": folder / "PI_CODING_AGENT_DIR/auth.json",
    }


def content(path: Path) -> dict[str, Any]:
    assert path.stat().st_mode & 0o777 == 0o600
    data: dict[str, Any] = json.loads(path.read_text())
    return data


@pytest.mark.parametrize("before", [None, b'{"other": {"type": "api", "key": "mine"},\n "kept":1}'])
@pytest.mark.parametrize("program", ["codex", "opencode", "pi"])
def test_lent_and_put_back(sh: Shell, folder: Path, files: dict[str, Path], program: str, before: bytes | None) -> None:
    path = files[program]
    if before is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(before)
    for name in ("codex:work", "openai:key"):
        done = sh("sync", program, name)
        assert done.code == 0 and name in done.out, done
        if before is not None:
            assert content(path)["other"] == {"type": "api", "key": "mine"}
    assert "sk-lent-key" in path.read_text() and "sk-lent-key" not in done.out
    assert sh("sync", program, "--undo").code == 0
    assert (path.read_bytes() if path.exists() else None) == before
    assert [one.name for one in path.parent.iterdir()] == ([] if before is None else [path.name])
    assert "nothing to undo" in sh("sync", program, "--undo").refused(1)


@pytest.mark.parametrize("program", ["codex", "opencode", "pi"])
def test_the_refresh_token_stays_in_the_pool(sh: Shell, folder: Path, files: dict[str, Path], program: str) -> None:
    kept = json.loads((folder / "pool/codex_work.json").read_text())
    assert sh("sync", program, "codex:work").code == 0
    lent = files[program].read_text()
    assert kept["tokens"]["access_token"] in lent and kept["tokens"]["refresh_token"] not in lent
    assert "u_1" not in lent and "label" not in lent
    assert json.loads((folder / "pool/codex_work.json").read_text()) == kept


@pytest.mark.parametrize(
    ("program", "name", "why"),
    [
        ("codex", "claude:key", "takes accounts of codex"),
        ("opencode", "claude:max", "terms of claude"),
        ("pi", "claude:max", "terms of claude"),
        ("codex", "openai:far", "address of its own"),
        ("pi", "nobody", "no such account"),
    ],
)
def test_what_cannot_be_lent(sh: Shell, files: dict[str, Path], program: str, name: str, why: str) -> None:
    assert why in sh("sync", program, name).refused(1)
    assert not files[program].exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_file_that_is_not_understood_is_left(sh: Shell, files: dict[str, Path], text: str) -> None:
    path = files["pi"]
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert "left as it is" in sh("sync", "pi", "openai:key").refused(1)
    assert path.read_text() == text and len(list(path.parent.iterdir())) == 1


def test_usage(sh: Shell, files: dict[str, Path]) -> None:
    assert "--undo" in sh("sync", "pi").refused(2)
    assert "--undo" in sh("sync", "pi", "openai:key", "--undo").refused(2)
