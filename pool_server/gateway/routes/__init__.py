"""The data plane's route table: which call of which client is this, and what does it do with things a provider keeps?

Each vendor's calls are rows of one table; what no row names is not passed on. Paths come from the clients' recorded
traffic (Codex with either base URL, Claude Code, Gemini CLI in both modes, Qwen Code, opencode) and from the vendors'
SDKs.
"""

from pool_server.gateway.routes.matching import TABLES, match
from pool_server.gateway.routes.rows import FAMILIES, Reference, Route, Row

__all__ = ["FAMILIES", "TABLES", "Reference", "Route", "Row", "match"]
