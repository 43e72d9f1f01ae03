"""How many tokens an answer may have at most, read from the refusal of a request that asks for more."""

from __future__ import annotations

import re
from typing import NamedTuple

_N = r"(\d{3,8})"
# What the model writes at most, in the words of OpenAI; DashScope and DeepSeek; Groq; Anthropic; Bedrock; Gemini.
_OF_MODEL = re.compile(
    rf"supports at most {_N} completion tokens"
    rf"|range (?:of|for) `?max_(?:completion_)?tokens`? (?:is|should be) \[\d+, ?{_N}\]"
    rf"|max_(?:completion_)?tokens`? must be less than or equal to `?{_N}"
    rf"|max_tokens: \d+ > {_N}, which is the maximum"
    rf"|maximum tokens you requested exceeds the model limit of {_N}",
    re.IGNORECASE,
)
_BELOW = re.compile(rf"maxOutputTokens.{{0,120}}\bto {_N} \(exclusive\)")
# What the context leaves beside a prompt that fits: the whole, then the prompt. OpenAI, DeepSeek, vLLM and OpenRouter.
_BESIDE = re.compile(
    rf"maximum context length (?:is|of) {_N} tokens.{{0,120}}"
    rf"\({_N} (?:in the messages|in your prompt|of (?:the )?text input)",
    re.IGNORECASE,
)
_DIFFERENCE = re.compile(rf"\(\d+ > {_N} - {_N}\)")  # newer vLLM
_SUM = re.compile(rf"exceed context limit: {_N} \+ \d+ > {_N}")  # Anthropic: the prompt, then the whole


class OutputLimit(NamedTuple):
    """`lasting`: of the model, whatever the prompt."""

    tokens: int
    lasting: bool


def output_limit(message: str) -> OutputLimit | None:
    """The limit a refusal names, None where it names none."""
    message = message[:2000]
    if found := _OF_MODEL.search(message):
        return OutputLimit(int(next(filter(None, found.groups()))), True)
    if found := _BELOW.search(message):
        return OutputLimit(int(found[1]) - 1, True)
    if found := _BESIDE.search(message) or _DIFFERENCE.search(message):
        return OutputLimit(int(found[1]) - int(found[2]), False)
    if found := _SUM.search(message):
        return OutputLimit(int(found[2]) - int(found[1]), False)
    return None
