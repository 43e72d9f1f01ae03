"""The Anthropic API's calls. Source: the vendor's SDK (anthropic 2.14)."""

from __future__ import annotations

from pool_server.core.enums import ObjectKind as Kind
from pool_server.core.enums import Operation
from pool_server.gateway.routes.rows import Row

BASES = ("/v1", "")

ROWS = (
    Row("POST", "/messages", Operation.MESSAGES, works=True),
    Row("POST", "/messages/count_tokens", Operation.COUNT_TOKENS, works=True),
    Row("POST", "/complete", Operation.COMPLETIONS, works=True),
    Row("POST", "/messages/batches", Operation.BATCHES, makes=Kind.BATCH),
    Row("GET", "/messages/batches", Operation.BATCHES, lists=Kind.BATCH),
    Row("GET", "/messages/batches/{batch}", Operation.BATCHES),
    Row("POST", "/messages/batches/{batch}/cancel", Operation.BATCHES),
    Row("DELETE", "/messages/batches/{batch}", Operation.BATCHES, deletes=True),
    Row("GET", "/messages/batches/{batch}/results", Operation.BATCHES),
    Row("POST", "/files", Operation.FILES, makes=Kind.FILE),
    Row("GET", "/files", Operation.FILES, lists=Kind.FILE),
    Row("GET", "/files/{file}", Operation.FILES),
    Row("GET", "/files/{file}/content", Operation.FILES),
    Row("DELETE", "/files/{file}", Operation.FILES, deletes=True),
)

REFUSED = (
    "organizations",
    "agents",
    "environments",
    "vaults",
    "memory_stores",
    "deployments",
    "deployment_runs",
    "dreams",
    "tunnels",
    "skills",
    "user_profiles",
    "sessions",
    "compliance",
)
