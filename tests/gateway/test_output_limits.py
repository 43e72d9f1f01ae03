"""A translated request for more tokens than its model writes is sent again with as many as it does: clients know the
limits of their own vendors' models alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.models import Usage
from tests.fakes import key_account, plays
from tests.gateway.stack import Stack, chat, run

ROUTER = key_account("openai:router", base_url_path="/compat", models=["m"])
USAGE = Usage(input=7, output=5, known=True)


def refusal(message: str) -> plays.Play:
    return plays.Play(status=400, body={"error": {"message": message, "type": "invalid_request_error"}})


def most(body: dict[str, Any]) -> Any:
    return next(body[name] for name in ("max_tokens", "max_completion_tokens", "max_output_tokens") if name in body)


def test_a_request_for_too_many_tokens_is_sent_again_with_as_many_as_there_are(tmp_path: Path) -> None:
    asked = {"model": "m", "max_tokens": 32000, "messages": [{"role": "user", "content": "q"}]}

    async def main() -> None:
        async with Stack(tmp_path, [ROUTER]) as stack:

            async def sent(
                *refused: str, body: dict[str, object] = asked, path: str = "/v1/messages"
            ) -> tuple[int, list[int]]:
                before = len(stack.fakes.made())
                stack.fakes.then(ROUTER.id, *map(refusal, refused), plays.ok(USAGE, ["Hello."]))
                status, _ = await stack.post(path, body)
                return status, [most(json.loads(call.body)) for call in stack.fakes.made()[before:]]

            beside = (
                "maximum context length is 40000 tokens. However, you asked for 52000 (20000 in the messages, 32000)"
            )
            assert await sent(beside) == (200, [32000, 20000])
            assert await sent("Range of max_tokens should be [1, 8192]") == (200, [32000, 8192])
            assert await sent() == (200, [8192]), "it is remembered"
            assert await sent(body={**asked, "max_tokens": 99}) == (200, [99])
            full = "maximum context length is 40000 tokens. However, you asked for 71900 (39900 in the messages, 32000)"
            assert await sent(full) == (400, [8192]), "the client is to shorten its conversation"
            stack.fakes.then(ROUTER.id)
            await stack.post("/v1/chat/completions", chat(model="m"))  # takes what is left
            native = chat(model="m", max_tokens=32000)
            status, told = await sent(
                "Range of max_tokens should be [1, 8192]", body=native, path="/v1/chat/completions"
            )
            assert (status, told) == (400, [32000]), "bytes of the same dialect pass untouched"

    run(main)


@pytest.mark.parametrize(("path", "mark"), [("/v1/messages", "org-"), ("/v1/chat/completions", "org_")])
def test_a_refusal_does_not_name_the_account_s_organization(tmp_path: Path, path: str, mark: str) -> None:
    said = f"Request too large for m in organization {mark}AbCdEf0123456789AbCdEf01 on tokens per min (TPM): Limit 3."
    body = {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "q"}]}

    async def main() -> None:
        async with Stack(tmp_path, [ROUTER]) as stack:
            stack.fakes.then(ROUTER.id, refusal(said))
            _, told = await stack.post(path, body)
            assert f"Request too large for m in organization {mark}hidden on tokens".encode() in told

    run(main)
