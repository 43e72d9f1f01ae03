"""HTML pages in the place of a vendor's refusal: whoever stands before one endpoint says nothing of another one, and a
client is told in its own form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fakes import key_account, plays
from tests.gateway.stack import Stack, run

PAGE = b"<html>\r\n<head><title>413 Request Entity Too Large</title></head><body>nginx</body></html>"
ACCOUNTS = [key_account("claude:a"), key_account("claude:b")]
SAYS = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]}
CLIENTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/messages", SAYS),
    ("/v1/chat/completions", SAYS),
    ("/v1beta/models/claude-sonnet-4-5:generateContent", {"contents": [{"role": "user", "parts": [{"text": "?"}]}]}),
]


def page(body: bytes, status: int = 413) -> plays.Play:
    return plays.Play(status=status, body=body, content_type="text/html")


def test_a_page_of_too_large_is_not_the_last_word(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, ACCOUNTS) as stack:
            for path, body in CLIENTS:
                stack.fakes.always("claude:a", page(PAGE))
                stack.fakes.always("claude:b", page(PAGE))
                status, raw = await stack.post(path, body)
                said = json.loads(raw)["error"]["message"]
                assert status == 413 and "413 Request Entity Too Large" in said and "<" not in said
                assert "before the vendor's API" in said
                stack.fakes.always("claude:b", plays.ok())
                assert (await stack.post(path, body))[0] == 200

    run(main)


def test_a_page_without_a_title_is_told_as_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [ACCOUNTS[0]]) as stack:
            stack.fakes.always("claude:a", page(b"<!DOCTYPE html><body>?</body>"))
            status, raw = await stack.post("/v1/messages", SAYS)
            told = json.loads(raw)
            assert (status, told["type"], told["error"]["type"]) == (413, "error", "request_too_large")
            assert "<" not in told["error"]["message"] and "413" in told["error"]["message"]

    run(main)
