"""The line that signs an account in on the person's own machine: its script, what it delivers, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Parser

from pool_server.core.enums import Provider
from pool_server.web.onboarding import sign_in_lines as lines
from tests.fakes import account
from tests.web.server import Running, running
from tests.web.test_sign_ins import begin, person, state, ticket


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Running]:
    cast = [account("claude:work", used_5h=20, used_7d=10), account("gemini:work"), account("qwen:work")]
    with running(tmp_path, cast) as made:
        yield made


def test_a_line_delivers_a_file_once(pool: Running) -> None:
    made = begin(pool, "claude", name="hers")
    assert "curl -fsSL" in made["line"] and made["state"] == "waiting"
    script = pool.ask("GET", f"/contribute/{ticket(made)}", Authorization="")[1]
    assert script.startswith("#!/bin/sh") and state(pool, made)["step"] == "code"
    file = pool.fakes.accounts["claude:work"].file()
    sent: dict[str, Any] = {"Authorization": "", "Content_Type": "text/plain"}
    status, said = pool.ask("POST", f"/contribute/{ticket(made)}", json.dumps(file).encode(), **sent)
    assert status == 201 and said["account"] == "claude:hers" and said["test"]["ok"]
    assert state(pool, made)["state"] == "done"
    assert pool.ask("POST", f"/contribute/{ticket(made)}", json.dumps(file).encode(), **sent)[0] == 404
    assert "used or has expired" in pool.ask("GET", f"/contribute/{ticket(made)}")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{}", 422, "no usable credential"),
        (b"\xff\xfe\x00", 422, "UTF-8"),
        (b"x" * (300 << 10), 413, "at most"),
        (json.dumps({"tokens": {"access_token": "a", "refresh_token": "b"}}).encode(), 422, "for claude"),
        (b'{"claudeAiOauth": {"accessToken": "sk-ant-oat01-unknown"}}', 422, "revoked"),
        (b'{"claudeAiOauth": {"acc', 422, "whole file"),
    ],
)
def test_a_wrong_delivery_is_told_and_the_line_still_works(pool: Running, body: bytes, status: int, words: str) -> None:
    made = begin(pool, "claude")
    sent: dict[str, Any] = {"Authorization": "", "Content_Type": "text/plain"}
    got, said = pool.ask("POST", f"/contribute/{ticket(made)}", body, **sent)
    assert got == status and words in said["error"]["message"], said
    file = json.dumps(pool.fakes.accounts["claude:work"].file()).encode()
    assert pool.ask("POST", f"/contribute/{ticket(made)}", file, **sent)[0] == 201


def test_a_foreign_ticket_is_nobodys(pool: Running) -> None:
    for one in ("A" * 32, "x", "%00" * 8):
        assert pool.ask("POST", f"/contribute/{one}", b"{}", Authorization="")[0] == 404


PROGRAM = """#!/bin/sh
printf '%s\\n' "$0 $*" >> "{log}"
{body}
"""
WRITES = {
    "codex": 'printf "%s" \'{file}\' > "$CODEX_HOME/auth.json"',
    "claude": '[ "$1" = auth ] && printf "%s" \'{file}\' > "$CLAUDE_CONFIG_DIR/.credentials.json"',
    "gemini": 'printf "%s" \'{file}\' > "$GEMINI_CLI_HOME/.gemini/oauth_creds.json"',
    "qwen": 'printf "%s" \'{file}\' > "$QWEN_HOME/oauth_creds.json"',
}


def install(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(PROGRAM.format(log=folder / "log", body=body))
    path.chmod(0o755)


def run_line(line: str, programs: Path, scratch: Path, typed: bytes = b"", **env: str) -> tuple[int, str]:
    """The line as somebody pastes it into a terminal of theirs."""
    scratch.mkdir(exist_ok=True)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin", "HOME": str(scratch / "home"), "TMPDIR": str(scratch), "DISPLAY": ":0",
        "no_proxy": "*", **env,
    }  # fmt: skip
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve("/bin/sh", ["sh", "-c", line], environment)
    if typed:
        os.write(terminal, typed)
    heard = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        heard += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), heard.decode()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["codex", "claude", "gemini", "qwen"])
def test_the_line_runs_the_vendors_own_program_in_a_home_that_goes(pool: Running, tmp_path: Path, name: str) -> None:
    who = person("ada") if name == "codex" else pool.fakes.accounts[f"{name}:work"]
    pool.fakes.add(who)
    install(tmp_path / "bin", name, WRITES[name].format(file=json.dumps(who.file())))
    made = begin(pool, name, name="hers")
    code, heard = run_line(made["line"], tmp_path / "bin", tmp_path / "tmp")
    assert code == 0 and "Done." in heard, heard
    assert state(pool, made)["account"] == f"{name}:hers"
    assert list((tmp_path / "tmp").iterdir()) == [], "the home is gone"
    assert who.access not in heard and who.refresh not in heard


def test_over_ssh_a_device_code_is_used(pool: Running, tmp_path: Path) -> None:
    install(tmp_path / "bin", "codex", "exit 1")
    made = begin(pool, "codex")
    code, heard = run_line(made["line"], tmp_path / "bin", tmp_path / "tmp", DISPLAY="", SSH_CONNECTION="a b")
    assert code == 1 and "did not come to its end" in heard
    assert "codex login --device-auth" in (tmp_path / "bin" / "log").read_text()
    assert list((tmp_path / "tmp").iterdir()) == [] and state(pool, made)["state"] == "waiting"


def test_without_a_file_a_setup_token_is_asked_for(pool: Running, tmp_path: Path) -> None:
    token = pool.fakes.accounts["claude:work"].access
    install(tmp_path / "bin", "claude", "exit 0")
    made = begin(pool, "claude", name="token")
    code, heard = run_line(made["line"], tmp_path / "bin", tmp_path / "tmp", typed=f"{token}\n".encode())
    assert code == 0, heard
    assert pool.file("claude_token.json")["claudeAiOauth"]["accessToken"] == token


def test_a_program_that_is_not_there_is_named(pool: Running, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    if shutil.which("qwen", path="/usr/bin:/bin"):
        pytest.skip("it is installed here")
    code, heard = run_line(begin(pool, "qwen")["line"], tmp_path / "bin", tmp_path / "tmp")
    assert code == 1 and "npm install -g @qwen-code/qwen-code" in heard


def test_what_the_pool_says_reaches_the_terminal(pool: Running, tmp_path: Path) -> None:
    install(tmp_path / "bin", "codex", 'printf "{}" > "$CODEX_HOME/auth.json"')
    code, heard = run_line(begin(pool, "codex")["line"], tmp_path / "bin", tmp_path / "tmp")
    assert code == 1 and "no usable credential" in heard


@pytest.mark.parametrize("provider", lines.PROGRAMS)
def test_both_scripts_are_grammatical(provider: Provider) -> None:
    told: dict[str, Any] = {"base": "https://pool.example", "ticket": "t" * 32, "pool": "Bob's pool"}
    subprocess.run(["sh", "-n"], input=lines.script(provider, powershell=False, **told), text=True, check=True)
    text = lines.script(provider, powershell=True, **told)
    tree = Parser(Language(tree_sitter_powershell.language())).parse(text.encode())
    assert not tree.root_node.has_error
