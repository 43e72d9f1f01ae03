"""Accounts that know a model by a name of their own: asked for by the pool's, sent up by theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import Fallback, Models
from tests.fakes import FakeAccount, account, key_account, plays
from tests.gateway.stack import Stack, run
from tests.gateway.test_translated import CLAUDE, GPT, USAGE, ask, said

OWN = "anthropic/claude-sonnet-5.5"


def router(*, dialects: tuple[str, ...] = ("chat",), **more: Any) -> FakeAccount:
    return key_account("openai:router", models=[OWN], dialects=list(dialects), renames={CLAUDE: OWN}, **more)


def name_sent(call: Any) -> str:
    """The model in a request, wherever its dialect has it."""
    if "/models/" in call.path:
        return str(call.raw_path.partition("/models/")[2].partition(":")[0])
    return str(json.loads(call.body)["model"])


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", ["chat", "messages", "responses", "gemini"])
@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
def test_the_account_is_asked_by_its_own_name(tmp_path: Path, dialect: str, client: str, stream: bool) -> None:
    path, body = ask(client, CLAUDE, stream=stream)

    async def main() -> None:
        async with Stack(tmp_path, [router(dialects=(dialect,))], friend_code="swim") as stack:
            stack.fakes.always("openai:router", plays.ok(USAGE, ["Hel", "lo."]))
            key = await stack.key()
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            async with stack.client.post(stack.url + path, data=json.dumps(body), headers=headers) as answer:
                raw = await answer.read()
                assert answer.status == 200, raw
                assert "X-Pool-Model" not in answer.headers, "it is the model that was asked for"
            assert said(client, raw, stream=stream) == "Hello."
            (call,) = stack.fakes.made()
            assert name_sent(call) == OWN
            await stack.idle()
            (record,) = stack.records()
            assert (record.model, record.decision["sent"]) == (CLAUDE, OWN)

    run(main)


def test_a_gemini_account_is_asked_by_its_own_name_in_the_path(tmp_path: Path) -> None:
    made = key_account("gemini:k", models=["tuned-flash"], renames={"gemini-3.8-flash": "tuned-flash"})
    path, body = ask("gemini", "gemini-3.8-flash", stream=False)

    async def main() -> None:
        async with Stack(tmp_path, [made], friend_code="swim") as stack:
            status, raw = await stack.post(path, body, token=await stack.key())
            assert status == 200, raw
            assert name_sent(stack.fakes.made()[0]) == "tuned-flash"

    run(main)


def test_each_account_is_asked_by_its_own_name_on_the_way_through_them(tmp_path: Path) -> None:
    path, body = ask("messages", CLAUDE, stream=False)

    async def main() -> None:
        async with Stack(tmp_path, [account("claude:a"), router()], friend_code="swim") as stack:
            stack.fakes.always("claude:a", plays.status(500, {"error": {"message": "no"}}))
            status, raw = await stack.post(path, body, token=await stack.key())
            assert status == 200, raw
            sent = {call.account: name_sent(call) for call in stack.fakes.made()}
            assert sent == {"claude:a": CLAUDE, "openai:router": OWN}

    run(main)


def test_what_an_account_calls_otherwise_is_asked_for_by_the_pool_s_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [router()], friend_code="swim") as stack:
            key = await stack.key()
            async with stack.client.get(f"{stack.url}/v1/models", headers={"Authorization": f"Bearer {key}"}) as answer:
                listed = {one["id"] for one in json.loads(await answer.read())["data"]}
            assert CLAUDE in listed and OWN not in listed

    run(main)


def test_an_alias_and_a_chain_lead_to_a_renamed_model(tmp_path: Path) -> None:
    models = Models(aliases={"sonnet": CLAUDE}, fallbacks={GPT: [Fallback(CLAUDE, on=("quota",))]})

    async def main() -> None:
        async with Stack(tmp_path, [account("codex:a"), router()], friend_code="swim", models=models) as stack:
            spent = {"error": {"type": "usage_limit_reached", "resets_in_seconds": 900}}
            stack.fakes.always("codex:a", plays.status(429, spent))
            key = await stack.key()
            for asked in ("sonnet", GPT):
                path, body = ask("chat", asked, stream=False)
                headers = {"Authorization": f"Bearer {key}"}
                async with stack.client.post(stack.url + path, data=json.dumps(body), headers=headers) as answer:
                    assert answer.status == 200, await answer.read()
                    assert answer.headers["X-Pool-Model"] == CLAUDE
                assert name_sent(stack.fakes.made()[-1]) == OWN
            await stack.idle()
            assert [(one.model, one.decision["asked"]) for one in stack.records()] == [
                (CLAUDE, "sonnet"),
                (CLAUDE, GPT),
            ]

    run(main)


@pytest.mark.parametrize(
    "renames", [7, [], {"a": 7}, {"a": ""}, {"": "a"}, {"a": "b" * 201}, {str(n): "x" for n in range(201)}]
)
def test_renames_that_are_none_reject_the_file(tmp_path: Path, renames: Any) -> None:
    async def main() -> None:
        made = key_account("openai:a", renames=renames)
        async with Stack(tmp_path, [made], friend_code="swim") as stack:
            (rejected,) = stack.report.rejected
            assert "renames must" in rejected.reason

    run(main)
