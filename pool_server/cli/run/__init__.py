"""`pool-server run CLI` and `pool-server login URL`: what a friend's machine needs, cheap to import."""

from pool_server.cli.run.command import command

__all__ = ["command"]
