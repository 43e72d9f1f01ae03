"""Google's resumable uploads go through the pool to their end, without a key after their start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pool_server.users import Principal
from tests.fakes import Play, key_account
from tests.gateway.stack import ADMIN, Stack, run
from tests.gateway.test_objects import FRIENDS, accounts_of, send

START = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
GO_ON = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}


def started(stack: Stack) -> Play:
    there = f"{stack.fakes.origin}/upload/v1beta/files?upload_id=AbC-1&upload_protocol=resumable"
    told = {"X-Goog-Upload-URL": there, "X-Goog-Upload-Control-URL": there, "X-Goog-Upload-Status": "active"}
    return Play(body=b"{}", headers=tuple(told.items()))


FINISHED = Play(body={"file": {"name": "files/f-1"}}, headers=(("X-Goog-Upload-Status", "final"),))


async def begin(stack: Stack, token: str, prefix: str = "") -> tuple[str, str]:
    """(the pool's address for the rest, the account that was asked)."""
    for account in stack.fakes.accounts:
        stack.fakes.then(account, started(stack), FINISHED, on="unknown")
    sent = START | ({"x-goog-api-key": token} if token else {})
    async with stack.client.post(f"{stack.url}{prefix}/upload/v1beta/files", data=b"{}", headers=sent) as answer:
        assert answer.status == 200
        assert "X-Goog-Upload-Control-URL" not in answer.headers
        address = answer.headers["X-Goog-Upload-URL"]
    asked = stack.fakes.calls[-1].account
    assert asked is not None
    return address, asked


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "/gemini"])
def test_an_upload_goes_on_at_the_pool_without_a_key(tmp_path: Path, prefix: str) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("gemini"), **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            address, account = await begin(stack, anna, prefix)
            assert address.startswith(f"{stack.url}{prefix}/upload/v1beta/files?upload_id=AbC-1&")
            path = address.removeprefix(stack.url)
            before = len(stack.fakes.calls)
            status, _ = await send(stack, bert, "POST", path, b"bytes", GO_ON)  # a key, but not the uploader's
            assert (status, len(stack.fakes.calls)) == (404, before)
            status, made = await send(stack, "", "POST", path, b"bytes", GO_ON)
            assert (status, made) == (200, {"file": {"name": "files/f-1"}})
            call = stack.fakes.calls[-1]
            assert (call.account, call.query, call.body) == (
                account,
                "upload_id=AbC-1&upload_protocol=resumable",
                b"bytes",
            )
            assert (await send(stack, bert, "GET", "/v1beta/files/f-1"))[0] == 404
            await send(stack, anna, "GET", "/v1beta/files/f-1")
            assert stack.fakes.calls[-1].account == account

    run(test)


def test_an_upload_ends_with_the_key_that_began_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("gemini:a")], **FRIENDS) as stack:
            anna = await stack.key("anna")
            address, _ = await begin(stack, anna)
            before = len(stack.fakes.calls)
            who = stack.users.authenticate(anna)
            assert isinstance(who, Principal)
            await stack.users.people.revoke_key(who.user, who.key, actor=ADMIN)
            status, _ = await send(stack, "", "POST", address.removeprefix(stack.url), b"bytes", GO_ON)
            assert (status, len(stack.fakes.calls)) == (401, before)

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize(
    "query", ["upload_id=AbC-1&upload_protocol=resumable", "upload_id=AbC-1&pool_upload=made-up", "pool_upload=", ""]
)
def test_an_address_nobody_was_given_is_no_way_in(tmp_path: Path, query: str) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("gemini:a")], **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            await begin(stack, anna)
            before = len(stack.fakes.calls)
            status, _ = await send(stack, "", "POST", f"/upload/v1beta/files?{query}", b"bytes", GO_ON)
            assert (status, len(stack.fakes.calls)) == (401, before)
            if "=A" in query:  # Google's own session, guessed or seen
                status, _ = await send(stack, bert, "POST", f"/upload/v1beta/files?{query}", b"bytes", GO_ON)
                assert (status, len(stack.fakes.calls)) == (404, before)

    run(test)


def test_a_ticket_opens_nothing_but_its_upload(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("gemini:a")], **FRIENDS) as stack:
            address, _ = await begin(stack, await stack.key("anna"))
            ticket = address.partition("pool_upload=")[2]
            before = len(stack.fakes.calls)
            generate: Any = {"contents": []}
            for method, path, body in (
                ("POST", "/v1beta/models/gemini-2.5-pro:generateContent", generate),
                ("GET", "/v1beta/files", None),
                ("GET", "/v1/models", None),
            ):
                status, _ = await send(stack, "", method, f"{path}?pool_upload={ticket}", body)
                assert (status, len(stack.fakes.calls)) == (401, before)

    run(test)


def test_local_mode_uploads_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("gemini"), public_url="https://pool.example/") as stack:
            address, account = await begin(stack, "")
            assert address.startswith("https://pool.example/upload/v1beta/files?")
            path = address.removeprefix("https://pool.example")
            assert (await send(stack, "", "POST", path, b"bytes", GO_ON))[0] == 200
            assert stack.fakes.calls[-1].account == account

    run(test)
