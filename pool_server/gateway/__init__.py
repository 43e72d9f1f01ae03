"""The data plane: route table, one exchange's life, upstream client, relay, WebSocket."""

from pool_server.gateway.entry import Gateway
from pool_server.gateway.objects import TABLES as OBJECT_TABLES
from pool_server.gateway.upstream import Upstream

__all__ = ["OBJECT_TABLES", "Gateway", "Upstream"]
