"""What commands share: their options, their errors, their output."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from pool_server.app.listening import StartError
from pool_server.core.settings import ConfigError, Settings
from pool_server.core.settings_file import config_path, load
from pool_server.providers import CredentialRejectedError
from pool_server.storage import StoreError
from pool_server.users import RefusedError

PATIENCE_S = 2.0
_LONGEST_LINE = 2_000  # characters

F = TypeVar("F", bound=Callable[..., Any])


class MisconfiguredError(click.ClickException):
    """A mistake in the settings."""

    exit_code = 2


def config_option(command: F) -> F:
    """`--config F`; the command gets it as `config`."""
    return click.option("--config", metavar="FILE", help="Settings; ./config.toml is read if it is there.")(command)


def json_option(command: F) -> F:
    """`--json`; the command gets it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Data instead of a table.")(command)


# What runs on, is typed into, or whose output is itself a file, a script or a line for another program.
PLAIN = frozenset(
    {"serve", "demo", "run", "login", "top", "statusline", "completion", "account login", "account export",
     "service logs", "transcripts show", "transcripts export", "transcripts decrypt"}
)  # fmt: skip


def json_everywhere(command: click.Command, path: str) -> click.Command:
    """Gives each command of `path` that only says what it did `--json` as well: `{"ok": true, "message": "…"}`."""
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            json_everywhere(one, f"{path} {name}")
    elif path not in PLAIN and not any("--json" in option.opts for option in command.params):
        command.callback = _telling(command.callback or (lambda: None))
        words = "What it says as JSON."
        command.params.append(click.Option(["--json", "told_as_json"], is_flag=True, help=words))
    return command


def _telling(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def told(*args: Any, told_as_json: bool, **options: Any) -> Any:
        if not told_as_json:
            return run(*args, **options)
        if options.get("yes") is False:
            raise click.UsageError("with --json nothing is asked: add --yes")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            try:
                code = run(*args, **options)
            except click.exceptions.Exit as end:
                code = end.exit_code
        click.echo(json.dumps({"ok": not code, "message": said.getvalue().strip()}, ensure_ascii=False))
        raise click.exceptions.Exit(code if isinstance(code, int) else 0)

    return told


def settings(config: str | None) -> Settings:
    """The settings in force."""
    with one_line():
        return load(config_path(config), os.environ).settings


def given(**options: Any) -> dict[str, Any]:
    """The options that were on the command line."""
    return {key: value for key, value in options.items() if value is not None}


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turns the package's errors into a command's."""
    try:
        yield
    except ConfigError as error:
        raise MisconfiguredError(str(error)) from None
    except (StoreError, StartError, RefusedError, CredentialRejectedError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from None


@contextlib.contextmanager
def waiting(words: str) -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being done, once it has taken two seconds; what it gives changes the words."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    shown = console.status(words)
    timer = threading.Timer(PATIENCE_S, shown.start)
    timer.start()
    try:
        yield shown.update
    finally:
        timer.cancel()
        timer.join()
        shown.stop()


def one_printable_line(text: str) -> str:
    """A text for a terminal, whoever wrote it: no control character of it reaches the terminal, nor a book's length."""
    line = " ".join(text.split())
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    return shown if len(shown) <= _LONGEST_LINE else f"{shown[: _LONGEST_LINE - 1]}…"


def emit(data: Any) -> None:
    """Data for programs."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


Row = dict[str, Any]
Columns = Mapping[str, str | Callable[[Row], Any]]  # heading → the row's field, or what is made of the row


def listing(rows: Sequence[Row], columns: Columns, empty: str, *, as_json: bool) -> None:
    """What a list command says: its rows as data for programs, or as a table."""
    if as_json:
        emit(rows)
        return
    cells = [[row[cell] if isinstance(cell, str) else cell(row) for cell in columns.values()] for row in rows]
    table(tuple(columns), cells, empty)


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """Aligned columns, or a sentence when there is nothing to align."""
    if not rows:
        click.echo(empty)
        return
    cells = [[one_printable_line(str(cell)) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
