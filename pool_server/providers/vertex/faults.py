"""The fault rules of Vertex AI: its own errors are google.rpc.Status, a Claude model's those of the Messages API.

Source: docs.cloud.google.com/vertex-ai, "error code 429"; observed sentences.
"""

from __future__ import annotations

from collections.abc import Mapping

from pool_server.core.enums import FaultKind
from pool_server.core.models import Fault
from pool_server.providers.claude.faults import CLAUDE
from pool_server.providers.evidence.reading import read_error
from pool_server.providers.evidence.rules import FaultRule, FaultTable, Of, ResetTime, classify
from pool_server.providers.evidence.shared import SHARED
from pool_server.providers.gemini.faults import GEMINI

_K = FaultKind
VERTEX_OWN = (
    # Capacity that all customers share; no time is told.
    FaultRule(_K.CAPACITY, Of.MODEL, status=(429,), says=r"resource (?:has been )?exhausted"),
    # A quota of the project, by model and minute.
    FaultRule(_K.RATE, Of.MODEL, status=(429,), says=r".{0,200}\bquota exceeded", reset=ResetTime.LIMIT),
    FaultRule(
        _K.NOT_FOUND,
        Of.MODEL,
        status=(404,),
        says=r"publisher model .{0,400}(?:was not found|does not have access)",
        reset=ResetTime.NONE,
    ),
    FaultRule(_K.NEEDS_USER, Of.ACCOUNT, status=(403,), says=r"(?:vertex ai|agent platform) api has not been used"),
    FaultRule(_K.PERMISSION, Of.ACCOUNT, status=(403,), says=r"permission .{0,80} denied on resource"),
)
VERTEX = FaultTable("vertex", (*VERTEX_OWN, *GEMINI.rules), GEMINI.limit, rate_cap=GEMINI.rate_cap, cap=GEMINI.cap)


def of_vertex(status: int, headers: Mapping[str, str], body: bytes, *, now: float, model: str) -> Fault:
    """What an error of Vertex AI means, the platform's own or a Claude model's."""
    facts = read_error(headers, body)
    table = VERTEX if facts.error.get("status") or "claude" not in model.lower() else CLAUDE
    return classify(table, SHARED, status, headers, body, now=now, model=model)
