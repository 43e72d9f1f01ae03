"""The commands. Errors are one line on stderr: exit 2 for usage and configuration, 1 for what failed."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys

import click

from pool_server import __version__

# Command (and module in this package) → what it does. A command's imports are paid for only when it runs.
COMMANDS = {
    "serve": "Run the pool.",
    "demo": "The whole product on fake accounts and providers, on loopback.",
    "run": "Start Codex, Claude Code, Gemini CLI, Qwen Code, opencode or aider with a pool, for this run alone.",
    "login": "Sign this machine in to a pool, for run.",
    "doctor": "Check settings, clock, port, store and accounts.",
    "account": "Accounts: list, set, add-key, login, import, export, test, enable, disable, remove, restore, "
    "seal, reconcile.",
    "import": "Take accounts, people and their keys from another program or pool.",
    "sync": "Give an account to Codex, opencode or pi, in that program's own file.",
    "user": "People: add, list, show, limit, set, rename, disable, enable, rotate, delete, key, code, totp.",
    "booking": "Headroom that is one person's for a time: add, list, end.",
    "token": "Tokens for programs of the operator: add, list, revoke.",
    "transcripts": "Transcripts that people let the pool keep: list, show, export, decrypt, purge.",
    "service": "The pool as a service of systemd or launchd: install, uninstall, status, logs, restart.",
    "upgrade": "Let the version that is installed now take over from the running one.",
    "backup": "Copy the data folder into one file, also while the server runs.",
    "restore": "Put a copy back.",
    "fsck": "See whether the stopped store agrees with itself, and put it right.",
    "store": "The PostgreSQL database of several machines: migrate, check, import, contract.",
    "simulate": "A week of demand, or the recorded past, through the real choice.",
    "status": "Accounts, headroom and requests in flight of the running pool.",
    "top": "The same, live in the terminal.",
    "statusline": "The pool in one line, for the status bar of a CLI or a terminal.",
    "completion": "Print the completion script of bash, zsh or fish.",
}
# Commands that have no module of their name → the module.
ELSEWHERE = {
    "restore": "backup",
    "top": "status",
    "statusline": "status",
    "login": "run.login",
    "upgrade": "service.upgrade",
}
MODULES = {"import": "importing"}  # a command whose name no module can have


class Commands(click.Group):
    """Finds each command in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(
            f"pool_server.cli.{ELSEWHERE.get(cmd_name) or MODULES.get(cmd_name, cmd_name)}"
        )
        from pool_server.cli.common import json_everywhere  # as dear as a command

        command: click.Command = getattr(module, cmd_name if cmd_name in ELSEWHERE else "command")
        return json_everywhere(command, cmd_name)


@click.command(cls=Commands, invoke_without_command=True, help="Share AI accounts with a few friends.")
@click.version_option(__version__, prog_name="pool-server", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: list[str] | None = None) -> None:
    """Run a command and leave the process with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not have every character that is shown
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(args=args, prog_name="pool-server", standalone_mode=False)
    except click.UsageError as error:
        _fail(error.format_message(), 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except click.Abort as abort:
        ended = isinstance(abort.__context__, EOFError)
        _fail("the input ended before all that is asked was answered" if ended else "stopped", 1)
    except KeyboardInterrupt:
        _fail("stopped", 1)
    except UnicodeEncodeError as error:  # bytes of the command line that are no text
        _fail(f"{error.object!r} is not UTF-8 text", 2)
    except BrokenPipeError:  # the reader of our output has left
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # where it is written to is full, or what no command expected
        with contextlib.suppress(OSError):
            sys.stdout.close()  # else what could not be written is tried once more at the end
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error), 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    from pool_server.cli.common import one_printable_line

    if sys.stderr is not None:  # closed: there is nobody to tell, and stdout is for data
        print(f"pool-server: {one_printable_line(message)}", file=sys.stderr)
    sys.exit(code)
