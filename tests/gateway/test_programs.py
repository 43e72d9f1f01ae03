"""Programs by their User-Agent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Conduct
from pool_server.gateway.http.programs import conduct, program


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("claude-cli/2.1.332 (external, cli)", "Claude Code 2.1.332"),
        ("claude-cli/2.1.329 (external, sdk-cli)", "Claude Code 2.1.329"),
        ("codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm", "Codex 0.169.0"),
        ("codex-tui/0.169.0-alpha.2 (Mac OS 15.1; arm64)", "Codex 0.169.0-alpha.2"),
        ("GeminiCLI/0.24.4/gemini-2.5-pro (linux; x64)", "Gemini CLI 0.24.4"),
        ("QwenCode/0.24.4 (linux; x64)", "Qwen Code 0.24.4"),
        ("opencode/1.18.33 ai-sdk/provider-utils/3.0.9 runtime/bun/1.3.0", "opencode 1.18.33"),
        ("OpenAI/Python 2.8.0", "OpenAI Python 2.8.0"),
        ("AsyncOpenAI/Python 2.8.0", "OpenAI Python 2.8.0"),
        ("Anthropic/JS 0.70.1", "Anthropic JS 0.70.1"),
        ("google-genai-sdk/1.52.0 gl-python/3.12.1", "Google GenAI 1.52.0"),
        ("curl/8.5.0", "curl 8.5.0"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla 5.0"),
        ("my-script", "my-script"),
        ("", ""),
        ("   ", ""),
        ("(nobody)", ""),
        ("\x00\x01", ""),
    ],
)
def test_programs_are_named(agent: str, name: str) -> None:
    assert program(agent) == name


@given(st.text(max_size=300))
def test_any_user_agent_gives_a_short_plain_name(agent: str) -> None:
    name = program(agent)
    assert len(name) <= 48 and "\0" not in name and "\n" not in name and name == name.strip()


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("Originator", "codex_exec"), ("User-Agent", "opencode/1")], Conduct.REPEATS),
        ([("user-agent", "opencode/1.18.33 ai-sdk/provider-utils/3.0.9")], Conduct.WAITS),
        ([("User-Agent", "my-opencode/1")], Conduct.USUAL),
        ([], Conduct.USUAL),
    ],
)
def test_conduct_is_the_program_s(headers: list[tuple[str, str]], found: Conduct) -> None:
    assert conduct(headers) is found
