"""Qwen's own model names."""

from __future__ import annotations

_NAMES = ("qwen", "qwq", "qvq", "coder-model", "vision-model")


def qwen_model(model: str) -> bool:
    """Is this one of Qwen's own model names? (`vendor/model` names belong to routers of many vendors.)"""
    return model.lower().startswith(_NAMES) and "/" not in model
