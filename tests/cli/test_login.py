"""`pool-server account login`: the vendor's own program in a temporary home, with and without a running server."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_server.core.enums import Provider
from pool_server.web.onboarding.programs import PROGRAMS
from tests.cli.conftest import Shell
from tests.fakes import FakeAccount, FakeProviders, account, fake_settings
from tests.process import PoolProcess, to_toml

PROGRAM = '#!/bin/sh\nprintf "%s\\n" "$0 $*" >> "{log}"\n{body}\n'
WRITES = {
    "codex": '[ -s "$CODEX_HOME/config.toml" ] && printf "%s" \'{file}\' > "$CODEX_HOME/auth.json"',
    "claude": '[ "$1" = auth ] && printf "%s" \'{file}\' > "$CLAUDE_CONFIG_DIR/.credentials.json"',
    "gemini": 'printf "%s" \'{file}\' > "$GEMINI_CLI_HOME/.gemini/oauth_creds.json"',
    "qwen": 'printf "%s" \'{file}\' > "$QWEN_HOME/oauth_creds.json"',
}


@pytest.fixture
def fakes() -> Iterator[FakeProviders]:
    with FakeProviders() as made:
        yield made


@pytest.fixture
def programs(folder: Path, fakes: FakeProviders, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings that lead to the fakes, and a PATH on which the vendors' programs are to be put."""
    (folder / "config.toml").write_text(to_toml(fake_settings(folder, fakes)))
    for one in ("codex", "claude", "gemini", "qwen"):
        fakes.add(account(f"{one}:mine", used_5h=10, used_7d=20))
    (folder / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder / "bin"


def install(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(PROGRAM.format(log=folder / "log", body=body))
    path.chmod(0o755)


def writes(who: FakeAccount) -> str:
    return WRITES[who.provider.value].format(file=json.dumps(who.file()))


@pytest.mark.parametrize("name", WRITES)
def test_the_program_runs_in_a_home_that_goes(
    sh: Shell, folder: Path, programs: Path, fakes: FakeProviders, name: str
) -> None:
    install(programs, name, writes(fakes.accounts[f"{name}:mine"]))
    done = sh("account", "login", name, "--name", "mine", "--yes")
    assert done.code == 0 and f"{name}:mine is in the pool" in done.out, done
    kept = (folder / f"pool/{name}_mine.json").read_text()
    assert fakes.accounts[f"{name}:mine"].access in kept and fakes.accounts[f"{name}:mine"].refresh in kept
    assert list((folder / "tmp").iterdir()) == []
    assert fakes.accounts[f"{name}:mine"].access not in done.out + done.err


@pytest.mark.slow
def test_through_a_running_server(sh: Shell, folder: Path, programs: Path, fakes: FakeProviders) -> None:
    install(programs, "claude", writes(fakes.accounts["claude:mine"]))
    known, fakes.accounts = fakes.accounts, {}  # whose files would be written into the pool
    settings = fake_settings(folder, fakes)
    fakes.accounts = known
    with PoolProcess(folder, settings):
        done = sh("account", "login", "claude", "--name", "mine", "--yes")
        assert done.code == 0, done
        assert [row["id"] for row in sh("account", "list", "--json").json] == ["claude:mine"]


@pytest.mark.slow
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_the_same_person_again_is_the_same_account(
    sh: Shell, folder: Path, programs: Path, fakes: FakeProviders, running: bool
) -> None:
    first = fakes.accounts["codex:mine"]
    again = account("codex:again", used_5h=10, used_7d=20)
    again.account_id, again.user_id, again.generation = first.account_id, first.user_id, 1
    again.access, again.refresh = again._access_token(), again._refresh_token()
    install(programs, "codex", writes(first))
    assert sh("account", "login", "codex", "--name", "mine", "--yes").code == 0
    known, fakes.accounts = fakes.accounts, {}  # whose files would be written into the pool
    settings = fake_settings(folder, fakes)
    fakes.accounts = known
    fakes.add(again)
    install(programs, "codex", writes(again))
    with PoolProcess(folder, settings) if running else contextlib.nullcontext():
        done = sh("account", "login", "codex", "--name", "other", "--yes")
    assert done.code == 0 and "codex:mine is in the pool" in done.out, done
    assert [path.name for path in (folder / "pool").glob("*.json")] == ["codex_mine.json"]
    assert json.loads((folder / "pool/codex_mine.json").read_text())["tokens"]["refresh_token"] == again.refresh


def test_over_ssh_without_a_browser(
    sh: Shell, programs: Path, fakes: FakeProviders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4 5 6.7.8.9 22")
    install(programs, "codex", writes(fakes.accounts["codex:mine"]))
    assert sh("account", "login", "codex", "--yes").code == 0
    assert "codex login --device-auth" in (programs / "log").read_text()


def test_a_token_that_is_shown_is_asked_for(sh: Shell, folder: Path, programs: Path, fakes: FakeProviders) -> None:
    install(programs, "claude", "exit 0")
    done = sh("account", "login", "claude", "--name", "t", "--yes", stdin=f"{fakes.accounts['claude:mine'].access}\n")
    assert done.code == 0, done
    assert "refreshToken" not in json.loads((folder / "pool/claude_t.json").read_text())["claudeAiOauth"]


def test_without_consent_nothing_runs(sh: Shell, programs: Path) -> None:
    install(programs, "claude", "exit 0")
    done = sh("account", "login", "claude", stdin="n\n")
    assert done.code != 0 and "Anthropic" in done.out and not (programs / "log").exists()


def test_what_goes_wrong_is_one_line(sh: Shell, folder: Path, programs: Path, fakes: FakeProviders) -> None:
    assert "npm install -g" in sh("account", "login", "qwen", "--yes").refused(1) or os.path.exists("/usr/bin/qwen")
    install(programs, "codex", "exit 3")
    assert "left no sign-in" in sh("account", "login", "codex", "--yes").err
    install(programs, "codex", 'printf "{}" > "$CODEX_HOME/auth.json"')
    assert "no usable credential" in sh("account", "login", "codex", "--yes").err
    wrong = fakes.accounts["claude:mine"].file()
    install(programs, "codex", f"printf '%s' '{json.dumps(wrong)}' > \"$CODEX_HOME/auth.json\"")
    assert "no credential of codex" in sh("account", "login", "codex", "--yes").err
    assert list((folder / "pool").iterdir()) == []


@pytest.mark.parametrize(("of", "name"), [("com", "kimi-code.json"), ("ai", "kimi-code-env-a3faf7e0e998483e.json")])
def test_both_editions_of_kimi_leave_their_own_file(tmp_path: Path, of: str, name: str) -> None:
    program = PROGRAMS[Provider.KIMI]
    assert program.left(tmp_path) == ""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / name).write_text('{"access_token": "a"}')
    (tmp_path / "config.toml").write_text(f'base_url = "https://api.kimi.{of}/coding/v1"\n')
    told = json.loads(program.left(tmp_path))
    assert told == {"access_token": "a"} | ({"region": "ai"} if of == "ai" else {})
