"""`pool-server sync`: an account of the pool, lent to a program of this machine in that program's own file."""

from pool_server.cli.sync.command import command

__all__ = ["command"]
