"""`pool-server transcripts`: lists all, reads what is shared, deletes what is asked for."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner

from pool_server.cli import cli
from pool_server.storage.encrypted_stream import encrypt
from pool_server.transcripts import archive

SESSION = "0199a213-81c0-7800-8aa1-bbab2a035a53"
LINES = [
    {"type": "exchange", "agent": "Codex 1", "session": SESSION},
    {"type": "body", "data": "aGVsbG8="},
    {"type": "end"},
]


class Shell:
    def __init__(self, folder: Path, extra: str = "") -> None:
        self.data = folder / "data"
        self.config = folder / "config.toml"
        self.config.write_text(
            f'data_dir = "{self.data}"\npool_dir = "{folder / "pool"}"\n{extra}\n[transcripts]\nenabled = true\n'
        )
        self.user = ""

    def __call__(self, *args: str) -> Any:
        return CliRunner().invoke(cli, [*args, "--config", str(self.config)])

    def put(self, user: str, talk: str = "c1", *, age_days: float = 0.0) -> str:
        path = archive.place(self.data / "transcripts", user, "Codex/1.0", talk, f"e{age_days:g}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstandard.compress(b"".join(json.dumps(line).encode() + b"\n" for line in LINES)))
        os.utime(path, (time.time() - age_days * 86_400,) * 2)
        return f"codex.{talk}"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path, 'friend_code = "swim"')
    assert made("user", "add", "Ada").exit_code == 0
    made.user = json.loads(made("user", "list", "--json").output)[0]["id"]
    return made


def test_all_are_listed_with_codex_s_own_files(shell: Shell, tmp_path: Path) -> None:
    assert "No transcripts" in shell("transcripts", "list").output
    shell.put(shell.user)
    rollouts = tmp_path / "sessions" / "2026" / "11"
    rollouts.mkdir(parents=True)
    rollout = rollouts / f"rollout-2026-11-29T10-00-00-{SESSION}.jsonl"
    rollout.touch()
    told = shell("transcripts", "list", "--codex-sessions", str(tmp_path / "sessions"), "--json")
    [row] = json.loads(told.output)
    assert (row["name"], row["session"], row["codex_file"]) == ("Ada", SESSION, str(rollout))
    assert "Ada" in shell("transcripts", "list", "--user", "ada").output
    assert shell("transcripts", "list", "--user", "nobody").exit_code == 1


def test_what_is_not_shared_is_not_read(shell: Shell, tmp_path: Path) -> None:
    talk = shell.put(shell.user)
    target = tmp_path / "out.jsonl"
    for args in (("show", talk), ("export", talk, str(target))):
        refused = shell("transcripts", *args)
        assert refused.exit_code == 1 and "has not shared" in refused.output
    assert not target.exists()
    archive.share(shell.data / "transcripts" / shell.user / "codex" / "c1", True)
    assert "hello" in shell("transcripts", "show", talk).output
    assert shell("transcripts", "export", talk, str(target)).exit_code == 0
    assert [json.loads(line) for line in target.read_text().splitlines()] == LINES
    assert target.stat().st_mode & 0o777 == 0o600
    assert shell("transcripts", "export", talk, str(target)).exit_code == 1
    assert shell("transcripts", "show", "codex.none").exit_code == 1


def test_in_local_mode_ones_own_are_read(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    talk = shell.put("local")
    assert "hello" in shell("transcripts", "show", talk).output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["codex.c1"], 1), (["--user", "ada"], 0), (["--older-than", "5"], 2), (["--all"], 0), (["codex.none"], 3),
        (["codex.c1", "--older-than", "5"], 2),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_deleted(shell: Shell, args: list[str], left: int) -> None:
    shell.put(shell.user)
    shell.put(shell.user, age_days=9)
    shell.put(shell.user, "c2")
    assert shell("transcripts", "purge").exit_code == 2
    told = shell("transcripts", "purge", *args)
    assert told.exit_code == 0 and told.output.startswith(f"{3 - left} exchange")
    assert len(list((shell.data / "transcripts").rglob("*.zst"))) == left


def test_an_encrypted_copy_is_opened_with_the_key_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "x.enc", tmp_path / "x"
    source.write_bytes(b"".join(encrypt([b"words"], "k1", b"1" * 32)))
    command = ["transcripts", "decrypt", str(source), str(target)]
    monkeypatch.delenv("POOL_STORE_KEY", raising=False)
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1 and "not here" in refused.output and not target.exists()
    monkeypatch.setenv("POOL_STORE_KEY", "k1:" + base64.b64encode(b"1" * 32).decode())
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert target.read_bytes() == b"words" and target.stat().st_mode & 0o777 == 0o600
