"""`pool-server serve`."""

from __future__ import annotations

import os
from functools import partial

import click

from pool_server.app import logs
from pool_server.app.shared_metrics import shared_metrics
from pool_server.cli.common import config_option, given, one_line
from pool_server.core.settings_file import config_path, load


@click.command("serve", help="Run the pool. SIGTERM leaves well, SIGHUP rereads settings and accounts.")
@config_option
@click.option("--listen", metavar="ADDR", help="Where to listen: host:port, [v6]:port, :port or a port.")
@click.option("--workers", type=int, metavar="N", help="Worker processes; 0 = one a core.")
def command(config: str | None, listen: str | None, workers: int | None) -> int:
    reread = partial(load, config_path(config), os.environ, given(listen_addr=listen, workers=workers))
    with one_line():
        loaded = reread()
        logs.setup(debug=loaded.settings.debug, as_json=loaded.settings.log_format == "json")
        with shared_metrics(loaded.settings.workers):
            from pool_server.app import supervisor  # imports what counts

            return supervisor.run(loaded, reread)
