"""Which providers may answer a call, and whose model a name is as far as the name tells (the vendors' lists)."""

from __future__ import annotations

import re
from enum import Enum

from pool_server.core.enums import Dialect, Operation, Provider
from pool_server.providers.credential import Credential
from pool_server.providers.presets.data import PRESETS
from pool_server.providers.qwen.own_models import qwen_model

# The vendors whose accounts may speak a dialect, its own first: an API key in any vendor's file can be for any
# endpoint.
_SPEAKERS = {
    Dialect.RESPONSES: (Provider.CODEX, Provider.OPENAI, Provider.QWEN, Provider.CLAUDE, Provider.GEMINI),
    Dialect.MESSAGES: (Provider.CLAUDE, Provider.OPENAI, Provider.QWEN, Provider.CODEX, Provider.GEMINI),
    Dialect.CHAT: (Provider.OPENAI, Provider.QWEN, Provider.CODEX, Provider.CLAUDE, Provider.GEMINI),
    Dialect.GEMINI: (Provider.GEMINI, Provider.OPENAI, Provider.QWEN, Provider.CODEX, Provider.CLAUDE),
    Dialect.CODE_ASSIST: (Provider.GEMINI, Provider.OPENAI, Provider.QWEN, Provider.CODEX, Provider.CLAUDE),
}
# A call that names a model may be any account's, also by translation.
_BY_DIALECT = {dialect: (*own, Provider.VERTEX, *PRESETS) for dialect, own in _SPEAKERS.items()}
_QWEN_FIRST = tuple(sorted(_BY_DIALECT[Dialect.CHAT], key=lambda one: one is not Provider.QWEN))
# A call that names no model stays with the vendor whose call it is.
_UNNAMED = {**_SPEAKERS, Dialect.CHAT: tuple(one for one in _SPEAKERS[Dialect.CHAT] if one is not Provider.QWEN)}


def providers_for(dialect: Dialect, operation: Operation, model: str, forced: Provider | None) -> tuple[Provider, ...]:
    """The providers that may answer, the likelier first; each account says whether it serves the model, in the dialect
    or by translation. A forced one (by the path's prefix) is never left."""
    if forced is not None:
        return (forced,)
    if not model:
        return _UNNAMED[dialect]
    return _QWEN_FIRST if dialect is Dialect.CHAT and qwen_model(model) else _BY_DIALECT[dialect]


_OPENAI = re.compile(
    r"(gpt-|chatgpt|codex-|computer-use|o[134](-|$)|text-embedding-|dall-e|whisper|tts-|omni-moderation)"
)
_OWN = {
    Provider.CODEX: (Provider.CODEX,),
    Provider.OPENAI: (Provider.CODEX,),
    Provider.CLAUDE: (Provider.CLAUDE,),
    Provider.GEMINI: (Provider.GEMINI,),
    Provider.QWEN: (Provider.QWEN,),
    Provider.VERTEX: (Provider.GEMINI, Provider.CLAUDE),
}


def family_of(model: str) -> Provider | None:
    """The vendor whose model this is (CODEX for all of OpenAI's), None where the name does not tell."""
    name = model.lower().rpartition("/")[2]
    if name.startswith("claude"):
        return Provider.CLAUDE
    if name.startswith(("gemini", "learnlm")):
        return Provider.GEMINI
    if _OPENAI.match(name):
        return Provider.CODEX
    return Provider.QWEN if qwen_model(name) else None


class Knowledge(Enum):
    """What names and an account's file tell of whether it has a model."""

    HAS = "has"
    UNTOLD = "untold"
    LACKS = "lacks"


def has_model(cred: Credential, model: str) -> Knowledge:
    """Whether the account has this model. A list in the file is the last word, and whether the model is in it is asked
    elsewhere; an endpoint of somebody's own surely has models of no vendor's name, and may have any."""
    if cred.models:
        return Knowledge.HAS
    family, own = family_of(model), _OWN.get(cred.provider)
    if family is None:
        return Knowledge.HAS if cred.base_url else Knowledge.UNTOLD
    if own is not None and family in own:
        return Knowledge.HAS
    return Knowledge.UNTOLD if cred.base_url or own is None else Knowledge.LACKS
