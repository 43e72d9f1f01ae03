"""Every command answers programs too: with data, or with what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pool_server.cli import COMMANDS, cli
from pool_server.cli.common import PLAIN
from tests.cli.conftest import Shell


def leaves() -> Iterator[tuple[str, click.Command]]:
    waiting: list[tuple[str, click.Command]] = []
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        waiting.append((name, command))
    while waiting:
        path, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [(f"{path} {name}", one) for name, one in command.commands.items()]
        else:
            yield path, command


def test_every_command_has_it_but_those_that_run_on_or_print_a_file() -> None:
    found = {path: any("--json" in option.opts for option in command.params) for path, command in leaves()}
    assert {path for path, has in found.items() if not has} <= PLAIN
    assert set(found) >= PLAIN
    for path, command in leaves():  # read twice, it is there once
        assert sum("--json" in option.opts for option in command.params) <= 1, path


def test_what_a_command_says_is_its_message(sh: Shell) -> None:
    sh("user", "add", "Zoë")
    plain = sh("user", "disable", "Zoë").out.strip()
    told = sh("user", "disable", "Zoë", "--json")
    assert told.json == {"ok": True, "message": plain} and told.code == 0 and "Zoë" in told.out
    assert "no user" in sh("user", "disable", "Nobody", "--json").refused(1)
    assert sh("user", "disable", "--json").code == 2


def test_nothing_is_asked_of_a_program(sh: Shell) -> None:
    sh("user", "add", "Ann")
    assert "--yes" in sh("user", "delete", "Ann", "--json").refused(2)
    assert sh("user", "delete", "Ann", "--yes", "--json").json["ok"] is True
    assert sh("user", "list", "--json").json == []


@pytest.mark.parametrize("command", [("backup", "copy.tar"), ("service", "status")])
def test_a_command_that_ends_with_a_code_keeps_it(sh: Shell, folder: Path, command: tuple[str, ...]) -> None:
    sh("user", "add", "Ann")
    plain, told = sh(*command), sh(*command, "--json")
    assert plain.code == told.code or told.out
    if told.out:
        assert told.json["ok"] is (told.code == 0)
