"""What a refusal demands of the next request.

Sources of the words: OpenAI ("Unsupported parameter: 'temperature' is not supported with this model."), Groq and
Cerebras ("property 'reasoning_content' is unsupported"), Mistral (pydantic's `extra_forbidden` with its `loc`),
Fireworks ("Extra inputs are not permitted, field: 'prompt_cache_key'"), xAI ("Argument not supported on this model:
presencePenalty"), DeepSeek and Kimi (reasoning that has to come back), chat templates of vLLM and llama.cpp.
"""

from __future__ import annotations

import re
from typing import Any

from pool_server.core.lenient_json import read_answer
from pool_server.dialects.translation import demands, fields
from pool_server.dialects.translation.fields import JSON, obj, text

# What may be left out: what is then asked for is still the same, if less exactly.
_FIELDS = fields.words(
    "temperature top_p top_k seed presence_penalty frequency_penalty stop reasoning_effort reasoning.effort "
    "reasoning.summary verbosity text.verbosity service_tier prompt_cache_key parallel_tool_calls stream_options store "
    "include metadata messages.reasoning_content tools.strict"
)
_PLAIN = fields.words("stop seed store include metadata strict")  # words of any sentence, unless they stand as a name
_REFUSES = re.compile(
    r"unsupported|not support|n.t support|not permitted|not allowed|unknown|unrecogni[sz]ed|unexpected"
    r"|extra_forbidden|extra inputs|additional propert|not accept|only the default|deprecated|not available"
    r"|is not a valid|no such",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"(?:did you mean|\buse\b|instead|(?:supported|allowed|valid|permitted|possible) (?:\w+ )?(?:are|is|:)).*",
    re.IGNORECASE | re.DOTALL,
)
_NINE_LETTER_IDS = re.compile(r"must be a-z, A-Z, 0-9, with a length of 9")
_ASSISTANT_AFTER_TOOL = re.compile(r"[Uu]nexpected role '(?:user|system)' after role 'tool'")
_REASONING_KEPT = re.compile(
    r"reasoning_content.{0,80}(?:missing|must|required|passed back)"
    r"|(?:missing|must include|required).{0,20}reasoning_content",
    re.IGNORECASE,
)
_ONE_SYSTEM = re.compile(
    r"system (?:message|role|prompt).{0,40}(?:at the beginning|must be (?:the )?first|only (?:be )?(?:one|at the))"
    r"|(?:only one|multiple|first message).{0,20}system",
    re.IGNORECASE,
)
_ALTERNATING_ROLES = re.compile(r"roles? must alternate|must alternate between", re.IGNORECASE)
_READ = 8000  # bytes of a refusal


def demands_of(refusal: bytes, sent: bytes) -> frozenset[str]:
    """The demands of a refusal that `sent`, the body refused, does not meet."""
    body = obj(read_answer(sent, JSON))
    said = refusal[:_READ].decode("utf-8", "replace").replace('\\"', '"')
    found = frozenset(form for form, words in _FORMS if words.search(said))
    if found:
        return found
    return _refused(said, text(_inner(refusal).get("param")), body)


_FORMS = (
    (demands.NINE_LETTER_IDS, _NINE_LETTER_IDS),
    (demands.ASSISTANT_AFTER_TOOL, _ASSISTANT_AFTER_TOOL),
    (demands.REASONING_KEPT, _REASONING_KEPT),
    (demands.ONE_SYSTEM, _ONE_SYSTEM),
    (demands.ALTERNATING_ROLES, _ALTERNATING_ROLES),
)


def _inner(refusal: bytes) -> dict[str, Any]:
    found = obj(read_answer(refusal, JSON))
    return obj(found.get("error")) or found


def _refused(said: str, param: str, body: dict[str, Any]) -> frozenset[str]:
    if _REFUSES.search(said) is None:
        return frozenset()
    newer, older = "max_completion_tokens" in body, "max_tokens" in body
    if older and "max_completion_tokens" in said and re.search(r"\bmax_tokens", said):
        return frozenset((demands.COMPLETION_TOKENS,))
    if newer and "max_completion_tokens" in said:
        return frozenset((demands.MAX_TOKENS,))
    told = _HINT.sub("", said)
    present = [path for path in _FIELDS if has(body, path)]
    named = [path for path in present if param and param in (path, path.rpartition(".")[2])]
    return frozenset(f"-{path}" for path in named or [path for path in present if _name(path).search(told)])


def _name(path: str) -> re.Pattern[str]:
    word = path.rpartition(".")[2]
    spelt = (
        word.replace("_", "_?") if "." not in path or word not in ("effort", "summary") else path.replace(".", r"[._]?")
    )
    if word in _PLAIN:
        return re.compile(rf"(?:['\"`.]|(?:parameter|argument|property|field|key|model):? '?){spelt}\b", re.IGNORECASE)
    return re.compile(rf"(?<![a-z]){spelt}\b", re.IGNORECASE)


def has(body: dict[str, Any], path: str) -> bool:
    """Whether the request says anything there."""
    head, _, inner = path.partition(".")
    value = body.get(head)
    if not inner:
        return value is not None
    values = value if isinstance(value, list) else [value]
    return any(inner in obj(one) or inner in obj(obj(one).get("function")) for one in values)
