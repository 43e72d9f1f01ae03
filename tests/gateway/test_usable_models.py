"""What set-up lines name is served to that very person when they ask for it; what is not named is not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.core.settings import Models
from pool_server.dialects import UsableModel
from pool_server.users import Principal
from tests.fakes import FakeAccount, account, faults, key_account, plays
from tests.gateway.stack import ADMIN, Stack, run
from tests.gateway.test_objects import FRIENDS
from tests.gateway.test_translated import ask

CLIENTS = {
    Dialect.RESPONSES: "responses",
    Dialect.MESSAGES: "messages",
    Dialect.CHAT: "chat",
    Dialect.GEMINI: "gemini",
}
LISTED = ("gpt-5.1-codex", "claude-sonnet-4-5", "gemini-2.5-pro", "qwen3-coder-plus", "gpt-5.1", "house-1")
POOLS: dict[str, list[FakeAccount]] = {
    "none": [],
    "codex": [account("codex:a")],
    "claude": [account("claude:a")],
    "code assist": [account("gemini:a")],
    "qwen": [account("qwen:a")],
    "gemini key": [key_account("gemini:a")],
    "openai key": [key_account("openai:a")],
    "listed": [key_account("openai:a", models=["house-1"], dialects=["chat"])],
    "preset": [key_account("kimi:a", models=["kimi-k2"])],
    "limited sign-in": [account("claude:a", models=["claude-haiku-*"])],
    "many": [account("codex:a"), account("claude:a"), account("claude:b"), account("gemini:a"), key_account("qwen:a")],
    "disabled": [account("claude:a", disabled=True)],
    "one of two disabled": [account("claude:a", disabled=True), account("codex:a")],
    "shared with others": [account("claude:a", people=["somebody else"])],
}
LIMITS: dict[str, dict[str, Any]] = {
    "all": {},
    "claude alone": {"providers": ["claude"]},
    "haiku alone": {"models": ["claude-haiku-*"]},
    "gpt": {"models": ["gpt-*"]},
    "no such": {"models": ["nobody-has-this"]},
}


async def person(stack: Stack, limits: dict[str, Any]) -> tuple[Principal, str]:
    name = f"p{len(stack.users.people.list_users()[0])}"
    made = await stack.users.people.create_user(name, limits=limits, actor=ADMIN)
    return Principal(made["id"], name), made["key"]


async def told(stack: Stack, who: Principal) -> dict[Dialect, UsableModel]:
    return {one: await stack.gateway.local.usable(who, one) for one in CLIENTS}


async def served(stack: Stack, dialect: Dialect, model: str, key: str) -> bool:
    path, body = ask(CLIENTS[dialect], model, stream=False)
    status, _ = await stack.post(path, body, token=key)
    return status == 200


@pytest.mark.parametrize("pool", POOLS)
def test_what_is_named_is_served_and_else_nothing_is(pool: str, tmp_path: Path) -> None:
    async def body() -> None:
        async with Stack(tmp_path, POOLS[pool], **FRIENDS) as stack:
            for one in POOLS[pool]:
                stack.fakes.always(one.id, plays.ok(None, ["Hello"]))
            for limits in LIMITS.values():
                who, key = await person(stack, limits)
                for dialect, found in (await told(stack, who)).items():
                    where = (pool, limits, dialect, found)
                    if found.model:
                        assert found.served and await served(stack, dialect, found.model, key), where
                    elif not found.served:
                        assert not any([await served(stack, dialect, one, key) for one in LISTED]), where

    run(body)


def test_a_client_s_own_models_need_no_name_where_all_of_its_vendor_are_served(tmp_path: Path) -> None:
    async def body() -> None:
        async with Stack(
            tmp_path, [account("claude:a"), key_account("openai:a", models=["house-1"])], **FRIENDS
        ) as stack:
            free, _ = await person(stack, {})
            bound, _ = await person(stack, {"models": ["claude-sonnet-*"]})
            everything, little = await told(stack, free), await told(stack, bound)
            assert everything[Dialect.MESSAGES] == UsableModel("claude-sonnet-4-5", True, whole_range=True)
            assert not everything[Dialect.RESPONSES].whole_range, "one model of somebody's is not OpenAI's range"
            assert everything[Dialect.GEMINI].translated
            assert little[Dialect.MESSAGES] == UsableModel("claude-sonnet-4-5", True)
            assert little[Dialect.CHAT] == UsableModel("claude-sonnet-4-5", True, translated=True)

    run(body)


def test_while_all_cool_down_it_is_told_when_one_is_back(tmp_path: Path) -> None:
    async def body() -> None:
        async with Stack(tmp_path, [account("claude:a"), account("codex:a")], **FRIENDS) as stack:
            who, key = await person(stack, {"providers": ["claude"]})
            free, _ = await person(stack, {})
            stack.fakes.always("claude:a", faults.retry_after(900))
            assert not await served(stack, Dialect.MESSAGES, "claude-sonnet-4-5", key)
            found = (await told(stack, who))[Dialect.MESSAGES]
            assert (found.model, found.served) == ("claude-sonnet-4-5", False)
            assert found.back is not None and found.back > time.time() + 800
            other = (await told(stack, free))[Dialect.MESSAGES]
            assert (other.model, other.served, other.translated) == ("gpt-5.1-codex", True, True)

    run(body)


def test_an_endpoint_whose_models_nobody_knows_has_no_name(tmp_path: Path) -> None:
    async def body() -> None:
        async with Stack(tmp_path, [key_account("openai:a", base_url="http://127.0.0.1:9/v1")], **FRIENDS) as stack:
            who, _ = await person(stack, {})
            found = await told(stack, who)
            assert found[Dialect.CHAT] == UsableModel("", True)

    run(body)


def test_no_line_names_a_model_that_reads_as_an_option(tmp_path: Path) -> None:
    async def body() -> None:
        endpoint = key_account("openai:a", base_url="http://127.0.0.1:9/v1", models=["--yolo", "house"])
        async with Stack(tmp_path, [endpoint], **FRIENDS) as stack:
            who, _ = await person(stack, {})
            assert (await told(stack, who))[Dialect.CHAT].model == "house"

    run(body)


def test_an_alias_that_hides_a_model_is_what_is_named(tmp_path: Path) -> None:
    async def body() -> None:

        aliases = {"claude-sonnet-4-5": "gone-model", "best": "claude-sonnet-4-5"}
        async with Stack(tmp_path, [account("claude:a")], models=Models(aliases=aliases), **FRIENDS) as stack:
            stack.fakes.always("claude:a", plays.ok(None, ["Hello"]))
            who, key = await person(stack, {})
            found = (await told(stack, who))[Dialect.MESSAGES]
            assert found.model == "best" and await served(stack, Dialect.MESSAGES, "best", key)

    run(body)
