"""The front of the commands: help, usage errors, settings."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pool_server import __version__
from pool_server.cli import COMMANDS, Commands
from tests.cli.conftest import Shell

README = Path(__file__).resolve().parents[2] / "README.md"


def test_help_names_every_command_and_each_has_its_own(sh: Shell) -> None:
    bare = sh()
    assert bare == sh("--help")
    assert bare.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in bare.out
        assert sh(name, "--help").out.startswith(f"Usage: pool-server {name}")


def test_readme_and_help_name_the_commands_of_every_group() -> None:
    front, nowhere = Commands("pool-server"), click.Context(click.Command("pool-server"))
    readme = "".join(re.findall(r"^\| `pool-server .*$", README.read_text(encoding="utf-8"), re.M))
    for name in COMMANDS:
        assert f"pool-server {name}" in readme or f"· `{name}" in readme, name
        group = front.get_command(nowhere, name)
        for part in group.commands if isinstance(group, click.Group) else ():
            assert re.search(rf"\b{part}\b", COMMANDS[name]), f"{name} {part} is missing in the list of commands"
            row = next(row for row in readme.split("| `") if row.startswith(f"pool-server {name}"))
            assert re.search(rf"\b{part}\b", row), f"{name} {part} is missing in the README"


@pytest.mark.parametrize(
    "args",
    [
        *(("account", name) for name in ("list", "test", "enable", "disable", "add-key")),
        *(
            ("user", name)
            for name in (
                "add",
                "list",
                "disable",
                "enable",
                "delete",
                "rotate",
                "limit",
                "rename",
                "set",
                "key",
                "code",
            )
        ),
    ],
)
def test_every_sub_command_has_help(sh: Shell, args: tuple[str, str]) -> None:
    done = sh(*args, "--help")
    assert (done.code, done.err) == (0, "")


def test_version(sh: Shell) -> None:
    assert sh("--version").out == f"pool-server {__version__}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nonsense",), "nonsense"),
        (("--nonsense",), "--nonsense"),
        (("serve", "--workers", "x"), "--workers"),
        (("account",), "ommand"),
        (("account", "add-key", "nobody"), "claude"),
        (("user", "add"), "NAME"),
        (("simulate", "--strategy", "luck"), "balanced"),
    ],
)
def test_wrong_use_is_one_line_and_two(sh: Shell, args: tuple[str, ...], words: str) -> None:
    assert words in sh(*args).refused(2)


@pytest.mark.parametrize(
    "args", [("serve",), ("account", "list"), ("user", "list"), ("backup", "x"), ("user", "add", "ann")]
)
def test_a_mistake_in_the_settings_is_one_line_and_two(sh: Shell, folder: Path, args: tuple[str, ...]) -> None:
    (folder / "config.toml").write_text("max_attemps = 3\n")
    assert "did you mean max_attempts" in sh(*args).refused(2)
    assert "no such file" in sh(*args, "--config", "elsewhere.toml").refused(2)


def test_options_are_checked_like_settings(sh: Shell) -> None:
    assert "listen_addr" in sh("serve", "--listen", "nowhere").refused(2)
    assert "workers = -1" in sh("serve", "--workers", "-1").refused(2)
    assert "loopback" in sh("serve", "--listen", "0.0.0.0:0").refused(2)


@pytest.mark.slow
def test_simulate_answers_a_list(sh: Shell, folder: Path) -> None:
    week = folder / "week.toml"
    week.write_text('name = "mine"\ntests = "Little."\nload = 0.2\n[[accounts]]\nplan = "pro"\n[[people]]\n')
    (row,) = sh("simulate", "--scenario", str(week), "--strategy", "balanced", "--seed", "7", "--json").json
    assert row["scenario"] == "mine" and row["strategy"] == "balanced" and row["requests"] > 0 == row["refused"]
    assert "100.0%" in sh("simulate", "--scenario", str(week), "--bound", "--baselines").out
    listed = sh("simulate", "--list", "--json").json
    assert "standard-week" in listed["scenarios"] and "headroom_score" in listed["strategies"]
    assert "hung-vendor" in sh("simulate", "--list").out


@pytest.mark.parametrize(
    ("written", "words"), [("name = 1", "name"), ("[[", "week.toml"), (None, "week.toml"), ("\xff", "week.toml")]
)
def test_a_wrong_week_is_one_line(sh: Shell, folder: Path, written: str | None, words: str) -> None:
    week = folder / "week.toml"
    if written is not None:
        week.write_bytes(written.encode("latin-1"))
    assert words in sh("simulate", "--scenario", str(week)).refused(1)
    assert "hung-vendor" in sh("simulate", "--scenario", "no-such-week").refused(2)


@pytest.mark.parametrize("typed", ["", "a code\n"])
def test_an_input_that_ends_is_told_as_that_and_a_key_press_as_stopped(
    sh: Shell, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    ended = sh("login", "http://127.0.0.1:1", stdin=typed)
    assert ended.code == 1 and "pool-server: the input ended before" in ended.err

    def pressed(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("click.termui.visible_prompt_func", pressed)
    monkeypatch.setattr("click.termui.hidden_prompt_func", pressed)
    assert sh("login", "http://127.0.0.1:1").err.strip().endswith("pool-server: stopped")
