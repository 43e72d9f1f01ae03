"""`pool-server token …`: tokens with which programs of the operator call the API."""

from pool_server.cli.token.command import command

__all__ = ["command"]
