"""Whatever is typed, a command ends with 0, 1 or 2 and says at most one line of printable text on stderr."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pool_server.cli.common import PLAIN
from tests.cli.conftest import Shell
from tests.cli.test_json_everywhere import leaves

RAW = "a\x1b[31m\x07\u202e" + os.fsdecode(b"\xff\xfe") + "b\nc"
# Words that no message may take over: an escape of a terminal, bytes that are no text, more than anybody reads.
WORDS = [RAW, "x" * 5_000]
# They change the machine, ask the network, or run on where the words are taken.
APART = {"service install", "service uninstall", "service restart", "account test", "account login"}


def lines() -> list[tuple[str, ...]]:
    """Of each command a line with a place for such a word: `--config`, before anything is opened, else its argument."""
    found: list[tuple[str, ...]] = []
    for path, command in leaves():
        arguments = [one for one in command.params if isinstance(one, click.Argument) and one.required]
        if path in APART | PLAIN:
            continue
        if any("--config" in one.opts for one in command.params):
            found.append((*path.split(), *(["x"] * len(arguments)), "--config", "{}"))
        elif arguments:
            found.append((*path.split(), "{}", *(["x"] * (len(arguments) - 1))))
    return [*found, ("account", "enable", "{}"), ("user", "delete", "{}")]


def test_no_word_of_a_command_line_reaches_the_terminal_raw(sh: Shell) -> None:
    assert len(lines()) > 40
    for line in lines():
        for word in WORDS:
            typed = [word if one == "{}" else one for one in line]
            done = sh(*typed)
            assert done.code in (1, 2), typed
            assert len(done.err.splitlines()) <= 1 and len(done.err) < 2_100, typed
            assert done.err.startswith("pool-server: ") or line[0] == "doctor", typed
            assert (done.out + done.err).replace("\n", "").isprintable(), (typed, done)


def test_a_file_without_an_end_is_refused(sh: Shell, folder: Path) -> None:
    assert "File too large" in sh("status", "--config", "/dev/zero").refused(2)
    (folder / "endless.toml").symlink_to("/dev/zero")
    assert "File too large" in sh("simulate", "--scenario", "endless.toml").refused(1)
    assert "File too large" in sh("doctor", "--config", "/dev/zero", "--json").out
