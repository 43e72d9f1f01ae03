"""Whatever is typed, a command ends with 0, 1 or 2 and says at most one line of printable text on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

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


@pytest.mark.parametrize(
    ("where", "code", "told"),
    [("> out", 0, ""), ("> /dev/full", 1, "No space left"), ("| head -c 1", 1, ""), ("2>&-", 0, ""), (">&-", 0, "")],
)
def test_wherever_it_is_said_to_there_is_no_traceback(folder: Path, where: str, code: int, told: str) -> None:
    """A terminal of few characters, a full disk, a reader that leaves, a closed stream."""
    command = f"set -o pipefail; {sys.executable} -m pool_server simulate --list {where}"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=environment, check=False)
    said = done.stderr.decode()
    assert "Traceback" not in said and "Exception" not in said, said
    if where.startswith("|"):  # short enough to be written before the reader left
        return
    assert done.returncode == code and told in said
