"""API keys in the choice: an account is asked what its file says it serves, in whatever vendor's file it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import SelectionRequest
from pool_server.core.enums import Dialect, Operation, Refusal
from pool_server.providers import providers_for
from tests.accounts.kit import Pool

OPERATIONS = {
    Dialect.RESPONSES: Operation.RESPONSES,
    Dialect.CHAT: Operation.CHAT,
    Dialect.MESSAGES: Operation.MESSAGES,
    Dialect.GEMINI: Operation.GENERATE,
}
AT = "https://ai.example.com"
KEY = "sk-1234567890"


def call(dialect: Dialect, model: str = "some-model", **more: Any) -> SelectionRequest:
    operation = OPERATIONS[dialect]
    return SelectionRequest(providers_for(dialect, operation, model, None), operation, dialect, model, "ann", **more)


@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.CHAT])
@pytest.mark.parametrize("name", ["openai_a.json", "codex_a.json", "a.json"])
def test_a_key_of_openai_serves_both_dialects_whichever_file_it_is_in(
    tmp_path: Path, dialect: Dialect, name: str
) -> None:
    pool = Pool(tmp_path, {name: {"OPENAI_API_KEY": KEY}})
    assert pool.accounts.select(call(dialect)).account in ("openai:a", "codex:a")


@pytest.mark.parametrize("dialect", list(OPERATIONS))
@pytest.mark.parametrize("vendor", ["claude", "codex", "gemini", "qwen", "openai"])
def test_a_declared_dialect_is_served_whatever_the_file_is_called(
    tmp_path: Path, dialect: Dialect, vendor: str
) -> None:
    pool = Pool(tmp_path, {f"{vendor}_a.json": {"api_key": KEY, "base_url": AT, "dialects": [dialect.value]}})
    for asked in OPERATIONS:
        decision = pool.accounts.select(call(asked))
        assert (decision.account is not None and not decision.translated) is (asked is dialect)


def test_an_endpoint_that_says_nothing_is_asked_where_nobody_else_serves(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"openai_vllm.json": {"api_key": KEY, "base_url": AT}})
    assert pool.accounts.select(call(Dialect.RESPONSES)).account == "openai:vllm"
    pool.write("codex_a.json", {"api_key": KEY})
    pool.reload()
    for _ in range(8):
        decision = pool.accounts.select(call(Dialect.RESPONSES))
        assert decision.account == "codex:a"
        pool.accounts.begin("codex:a", "some-model", Operation.MESSAGES)  # however busy it is
    assert pool.accounts.select(call(Dialect.RESPONSES, exclude=frozenset({"codex:a"}))).account is None
    assert pool.accounts.select(call(Dialect.RESPONSES, forced="openai:vllm")).account == "openai:vllm"
    pool.write("openai_vllm.json", {"api_key": KEY, "base_url": AT, "dialects": ["chat", "responses"]})
    pool.reload()
    tried = pool.accounts.select(call(Dialect.RESPONSES, exclude=frozenset({"codex:a"})))
    assert tried.account == "openai:vllm"


def test_a_key_is_not_asked_in_a_dialect_it_does_not_speak(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": {"api_key": KEY}, "openai_b.json": {"api_key": KEY}})
    decision = pool.accounts.select(call(Dialect.GEMINI))
    assert decision.account is None and decision.refused == {Refusal.TRANSPORT: 2}
