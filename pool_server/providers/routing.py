"""Which providers may answer a call."""

from __future__ import annotations

from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.providers.openai.module import qwen_model

_BY_DIALECT = {
    Dialect.RESPONSES: (Provider.CODEX,),
    Dialect.MESSAGES: (Provider.CLAUDE,),
    Dialect.GEMINI: (Provider.GEMINI,),
    Dialect.CODE_ASSIST: (Provider.GEMINI,),
}


def providers_for(dialect: Dialect, operation: Operation, model: str, forced: Provider | None) -> tuple[Provider, ...]:
    """The providers that may answer, the likelier first. A forced one (by the path's prefix) is never left; chat
    calls go by model to Qwen or any OpenAI-compatible endpoint, and each account says whether it serves the
    model."""
    if forced is not None:
        return (forced,)
    if dialect is Dialect.CHAT:
        return (Provider.QWEN, Provider.OPENAI) if qwen_model(model) else (Provider.OPENAI, Provider.QWEN)
    return _BY_DIALECT[dialect]
