"""What Claude Code puts into its requests for Anthropic alone, on accounts of other vendors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation import UpstreamKind
from tests.dialects.translation.kit import PAIRS, up

M = Dialect.MESSAGES
each_kind = pytest.mark.parametrize("kind", [kind for client, kind in PAIRS if client is M])
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("ToolSearch", "tide")]


MORE = {"role": "user", "content": "And the flood?"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def asked(*messages: dict[str, Any], system: Any = "You help.") -> dict[str, Any]:
    first = {"role": "user", "content": [text("When is the ebb?")]}
    return {"model": "m", "max_tokens": 4000, "system": system, "tools": TOOLS, "messages": [first, *messages]}


@each_kind
def test_the_billing_text_that_changes_with_every_request_stays_here(kind: UpstreamKind) -> None:
    """Before everything else, it would keep the whole prompt from being found in the vendor's cache."""
    sent = [
        up(
            M,
            kind,
            asked(system=[text(f"x-anthropic-billing-header: cc_version=2.1.329; cch={nonce};"), text("You help.")]),
        )
        for nonce in ("97bd6", "24c2d")
    ]
    assert sent[0] == sent[1] and "billing" not in json.dumps(sent[0]) and "You help." in json.dumps(sent[0])
    for system in ("x-anthropic-billing-header: cch=1;", "x-anthropic-billing-header: cch=1;\n\nYou help."):
        told = json.dumps(up(M, kind, asked(system=system)))
        assert "billing" not in told and ("You help." in told) is ("You help." in system)


@each_kind
def test_a_tool_that_a_search_found_is_said_to_be_there(kind: UpstreamKind) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "ToolSearch", "input": {"query": "sea"}}
    found = [{"type": "tool_reference", "tool_name": "tide"}]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": found}
    sent = up(M, kind, asked({"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}))
    assert "The tool tide can be called now." in json.dumps(sent)


@each_kind
@pytest.mark.parametrize("content", ["They ask about the ebb.", [text("They ask about the ebb.")], None])
def test_a_compaction_in_the_history_is_told(kind: UpstreamKind, content: Any) -> None:
    compacted = {"type": "compaction", "content": content}
    sent = up(M, kind, asked({"role": "assistant", "content": [compacted, text("At six.")]}, MORE))
    assert ("They ask about the ebb." in json.dumps(sent)) is (content is not None)
