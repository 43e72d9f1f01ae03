"""Which program sent a request, by its User-Agent: a name people know and its version."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from pool_server.core.enums import Conduct

_MOST = 48  # characters of a program's name and version
_PRODUCT = re.compile(
    r"([A-Za-z][\w.+-]{0,39}?(?:/(?:Python|JS|Go|Java|Ruby))?)(?:[/ ]v?(\d[\w.+-]{0,23}))?(?=[\s;/(]|$)"
)
# The product token a client names itself by (lower case) → what it is called.
_NAMES = {
    "claude-cli": "Claude Code",
    "claude-code": "Claude Code",
    "codex_cli_rs": "Codex",
    "codex_exec": "Codex",
    "codex-tui": "Codex",
    "codex_vscode": "Codex",
    "codex": "Codex",
    "geminicli": "Gemini CLI",
    "gemini-cli": "Gemini CLI",
    "qwencode": "Qwen Code",
    "qwen-code": "Qwen Code",
    "opencode": "opencode",
    "roocode": "Roo Code",
    "roo-code": "Roo Code",
    "kilo-code": "Kilo Code",
    "cline": "Cline",
    "aider": "aider",
    "litellm": "LiteLLM",
    "openai/python": "OpenAI Python",
    "openai/js": "OpenAI JS",
    "openai/go": "OpenAI Go",
    "asyncopenai/python": "OpenAI Python",
    "asyncopenai/js": "OpenAI JS",
    "anthropic/python": "Anthropic Python",
    "asyncanthropic/python": "Anthropic Python",
    "anthropic/js": "Anthropic JS",
    "google-genai-sdk": "Google GenAI",
    "ai-sdk": "AI SDK",
    "githubcopilotchat": "GitHub Copilot",
    "python-httpx": "httpx",
    "python-requests": "requests",
    "node-fetch": "Node.js",
    "undici": "Node.js",
}


@lru_cache(maxsize=1024)
def program(user_agent: str) -> str:
    """ "claude-cli/2.1.332 (external, cli)" → "Claude Code 2.1.332"; "" where nobody is named."""
    found = _PRODUCT.match(user_agent.strip())
    if found is None:
        return ""
    product, version = found[1].strip(), found[2] or ""
    name = _NAMES.get(product.lower(), product)
    return f"{name} {version}".strip()[:_MOST]


def conduct(headers: Iterable[tuple[str, str]]) -> Conduct:
    """What the program that sent these does when it is refused: Codex asks up to thirty times, opencode sleeps."""
    for name, value in headers:
        if name.lower() == "originator" and value.lower().startswith("codex"):
            return Conduct.REPEATS
        if name.lower() == "user-agent" and value.lower().startswith("opencode/"):
            return Conduct.WAITS
    return Conduct.USUAL
