"""An endpoint of somebody's own that lists no models: any client reaches whatever it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes import FakeAccount, account, key_account
from tests.gateway.stack import Stack, run
from tests.gateway.test_model_routing import call

NAMES = ["gpt-9", "claude-sonnet-9", "gemini-9-pro", "qwen9-coder", "llama-9"]
CLIENTS = ["chat", "messages", "responses", "gemini"]


def endpoint() -> FakeAccount:
    return key_account("openai:own", dialects=["chat"])


async def made_own(stack: Stack) -> None:
    """Gives the endpoint's file an address, which only a started fake has."""
    path = Path(stack.settings.pool_dir) / "openai_own.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_url": stack.settings.upstreams.openai}))
    await stack.accounts.reload()
    assert not stack.accounts.rejected()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("model", NAMES)
def test_any_client_reaches_any_model_of_the_only_endpoint(tmp_path: Path, client: str, model: str) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [endpoint()], friend_code="swim") as stack:
            await made_own(stack)
            status, _, raw = await call(stack, await stack.key(), client, model)
            assert status == 200, raw
            await stack.idle()
            record = stack.records()[-1]
            assert (record.account, record.model) == ("openai:own", model)
            assert bool(record.decision.get("translation")) is (client != "chat")

    run(main)


@pytest.mark.parametrize("client", ["messages", "responses", "gemini"])
def test_accounts_of_the_model_s_own_vendor_come_first(tmp_path: Path, client: str) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [endpoint(), account("claude:a")], friend_code="swim") as stack:
            await made_own(stack)
            key = await stack.key()
            for number in range(3):
                status, _, raw = await call(stack, key, client, "claude-sonnet-9", str(number), stream=True)
                assert status == 200, raw
            assert {one.account for one in stack.fakes.made()} == {"claude:a"}
            await stack.accounts.set_disabled("claude:a", True)
            assert (await call(stack, key, client, "claude-sonnet-9", "last", stream=True))[0] == 200
            assert stack.fakes.made()[-1].account == "openai:own"

    run(main)
