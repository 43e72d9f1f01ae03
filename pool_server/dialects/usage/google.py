"""Usage of Gemini and Code Assist, of generation and of embeddings.

Source: ai.google.dev, API reference, `UsageMetadata` and `ModalityTokenCount`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from pool_server.core.models import Usage
from pool_server.dialects.usage.told import Figures, Names, Told, collect, figure, within

NAMES: Names = {
    "promptTokenCount": "prompt",
    "toolUsePromptTokenCount": "tools",
    "cachedContentTokenCount": "read",
    "candidatesTokenCount": "candidates",
    "responseTokenCount": "candidates",
    "thoughtsTokenCount": "thoughts",
    "totalTokenCount": "total",
}
_DETAILS = {
    "promptTokensDetails": "in",
    "toolUsePromptTokensDetails": "in",
    "cacheTokensDetails": "read",
    "candidatesTokensDetails": "out",
    "responseTokensDetails": "out",
}
_KINDS = {"AUDIO": "audio", "IMAGE": "image", "VIDEO": "video"}
_TEXT = frozenset({"TEXT", "DOCUMENT", "MODALITY_UNSPECIFIED"})
_MOST_DETAILS = 64


def told() -> Told:
    """For the usage objects of one answer."""
    return Told(_output)


def _output(found: Figures) -> int | None:
    if "candidates" not in found and "thoughts" not in found:
        return None
    return found.get("candidates", 0) + found.get("thoughts", 0)


def take(into: Told, raw: Any) -> bool:
    """Take in a `usageMetadata` object, decoded. True when it is the latest."""
    found = collect(NAMES, raw)
    if not found:
        return False
    for key, place in _DETAILS.items():
        details = raw.get(key)
        if isinstance(details, list):
            _kinds(details[:_MOST_DETAILS], place, found)
    return into.take(found)


def _kinds(details: list[Any], place: str, found: Figures) -> None:
    for entry in details:
        if not isinstance(entry, dict) or not isinstance(modality := entry.get("modality"), str):
            continue
        count = figure(entry.get("tokenCount"))
        if count and modality not in _TEXT:
            name = f"{_KINDS.get(modality, 'other')}_{place}"
            found[name] = found.get(name, 0) + count


def searches(grounding: Any) -> set[str]:
    """The web searches of a candidate's `groundingMetadata`; each query is charged once."""
    queries = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
    return (
        {query for query in queries[:_MOST_DETAILS] if isinstance(query, str)} if isinstance(queries, list) else set()
    )


def usage(figures: Figures) -> Usage:
    """What was told as a `Usage`; unknown where no known figure was. Cached tokens are part of the prompt; tool results
    and thoughts stand beside the main counts unless the total shows them inside."""
    if not any(name in figures for name in NAMES.values()):
        return Usage()
    tell = figures.get
    read, tools, thoughts, total = tell("read", 0), tell("tools", 0), tell("thoughts", 0), tell("total")
    prompt, candidates = tell("prompt"), tell("candidates")
    if prompt is None:
        prompt = read if total is None else max(read, total - (candidates or 0) - thoughts - tools)
    if candidates is None:
        candidates = 0 if total is None else max(0, total - prompt - thoughts - tools)
    more_in, more_out = tools, thoughts
    if total is not None:
        for beside_in, beside_out in product((tools, 0), (thoughts, 0)):
            if prompt + candidates + beside_in + beside_out == total:
                more_in, more_out = beside_in, beside_out
                break
    fresh, output = max(0, prompt - read) + more_in, candidates + more_out
    read_of = [tell(f"{kind}_read", 0) for kind in _KINDS.values()]
    audio_read, image_read, video_read = within(read, *read_of)
    audio_in, image_in, video_in = within(
        fresh, tell("audio_in", 0) - audio_read, tell("image_in", 0) - image_read, tell("video_in", 0) - video_read
    )
    audio_out, image_out = within(output, tell("audio_out", 0), tell("image_out", 0))
    return Usage(
        input=fresh,
        cache_read=read,
        output=output,
        reasoning=min(thoughts, output),
        known=True,
        audio_in=audio_in,
        image_in=image_in,
        video_in=video_in,
        audio_cache_read=audio_read,
        image_cache_read=image_read,
        audio_out=audio_out,
        image_out=image_out,
        other_kinds=tell("other_in", 0) + tell("other_read", 0) + tell("other_out", 0) + tell("video_out", 0),
    )
