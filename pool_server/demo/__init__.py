"""The whole product without a single real account: fake providers, fake accounts, a made-up past."""

from __future__ import annotations

__all__ = ["run"]


def run(listen_addr: str = "127.0.0.1:8989") -> None:
    """Plays until SIGINT or SIGTERM; a second one ends at once. All that is written is under one temporary folder.

    Raises ConfigError for an address that is not loopback, StartError when it cannot be listened on.
    """
    from pool_server.demo.stage import run_until_told  # the fake providers alone do not need the server

    run_until_told(listen_addr)
