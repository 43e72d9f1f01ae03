"""Usage of Chat Completions and Responses servers, and of OpenAI's image, audio and embedding calls.

Sources of the names: OpenAI's API reference; api-docs.deepseek.com (`prompt_cache_hit_tokens`); Moonshot
(`cached_tokens`); Mistral (`num_cached_tokens`, `prompt_token_details`); Model Studio (`cache_creation_input_tokens`,
`cache_type`); xAI (reasoning beside the completion); relays of Anthropic (`cache_read_input_tokens`).
"""

from __future__ import annotations

from typing import Any

from pool_server.core.models import Usage
from pool_server.dialects.usage.told import Figures, Names, Told, collect, within

_WRITES: Names = {"ttl_30m_tokens": "write_30m", "ttl_12h_tokens": "write_12h"}
_CREATION: Names = {"ephemeral_5m_input_tokens": "write_5m", "ephemeral_1h_input_tokens": "write_1h"}
_CACHED: Names = {"audio_tokens": "audio_read", "image_tokens": "image_read"}
_INPUT: Names = {
    "cached_tokens": "read",
    "cache_write_tokens": "write",
    "cache_creation_tokens": "write",
    "cache_creation_input_tokens": "write",
    "cache_write_tokens_details": _WRITES,
    "cache_creation": _CREATION,
    "cached_tokens_details": _CACHED,
    "audio_tokens": "audio_in",
    "image_tokens": "image_in",
    "video_tokens": "video_in",
}
_OUTPUT: Names = {
    "reasoning_tokens": "reasoning",
    "thinking_tokens": "reasoning",
    "audio_tokens": "audio_out",
    "image_tokens": "image_out",
}
NAMES: Names = {
    "prompt_tokens": "prompt",
    "input_tokens": "prompt",
    "completion_tokens": "completion",
    "output_tokens": "completion",
    "total_tokens": "total",
    "prompt_tokens_details": _INPUT,
    "prompt_token_details": _INPUT,
    "input_tokens_details": _INPUT,
    "input_token_details": _INPUT,
    "completion_tokens_details": _OUTPUT,
    "output_tokens_details": _OUTPUT,
    "output_token_details": _OUTPUT,
    # Names of single vendors: OpenAI's own form wins where it tells anything.
    "cached_tokens": "own_read",
    "num_cached_tokens": "own_read",
    "prompt_cache_hit_tokens": "own_read",
    "cache_read_input_tokens": "own_read",
    "prompt_cache_miss_tokens": "miss",
    "cache_creation_input_tokens": "own_write",
    "cache_creation": _CREATION,
    "cache_write_tokens_details": _WRITES,
    "reasoning_tokens": "own_reasoning",
    "server_tool_use": {"web_search_requests": "searches"},
    "num_search_queries": "searches",
}
_MAIN = ("prompt", "completion", "total", "read", "own_read", "miss")
_BREAKDOWN = (
    "write", "own_write", "write_30m", "write_12h", "write_5m", "write_1h", "explicit", "searches",
    "audio_read", "image_read", "audio_in", "image_in", "video_in", "audio_out", "image_out",
)  # fmt: skip
_MAIN_NAMES, _BREAKDOWN_NAMES = frozenset(_MAIN), frozenset(_BREAKDOWN)


def told() -> Told:
    """For the usage objects of one answer."""
    return Told(lambda found: found.get("completion"))


def take(into: Told, raw: Any) -> bool:
    """Take in a usage object: the value of `usage`, decoded. True when it is the latest."""
    found = collect(NAMES, raw)
    if not found:
        return False
    details = raw.get("prompt_tokens_details") or raw.get("input_tokens_details")
    if isinstance(details, dict) and details.get("cache_type") == "ephemeral":
        found["explicit"] = 1  # Model Studio: the caller made this cache, and reads of it cost less
    return into.take(found)


def usage(figures: Figures) -> Usage:
    """What was told as a `Usage`; unknown where no known figure was. What stands inside and what beside a count is
    read from the total."""
    if _MAIN_NAMES.isdisjoint(figures):
        return Usage()
    tell = figures.get
    read = tell("read") or tell("own_read") or 0
    if _BREAKDOWN_NAMES.isdisjoint(figures) or not any(map(tell, _BREAKDOWN)):  # as it nearly always is
        prompt, completion = _main(figures, read)
        reasoning = tell("reasoning") or tell("own_reasoning") or 0
        fresh, output, reasoning = _arranged(prompt, completion, read, reasoning, tell("total"))
        return Usage(input=fresh, cache_read=read, output=output, reasoning=reasoning, known=True)
    return _broken_down(figures, read)


def _broken_down(figures: Figures, read: int) -> Usage:
    """`usage` where parts of the counts are told."""
    tell = figures.get
    lives = tell("write_30m", 0) + tell("write_12h", 0) + tell("write_5m", 0) + tell("write_1h", 0)
    write = max(tell("write") or tell("own_write") or 0, lives)
    reasoning = tell("reasoning") or tell("own_reasoning") or 0
    prompt, completion = _main(figures, read)
    total = tell("total")
    fresh, output, reasoning = _arranged(prompt, completion, read + write, reasoning, total)
    audio_read, image_read, explicit = within(
        read, tell("audio_read", 0), tell("image_read", 0), read if "explicit" in figures else 0
    )
    audio_in, image_in, video_in = within(
        fresh, tell("audio_in", 0) - audio_read, tell("image_in", 0) - image_read, tell("video_in", 0)
    )
    audio_out, image_out = within(output, tell("audio_out", 0), tell("image_out", 0))
    half_day, hour = within(write, tell("write_12h", 0), tell("write_1h", 0))
    return Usage(
        input=fresh,
        cache_read=read,
        cache_write=write,
        cache_write_1h=hour,
        output=output,
        reasoning=reasoning,
        web_searches=tell("searches", 0),
        known=True,
        cache_write_12h=half_day,
        cache_read_explicit=explicit,
        audio_in=audio_in,
        image_in=image_in,
        video_in=video_in,
        audio_cache_read=audio_read,
        image_cache_read=image_read,
        audio_out=audio_out,
        image_out=image_out,
    )


def _main(figures: Figures, read: int) -> tuple[int, int]:
    """Prompt and completion; one that is not told is what the other leaves of the total."""
    prompt, completion, total = figures.get("prompt"), figures.get("completion"), figures.get("total")
    if prompt is None and "miss" in figures:
        prompt = figures["miss"] + read
    if prompt is None:
        prompt = read if total is None else max(read, total - (completion or 0))
    if completion is None:
        completion = 0 if total is None else max(0, total - prompt)
    return prompt, completion


def _arranged(prompt: int, completion: int, cached: int, reasoning: int, total: int | None) -> tuple[int, int, int]:
    """(fresh input, output, reasoning). OpenAI counts what touched a cache within the prompt and reasoning within the
    completion; others count either beside them, which their total shows."""
    beyond = 0 if total is None else total - prompt - completion
    cache_beside = cached > prompt
    reasoning_beside = total is None and reasoning > completion
    if beyond > 0:
        both = beyond == cached + reasoning
        cache_beside = cached > 0 and (both or (beyond == cached and beyond != reasoning))
        reasoning_beside = not cache_beside or (both and reasoning > 0)
    output = completion
    if reasoning_beside:
        # What the total has beyond both counts is output that `completion` leaves out, named or not.
        more = max(0, beyond - (cached if cache_beside else 0)) if total is not None else reasoning
        output += more
        reasoning = reasoning or more
    fresh = prompt if cache_beside else max(0, prompt - cached)
    return fresh, output, min(reasoning, output)
