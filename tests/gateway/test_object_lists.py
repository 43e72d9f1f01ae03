"""Lists hold the caller's own, over all accounts that keep some, and their paging is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes import key_account
from tests.fakes.objects import Keeper
from tests.gateway.stack import Stack, run
from tests.gateway.test_objects import ANTHROPIC, FRIENDS, filled, ident_of, send

Json = dict[str, Any]

# (provider, headers, list path, the call that makes, its body, how to ask for the page behind this answer)
LISTS: list[tuple[str, dict[str, str], str, str, Any]] = [
    ("openai", {}, "/v1/files", "/v1/files", "form"),
    ("openai", {}, "/v1/batches", "/v1/batches", {"endpoint": "/v1/responses"}),
    ("openai", {}, "/v1/vector_stores", "/v1/vector_stores", {}),
    ("openai", {}, "/v1/containers", "/v1/containers", {"name": "c"}),
    ("openai", {}, "/v1/videos", "/v1/videos", {"model": "sora-2", "prompt": "x"}),
    ("claude", ANTHROPIC, "/v1/files", "/v1/files", "form"),
    ("claude", ANTHROPIC, "/v1/messages/batches", "/v1/messages/batches", {"requests": []}),
    ("gemini", {}, "/v1beta/files", "/upload/v1beta/files", b"bytes"),
    ("gemini", {}, "/v1beta/cachedContents", "/v1beta/cachedContents", {"model": "models/m", "contents": []}),
    ("gemini", {}, "/v1beta/batches", "/v1beta/models/m:batchGenerateContent", {"batch": {}}),
]
IDS = [f"{one[0]} {one[2]}" for one in LISTS]


def rows(provider: str, answer: Json) -> list[str]:
    if provider != "gemini":
        return [row["id"] for row in answer["data"]]
    found: list[Json] = next((answer[key] for key in ("files", "cachedContents", "operations") if key in answer), [])
    return [row["name"].rpartition("/")[2] for row in found]


def following(provider: str, answer: Json) -> str:
    """The query of the next page, "" at the end."""
    if provider == "gemini":
        return f"pageToken={answer['nextPageToken']}" if answer.get("nextPageToken") else ""
    if not answer["has_more"]:
        return ""
    return f"{'after_id' if provider == 'claude' else 'after'}={answer['last_id']}"


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "headers", "listed", "make", "body"), LISTS, ids=IDS)
@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_list_is_ones_own_with_whole_pages(
    tmp_path: Path, provider: str, headers: dict[str, str], listed: str, make: str, body: Any, size: int
) -> None:
    async def test() -> None:
        accounts = [key_account(f"{provider}:{name}") for name in "ab"]
        async with Stack(tmp_path, accounts, **FRIENDS) as stack:
            keeper = stack.fakes.keeper = Keeper(page=3)  # smaller than asked for: theirs is the last word
            anna, bert = await stack.key("anna"), await stack.key("bert")
            own: set[str] = set()
            for number in range(12):
                who = anna if number % 4 == 0 else bert
                sent = body if isinstance(body, bytes) else filled(body, "")
                status, made = await send(stack, who, "POST", make, sent, headers)
                assert status == 200
                if who == anna:
                    own.add(ident_of(made))
                for account, collection in list(keeper.kept):  # and others, made elsewhere
                    keeper.make(account, collection)
            name = "pageSize" if provider == "gemini" else "limit"
            seen: list[str] = []
            query = f"{name}={size}"
            for _ in range(20):
                status, answer = await send(stack, anna, "GET", f"{listed}?{query}", None, headers)
                assert status == 200, answer
                page = rows(provider, answer)
                assert len(page) <= size
                seen += page
                if provider != "gemini":
                    assert (answer["first_id"], answer["last_id"]) == (page[0], page[-1])
                more = following(provider, answer)
                if not more:
                    break
                assert page
                query = f"{name}={size}&{more}"
            assert sorted(seen) == sorted(own)

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "headers", "listed", "make", "body"), LISTS, ids=IDS)
def test_who_has_nothing_gets_an_empty_list_and_nothing_goes_up(
    tmp_path: Path, provider: str, headers: dict[str, str], listed: str, make: str, body: Any
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account(f"{provider}:a", owner="cleo")], **FRIENDS) as stack:
            keeper = stack.fakes.keeper = Keeper()
            anna, bert, cleo = [await stack.key(name) for name in ("anna", "bert", "cleo")]
            stack.accounts._registry.reown()  # the owner that the file names is somebody now
            sent = body if isinstance(body, bytes) else filled(body, "")
            _, made = await send(stack, anna, "POST", make, sent, headers)
            ident, before = ident_of(made), len(stack.fakes.calls)
            status, answer = await send(stack, bert, "GET", listed, None, headers)
            assert (status, rows(provider, answer), following(provider, answer)) == (200, [], "")
            assert len(stack.fakes.calls) == before
            if provider != "gemini":
                cursor = "after_id" if provider == "claude" else "after"
                status, _ = await send(stack, bert, "GET", f"{listed}?{cursor}={ident}", None, headers)
                assert status == 404  # no place in a list of theirs
            (collection,) = {collection for _, collection in keeper.kept}
            elsewhere = keeper.make(f"{provider}:a", collection)
            _, answer = await send(stack, cleo, "GET", listed, None, headers)  # the account is hers
            assert set(rows(provider, answer)) == {ident, elsewhere}

    run(test)


def test_a_cursor_that_is_somebody_elses_is_no_place_in_the_list(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna, bert = await stack.key("anna"), await stack.key("bert")
            foreign = ident_of((await send(stack, anna, "POST", "/v1/files", filled("form", "")))[1])
            await send(stack, bert, "POST", "/v1/files", filled("form", ""))
            for cursor in (foreign, "never-made"):
                status, _ = await send(stack, bert, "GET", f"/v1/files?after={cursor}")
                assert status == 404

    run(test)


def test_one_account_that_cannot_be_asked_does_not_hide_the_others(tmp_path: Path) -> None:
    async def test() -> None:
        accounts = [key_account("claude:a", priority=1), key_account("claude:b")]
        async with Stack(tmp_path, accounts, **FRIENDS) as stack:
            keeper = stack.fakes.keeper = Keeper()
            anna = await stack.key("anna")
            ids = [ident_of((await send(stack, anna, "POST", "/v1/files", filled("form", ""), ANTHROPIC))[1])]
            await stack.accounts.set_disabled("claude:a", True)
            ids.append(ident_of((await send(stack, anna, "POST", "/v1/files", filled("form", ""), ANTHROPIC))[1]))
            assert len(keeper.kept) == 2
            accounts[0].access = "another key by now"
            status, answer = await send(stack, anna, "GET", "/v1/files", None, ANTHROPIC)
            assert (status, rows("claude", answer)) == (200, ids[1:])
            accounts[1].access = "another key by now"
            status, answer = await send(stack, anna, "GET", "/v1/files", None, ANTHROPIC)
            assert status == 502 and "try again" in answer["error"]["message"]

    run(test)
