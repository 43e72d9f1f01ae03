"""The server as a service of the system: installed, looked at, upgraded."""

from pool_server.cli.service.manage import command

__all__ = ["command"]
