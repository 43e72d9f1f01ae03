"""How a model id, as clients and providers write it, finds its entry in a table of prices."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pool_server.ledger.pricing.price_table import Entry

# What may follow a listed name without making it another model: dates, revisions, context and effort marks.
_VARIANT = re.compile(
    r"(?:[-@](?:\d{8}|\d{4}-\d{2}-\d{2}|\d{2}-\d{4}|\d{2}-\d{2}|\d{3}|default|latest|preview|exp|thinking|customtools|"
    r"none|minimal|low|medium|high|xhigh|max|ultra)|-v\d+(?::\d+)?|\[1m\]|:\d+)*"
)
# Four digits are a revision of xAI's and DeepSeek's models; of Mistral's they are another model.
_REVISION = re.compile(r"-\d{4}(?:-(?:non-)?reasoning)?")
_REVISED = ("grok-", "deepseek-")
_BEDROCK = re.compile(r"(?:(?:us|eu|apac|jp|au|global)\.)?anthropic\.(.+?)(?:-v\d+(?::\d+)?)?")
_DOTTED = re.compile(r"(claude-[a-z]+-\d+)\.(\d+)")  # OpenRouter writes claude-opus-5.5
FREE = ":free"  # OpenRouter's mark of what costs nothing


def spelt(model: str) -> str:
    """Lower case, without blanks around it."""
    return model.strip().lower()


def plain(name: str) -> str:
    """A spelt id without the path some APIs put before it ("models/…", "anthropic/…") and without a cloud's frame."""
    last = name.rpartition("/")[2]
    cloud = _BEDROCK.fullmatch(last)
    if cloud is not None:
        last = cloud[1]
    return _DOTTED.sub(r"\1-\2", last, count=1)


def search(entries: Mapping[str, Entry], by_length: list[str], name: str) -> Entry | None:
    """The entry of exactly this plain id, else of the longest id that it continues as a variant."""
    exact = entries.get(name)
    if exact is not None:
        return exact
    for listed in by_length:
        if name.startswith(listed) and _continues(name, listed):
            return entries[listed]
    return None


def _continues(name: str, listed: str) -> bool:
    at = len(listed)
    if listed.startswith(_REVISED) and (revision := _REVISION.match(name, at)) is not None:
        at = revision.end()
    return _VARIANT.fullmatch(name, at) is not None
