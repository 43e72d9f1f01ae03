"""`pool-server import`: accounts, people and their keys from other programs and pools."""

from pool_server.cli.importing.command import command

__all__ = ["command"]
