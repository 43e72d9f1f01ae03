"""`pool-server completion SHELL`: the script that completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    maker = get_completion_class(shell)
    assert maker is not None, "click has all of SHELLS"
    # The text alone: `source()` would ask the shell of this machine for its version.
    made = maker(ctx.find_root().command, {}, "pool-server", "_POOL_SERVER_COMPLETE")
    click.echo(made.source_template % made.source_vars())
