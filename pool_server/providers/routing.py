"""Which providers may answer a call."""

from __future__ import annotations

from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.providers.qwen.names import qwen_model

# The vendors whose accounts may speak a dialect, its own first: an API key in any vendor's file can be for any
# endpoint.
_BY_DIALECT = {
    Dialect.RESPONSES: (Provider.CODEX, Provider.OPENAI, Provider.QWEN, Provider.CLAUDE, Provider.GEMINI),
    Dialect.MESSAGES: (Provider.CLAUDE, Provider.OPENAI, Provider.QWEN, Provider.CODEX, Provider.GEMINI),
    Dialect.CHAT: (Provider.OPENAI, Provider.QWEN, Provider.CODEX, Provider.CLAUDE, Provider.GEMINI),
    Dialect.GEMINI: (Provider.GEMINI, Provider.OPENAI, Provider.QWEN, Provider.CODEX, Provider.CLAUDE),
    Dialect.CODE_ASSIST: (Provider.GEMINI,),
}
_QWEN_FIRST = tuple(sorted(_BY_DIALECT[Dialect.CHAT], key=lambda one: one is not Provider.QWEN))
# A call that names no model stays with the vendor whose call it is.
_WITHOUT_QWEN = tuple(one for one in _BY_DIALECT[Dialect.CHAT] if one is not Provider.QWEN)


def providers_for(dialect: Dialect, operation: Operation, model: str, forced: Provider | None) -> tuple[Provider, ...]:
    """The providers that may answer, the likelier first; each account says whether it speaks the dialect and serves the
    model. A forced one (by the path's prefix) is never left."""
    if forced is not None:
        return (forced,)
    if dialect is Dialect.CHAT and not model:
        return _WITHOUT_QWEN
    return _QWEN_FIRST if dialect is Dialect.CHAT and qwen_model(model) else _BY_DIALECT[dialect]
