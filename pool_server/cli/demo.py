"""`pool-server demo`."""

from __future__ import annotations

import click

from pool_server.app import logs
from pool_server.cli.common import one_line


@click.command("demo", help="The whole product on fake accounts and providers, on loopback: nothing real is touched.")
@click.option("--listen", metavar="ADDR", default="127.0.0.1:8989", show_default=True, help="A loopback address.")
def command(listen: str) -> None:
    from pool_server import demo

    logs.setup(debug=False)
    with one_line():
        demo.run(listen)
