"""Usage of Anthropic's Messages, and of the servers that speak it.

Sources: platform.claude.com, Messages API reference, "Prompt caching", "Compaction: understanding usage", "Fast mode".
"""

from __future__ import annotations

from typing import Any

from pool_server.core.models import Usage
from pool_server.dialects.usage.told import Figures, Names, Told, collect

_MOST_PARTS = 256  # model runs in one answer
START, DELTA = 0, 1  # stages: `message_delta` corrects what `message_start` estimated

NAMES: Names = {
    "input_tokens": "input",
    "cache_read_input_tokens": "read",
    "cache_creation_input_tokens": "write",
    "cache_creation": {"ephemeral_5m_input_tokens": "write_5m", "ephemeral_1h_input_tokens": "write_1h"},
    "output_tokens": "output",
    "output_tokens_details": {"thinking_tokens": "reasoning", "reasoning_tokens": "reasoning"},
    "thinking_token_count": "reasoning",
    "server_tool_use": {"web_search_requests": "searches"},
}
_PROMPT = ("input", "read", "write", "write_5m", "write_1h")
_MAIN = (*_PROMPT, "output")
_COUNTS = ("input", "cache_read", "cache_write", "output")


class MessageUsage:
    """The usage objects of one message."""

    __slots__ = ("_runs", "_told")

    def __init__(self) -> None:
        self._told = Told(lambda found: found.get("output"))
        self._runs: list[Any] = []

    def take(self, raw: Any, stage: int) -> bool:
        """Take in a usage object, decoded; START for that of `message_start` or of a whole message, DELTA for that of
        `message_delta`. True when it is the latest."""
        if not isinstance(raw, dict):
            return False
        found = collect(NAMES, raw)
        if stage and not any(found.get(name) for name in _PROMPT):
            # No prompt is of no tokens: endpoints that count output alone in `message_delta` fill in zeros.
            found = {name: count for name, count in found.items() if name not in _PROMPT}
        latest = self._told.take(found, stage)
        runs = raw.get("iterations")
        if isinstance(runs, list) and runs and (latest or not self._runs):
            self._runs = runs[:_MOST_PARTS]
        return latest

    def usage(self) -> Usage:
        """What was told as a `Usage`; unknown where no known figure was."""
        found = _usage(self._told.figures)
        return _with_runs(found, self._runs) if found.known and self._runs else found


def _usage(figures: Figures) -> Usage:
    """Anthropic's input excludes what touched a cache; its output includes thinking."""
    if not any(name in figures for name in _MAIN):
        return Usage()
    tell = figures.get
    output, hour = tell("output", 0), tell("write_1h", 0)
    return Usage(
        input=tell("input", 0),
        cache_read=tell("read", 0),
        cache_write=max(tell("write", 0), tell("write_5m", 0) + hour),
        cache_write_1h=hour,
        output=output,
        reasoning=min(tell("reasoning", 0), output),
        web_searches=tell("searches", 0),
        known=True,
    )


def _with_runs(top: Usage, runs: list[Any]) -> Usage:
    """An answer of several model runs: the counts on top leave out compaction and advisors, which are billed too, and
    each run is priced by its own prompt. Where the runs contradict the top, the top counts, and what it leaves out."""
    parts: list[Usage] = []
    others: list[Usage] = []
    for raw in runs:
        part = _usage(collect(NAMES, raw))
        if not part.known:
            continue
        own = raw.get("type", "message") == "message"
        model = raw.get("model")
        part.model = model if isinstance(model, str) and not own else ""
        (parts if own else others).append(part)
    if others and _adds_up(top, parts + others):
        parts, others = parts + others, []  # the counts on top are of all runs
    if not _adds_up(top, parts):
        parts = [_usage_part(top)]
    parts += others
    for part in others:
        for name in _COUNTS:
            setattr(top, name, getattr(top, name) + getattr(part, name))
        top.cache_write_1h += part.cache_write_1h
        top.reasoning += part.reasoning
    if len(parts) > 1:
        top.parts = parts
    return top


def _adds_up(top: Usage, parts: list[Usage]) -> bool:
    return bool(parts) and all(getattr(top, name) == sum(getattr(part, name) for part in parts) for name in _COUNTS)


def _usage_part(top: Usage) -> Usage:
    """The counts on top as one run."""
    return Usage(top.input, top.cache_read, top.cache_write, top.cache_write_1h, top.output, top.reasoning, known=True)
