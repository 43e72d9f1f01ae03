"""`pool-server account`: the pool's accounts from the shell."""

from pool_server.cli.account.command import command

__all__ = ["command"]
