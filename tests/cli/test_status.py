"""`pool-server status`, `top` and `completion`: the running pool in a few lines, and what completes them."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console
from rich.status import Status

from pool_server.app import run_file
from pool_server.cli import common, doctor, status
from pool_server.cli.pool import Running
from pool_server.demo import notice
from tests.cli.conftest import Shell
from tests.fakes import FakeProviders, account, fake_settings
from tests.process import PoolProcess, until

NOW = 1_790_000_000.0


def row(**changes: Any) -> dict[str, Any]:
    usual = {"provider": "claude", "accounts": {"ready": 1}, "ready": 1, "total": 1, "room_percent": 40.0,
             "windows": [{"resets_at": NOW + 29_160}], "next_return": None, "in_flight": 1}  # fmt: skip
    return usual | changes


def test_the_pool_in_words() -> None:
    found = {"status": "ok", "accounts": {"ready": 8, "total": 11}, "providers": [row(), row(in_flight=1)]}
    assert status.headline(found) == "The pool is up: 8 of 11 accounts are ready, 2 requests in flight."
    none = {"status": "draining", "accounts": {"ready": 0, "total": 1}, "providers": []}
    assert status.headline(none) == "The pool is restarting: 0 of 1 account is ready, no requests in flight."
    absent = row()
    del absent["in_flight"]
    found = {"status": "ok", "accounts": {"ready": 8, "total": 11}, "providers": [row(), absent]}
    assert status.headline(found) == "The pool is up: 8 of 11 accounts are ready.", "what is not told is not none"
    assert status.lines({"providers": [absent]}, NOW)[0][4] == "unknown"
    assert status.lines({"providers": [row(), row(total=0)]}, NOW) == [
        ("Claude", "1 account ready", "40 % left", "in 8 h 6 min", "1")
    ]
    unknown = row(room_percent=None, windows=[], ready=0, accounts={"needs_login": 1})
    assert status.lines({"providers": [unknown]}, NOW)[0][1:4] == (
        "0 of 1 account ready, 1 signed out", "unknown", "unknown",
    )  # fmt: skip


def test_no_name_of_a_client_s_reaches_the_terminal_raw() -> None:
    """A model is called whatever a client asked for."""
    asked = {"at": NOW, "user_name": "ada", "model": "m\x1b]0;x\x07\u202e", "account": "claude:a", "words": "ok",
             "total_tokens": None, "total_ms": 3.0}  # fmt: skip
    found = {"status": "ok", "accounts": {"ready": 1, "total": 1}, "providers": [row()], "requests": [asked]}
    console = Console(file=io.StringIO(), width=200)
    console.print(status.picture(found, NOW))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert r"m\x1b]0;x\x07\u202e" in told and told.replace("\n", "").isprintable()


def test_a_pool_whose_log_cannot_be_read_is_shown_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: str) -> dict[str, Any]:
        if path != "/status":
            raise click.ClickException("the pool says: the store is away (503)")
        return {"status": "store_failed"}

    server = Running("http://127.0.0.1:1", "")
    monkeypatch.setattr(server, "_call", lambda method, path: failing(path))
    assert list(status._looks(server, 1.0, once=True)) == [{"status": "store_failed", "requests": []}]


def test_whoever_names_a_pool_is_not_shown_the_demo(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.toml").write_text("")
    monkeypatch.setattr(notice, "running", lambda: ("http://127.0.0.1:1", "p"))
    for command in (("status",), ("top", "--once")):
        assert "This is the demo" in sh(*command).err
        assert "no running pool" in sh(*command, "--config", str(folder / "config.toml")).refused(1)


@pytest.mark.slow
def test_a_running_pool_is_asked_and_none_is_said_so(sh: Shell, folder: Path) -> None:
    assert "no running pool" in sh("status").refused(1)
    assert "no running pool" in sh("top").refused(1)
    with FakeProviders([account("claude:a")]) as fakes:
        settings = fake_settings(folder, fakes)
        with PoolProcess(folder, settings) as pool:
            shown = sh("status")
            assert shown.code == 0
            assert "The pool is up: 1 of 1 account is ready" in shown.out
            assert sh("status", "--json").json["accounts"] == {"total": 1, "ready": 1}
            top = sh("top", "--once").out
            assert "IN FLIGHT" in top and "LAST REQUESTS" not in top
            asked = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
            assert pool.call("POST", "/v1/messages", asked)[0] == 200
            until(lambda: "claude-sonnet-5" in sh("top", "--once").out, "the request is shown")
            assert sh("top", "--once", "--json").json["requests"][0]["account"] == "claude:a"
            assert sh("top", "--once", "--json").json["accounts"] == {"total": 1, "ready": 1}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_names_the_program(sh: Shell, folder: Path, shell: str) -> None:
    done = sh("completion", shell)
    assert done.code == 0
    assert "_POOL_SERVER_COMPLETE" in done.out
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=done.out, text=True, check=False).returncode == 0


def test_what_takes_long_is_said_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(common, "PATIENCE_S", 0.0)
    with common.waiting("Copying"):
        pass
    assert capsys.readouterr() == ("", "")
    started = threading.Event()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(force_terminal=True, stderr=True))
    monkeypatch.setattr(Status, "start", lambda self: started.set())
    with common.waiting("Copying"):
        assert started.wait(60)


def test_a_folder_that_may_not_be_read_is_told_as_that(
    sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as one that no server uses; what else can be looked at is."""
    real = Path.read_text

    def read_text(path: Path, encoding: str | None = None) -> str:
        if path.name == run_file.NOTE:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, encoding)

    monkeypatch.setattr(Path, "read_text", read_text)
    for command in (("status",), ("top", "--once"), ("account", "list"), ("upgrade",)):
        assert "data/.server.json: Permission denied" in sh(*command).refused(1)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "data")
    monkeypatch.setattr(doctor, "look_at_certificate", lambda *_: read_text(folder / run_file.NOTE))
    (folder / "data").mkdir()
    told = {row["check"]: row["message"] for row in sh("doctor", "--json").json["checks"]}
    assert "cannot be read" in told["port"] and "cannot be read" in told["store"]
    assert told[str(folder / run_file.NOTE)] == "Permission denied" and "settings" in told
