"""What each model takes: reasoning levels and budgets, sampling, output limits. Facts about vendors, in one place."""

from __future__ import annotations

import re

import msgspec

from pool_server.dialects.translation.neutral import Effort

# Tokens a reasoning level stands for; between dialects one is told as the other.
LEVELS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 128000}
_ORDER = tuple(LEVELS)
DEFAULT_OUTPUT = 32_000  # tokens; Claude requires a limit
_LEAST_BUDGET = 1024  # tokens; Claude's smallest thinking budget

_CLAUDE = re.compile(r"claude-(?:(?P<a>[a-z]+)-)?(?P<major>\d+)(?:[-.](?P<minor>\d{1,2}))?(?!\d)(?:-(?P<b>[a-z]+))?")
_GEMINI = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
_GPT = re.compile(r"gpt-(\d+)(?:\.(\d+))?")


class ClaudeModel(msgspec.Struct, frozen=True):
    """What one of Claude's models takes. An unknown model is taken for a new one."""

    adaptive: bool
    budgets: bool
    sampling: bool
    structured: bool
    efforts: tuple[str, ...]
    most_output: int


def claude(model: str) -> ClaudeModel:
    """Adaptive thinking from 4.6 on, nothing else and no sampling from 4.7 on; effort from Opus 4.5 on."""
    match = _CLAUDE.search(model)
    if match is None:
        known = "claude" in model
        return ClaudeModel(known, not known, not known, known, ("low", "medium", "high"), 64_000)
    version = (int(match["major"]), int(match["minor"] or 0))
    kind = match["a"] or match["b"] or ""
    efforts: tuple[str, ...] = (
        ("low", "medium", "high") if version >= (4, 6) or (kind, version) == ("opus", (4, 5)) else ()
    )
    efforts += ("xhigh",) if version >= (4, 7) else ()
    efforts += ("max",) if version >= (4, 6) else ()
    return ClaudeModel(
        adaptive=version >= (4, 6),
        budgets=(3, 7) <= version < (4, 7),
        sampling=version < (4, 7),
        structured=version >= (4, 5) or (kind, version) == ("opus", (4, 1)),
        efforts=efforts,
        most_output=_most_output(kind, version),
    )


def _most_output(kind: str, version: tuple[int, int]) -> int:
    if version >= (4, 6):
        return 128_000
    if version >= (3, 7):
        return 32_000 if kind == "opus" and version < (4, 5) else 64_000
    return 8192 if version >= (3, 5) else 4096


def level_of(budget: int) -> str:
    """The level a budget in tokens comes nearest to from above."""
    if budget <= 0:
        return "none" if budget == 0 else "medium"
    return next((name for name in ("minimal", "low", "medium", "high") if budget <= LEVELS[name]), "xhigh")


def budget_of(effort: Effort) -> int:
    return effort.budget if effort.budget is not None and effort.budget >= 0 else LEVELS[effort.level]


def nearest(level: str, known: tuple[str, ...]) -> str:
    """The level itself, or the nearest the model knows; of two equally near the lower."""
    if level in known or not known:
        return level
    at = _ORDER.index(level)
    return min(known, key=lambda name: (abs(_ORDER.index(name) - at), _ORDER.index(name)))


def openai_level(level: str, model: str) -> str:
    """OpenAI's models know `none` from 5.1 on, `xhigh` from 5.2 on, `minimal` in 5.0 alone; others pass unchecked."""
    match = _GPT.search(model)
    if match is None:
        return "xhigh" if level == "max" else level
    version = (int(match[1]), int(match[2] or 0))
    known: tuple[str, ...] = ("low", "medium", "high")
    if version >= (5, 1):
        known = ("none", *known) if "codex" not in model else known
        known += ("xhigh",) if version >= (5, 2) or "max" in model else ()
    elif version == (5, 0) and "codex" not in model:
        known = ("minimal", *known)
    return nearest(level, known)


def claude_thinking(effort: Effort, model: str, max_tokens: int) -> tuple[dict[str, object] | None, str]:
    """(Claude's `thinking`, its `output_config.effort` or ""). The budget stays below `max_tokens`."""
    facts = claude(model)
    if effort.level == "none":
        return ({"type": "disabled"} if facts.adaptive or facts.budgets else None), ""
    if facts.adaptive:
        shown: dict[str, object] = {"type": "adaptive"}
        if effort.show and not facts.budgets:
            shown["display"] = "summarized"  # newer models leave the text out unless asked
        return shown, nearest(effort.level, facts.efforts)
    budget = max(_LEAST_BUDGET, min(budget_of(effort), max_tokens - 1))
    if not facts.budgets or max_tokens <= _LEAST_BUDGET:
        return None, ""
    return {"type": "enabled", "budget_tokens": budget}, ""


def gemini_version(model: str) -> tuple[int, int]:
    """(3, 0) for gemini-3-pro; an unknown model is taken for a new one."""
    match = _GEMINI.search(model)
    return (int(match[1]), int(match[2] or 0)) if match else (3, 0)


def gemini_thinking(effort: Effort, model: str) -> dict[str, object] | None:
    """`thinkingConfig`: a budget for 2.5, a level from 3 on, nothing for older models."""
    version = gemini_version(model)
    if version < (2, 5):
        return None
    show = effort.show and effort.level != "none"
    if version >= (3, 0):
        flash, first_pro = "flash" in model, "pro" in model and version == (3, 0)
        known = ("low", "high") if first_pro else ("low", "medium", "high")
        level = nearest(effort.level, ("minimal", *known) if flash else known)
        return {"thinkingLevel": level.upper(), "includeThoughts": show}
    budget = budget_of(effort)
    least, most = (0, 24576) if "flash" in model else (128, 32768)
    if "lite" in model and budget:
        least = 512
    if effort.budget is not None and effort.budget < 0:
        return {"thinkingBudget": -1, "includeThoughts": show}
    return {"thinkingBudget": max(least, min(budget, most)), "includeThoughts": show}
