"""Limits of one key on the wire: refused in the client's dialect, with the key's name, and models told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.models import UsageRecord
from pool_server.gateway import recording
from pool_server.gateway.exchange import Exchange
from pool_server.users import Principal
from pool_server.users.limits import USE
from pool_server.users.limits.counters import Use
from tests.fakes import account
from tests.gateway.stack import ADMIN, Stack, chat, messages, responses, run


async def key_of(stack: Stack, user: str, **limits: Any) -> str:
    made = await stack.users.people.create_key(user, "ci runner", actor=ADMIN, limits=limits)
    return str(made["key"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ident", "path", "body"),
    [
        ("claude:one", "/v1/messages", messages(stream=False)),
        ("claude:one", "/v1/messages", messages()),
        ("codex:one", "/v1/responses", responses()),
        ("qwen:one", "/v1/chat/completions", chat()),
    ],
)
def test_a_key_with_its_limit_used_up_is_told_so_and_the_persons_other_key_serves(
    tmp_path: Path, ident: str, path: str, body: dict[str, Any]
) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [account(ident)], friend_code="swim") as stack:
            first = await stack.key()
            limited = await key_of(stack, stack.user(first), tokens_day=1)
            assert (await stack.post(path, body, token=limited))[0] == 200
            await stack.idle()
            status, answer = await stack.post(path, body, token=limited)
            assert status == 429
            assert (
                "the limit of 1 token a day of your key “ci runner” is reached"
                in json.loads(answer)["error"]["message"]
            )
            assert (await stack.post(path, body, token=first))[0] == 200
            await stack.idle()
            found = stack.users.limits.of_key(_jti(stack, limited))
            used = [record.usage.total for record in stack.records() if record.key == _jti(stack, limited)]
            assert found is not None and found["used"]["tokens_day"] == sum(used) > 0

    run(main)


def _jti(stack: Stack, token: str) -> str:
    principal = stack.users.authenticate(token)
    assert isinstance(principal, Principal)
    return principal.key


def test_a_model_outside_a_keys_models_is_forbidden_and_not_listed(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [account("claude:one")], friend_code="swim") as stack:
            first = await stack.key()
            limited = await key_of(stack, stack.user(first), models=["*haiku*"])
            status, answer = await stack.post("/v1/messages", messages(stream=False), token=limited)
            assert (
                status == 403 and "your key “ci runner” does not include the model claude-sonnet-4-5" in answer.decode()
            )
            everything = await listed(stack, first)
            assert everything and await listed(stack, limited) == [name for name in everything if "haiku" in name]
            wide = await key_of(stack, stack.user(first), models=["claude-*"])
            assert await listed(stack, wide) == everything

    run(main)


async def listed(stack: Stack, token: str) -> list[str]:
    """The models that a key is told of."""
    headers = {"Authorization": f"Bearer {token}", "anthropic-version": "2023-06-01"}
    async with stack.client.get(stack.url + "/v1/models", headers=headers) as answer:
        return [row["id"] for row in (await answer.json())["data"]]


def test_a_batch_beyond_a_keys_limit_is_refused_by_its_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [account("claude:one")], friend_code="swim") as stack:
            limited = await key_of(stack, stack.user(await stack.key()), tokens_day=5000)
            params = {"model": "claude-haiku-4-5", "max_tokens": 6000, "messages": []}
            asked = {"requests": [{"custom_id": "c", "params": params}]}
            status, answer = await stack.post("/v1/messages/batches", asked, token=limited)
            assert (status, "of the 5,000 a day of your key “ci runner”" in answer.decode()) == (429, True)

    run(main)


def test_an_answer_is_counted_once_its_record_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters of a killed process are made up from its records, and must not be ahead of them."""

    async def main() -> None:
        async with Stack(tmp_path, [account("claude:one")], friend_code="swim") as stack:
            key = await stack.key()
            order = list[str]()
            record, settle = stack.ledger.record, stack.users.admission.settle

            def recording(sheet: UsageRecord, **more: bool) -> Any:
                kept = record(sheet, **more)
                kept.add_done_callback(lambda _: order.append("kept"))
                return kept

            def settling(*given: Any) -> None:
                order.append("counted")
                settle(*given)

            monkeypatch.setattr(stack.ledger, "record", recording)
            monkeypatch.setattr(stack.users.admission, "settle", settling)
            assert (await stack.post("/v1/messages", messages(stream=False), token=key))[0] == 200
            await stack.idle()
            assert order == ["kept", "counted"]

    run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_has_an_answer_may_ask_another_worker_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """What its request held is given back, as any process sees it, before the exchange goes on to the last byte."""

    async def main() -> None:
        async with Stack(tmp_path, [account("claude:one")], friend_code="swim") as stack:
            stack.users.stand_beside(True)
            held = list[int]()
            keep = recording._keep

            async def keeping(x: Exchange, *given: Any) -> None:
                await keep(x, *given)
                with stack.state.read() as txn:
                    held.append(
                        len(msgspec.msgpack.decode(txn.get(USE, x.principal.user.encode()) or b"", type=Use).by)
                    )

            monkeypatch.setattr(recording, "_keep", keeping)
            key = await stack.key()
            for _ in range(3):
                assert (await stack.post("/v1/messages", messages(stream=stream), token=key))[0] == 200
            await stack.idle()
            assert held == [0, 0, 0]

    run(main)
