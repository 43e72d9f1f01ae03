"""The data plane: route table, one exchange's life, upstream client, relay, WebSocket."""

from pool_server.gateway.gateway import Gateway, server_options
from pool_server.gateway.upstream import Upstream

__all__ = ["Gateway", "Upstream", "server_options"]
