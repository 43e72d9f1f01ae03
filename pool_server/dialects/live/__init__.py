"""The live APIs (OpenAI's realtime, Gemini's Live): what the messages of one connection ask for and have used. Pure."""

from __future__ import annotations

from pool_server.core.enums import ApiFamily, Dialect
from pool_server.dialects.live.google import GoogleLive
from pool_server.dialects.live.openai import OpenAILive, refusal_in, session_models
from pool_server.dialects.live.types import BadMessageError, LiveEvent, LiveReader, LiveStep
from pool_server.dialects.specs import SPECS


def live_reader(dialect: Dialect) -> LiveReader:
    """A reader for one connection."""
    return GoogleLive() if SPECS[dialect].family is ApiFamily.GOOGLE else OpenAILive()


__all__ = ["BadMessageError", "LiveEvent", "LiveReader", "LiveStep", "live_reader", "refusal_in", "session_models"]
