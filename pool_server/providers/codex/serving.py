"""What a key of OpenAI or of an endpoint like it serves."""

from __future__ import annotations

from pool_server.core.enums import Dialect, Operation
from pool_server.providers import keys
from pool_server.providers.credential import Credential
from pool_server.providers.qwen.own_models import qwen_model


def openai_serves(cred: Credential, operation: Operation, dialect: Dialect, model: str) -> bool:
    """As any key serves; OpenAI itself has no Qwen models."""
    if qwen_model(model) and not cred.models and not cred.base_url:
        return False
    return keys.serves(cred, operation, dialect, model)
