"""What a provider keeps belongs to the person whose call made it: nobody else meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes import FakeAccount, key_account
from tests.fakes.objects import Keeper
from tests.gateway.sockets import create, final_id, socket
from tests.gateway.stack import Stack, run

ANTHROPIC = {"anthropic-version": "2023-06-01"}
GOOGLE = {"x-goog-api-client": "google-genai-sdk/3"}
FRIENDS = {"friend_code": "let-me-in-1"}


def accounts_of(provider: str) -> list[FakeAccount]:
    """More accounts than attempts, or trying them one after the other would find the right one."""
    return [key_account(f"{provider}:{name}", priority=1 if name == "a" else 200) for name in "abcde"]


async def send(
    stack: Stack, token: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    data = body if isinstance(body, aiohttp.FormData | bytes) or body is None else json.dumps(body).encode()
    async with stack.client.request(method, stack.url + path, data=data, headers=sent) as answer:
        raw = await answer.read()
    try:
        return answer.status, json.loads(raw)
    except ValueError:
        return answer.status, raw


def form(**fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData()
    made.add_field("file", b"%PDF-1.4", filename="contract.pdf", content_type="application/pdf")
    for name, value in fields.items():
        made.add_field(name, value)
    return made


def claude(block: dict[str, Any]) -> dict[str, Any]:
    return {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}


# (provider, headers, the call that makes, its body, calls about the id as (method, path, body))
KINDS: list[tuple[str, dict[str, str], str, Any, list[tuple[str, str, Any]]]] = [
    ("openai", {}, "/v1/files", "form", [
        ("GET", "/v1/files/{}", None), ("GET", "/v1/files/{}/content", None),
        ("POST", "/v1/vector_stores", {"file_ids": ["{}"]}),
        ("POST", "/v1/chat/completions", {"model": "gpt-6", "messages": [
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "{}"}}]}]}),
        ("POST", "/v1/responses", {"model": "gpt-6", "input": [
            {"role": "user", "content": [{"type": "input_file", "file_id": "{}"}]}]}),
        ("POST", "/v1/responses", {"model": "gpt-6", "input": "x", "tools": [
            {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["{}"]}}]}),
        ("DELETE", "/v1/files/{}", None),
    ]),
    ("openai", {}, "/v1/uploads", {"purpose": "assistants"}, [
        ("POST", "/v1/uploads/{}/parts", "form"), ("POST", "/v1/uploads/{}/complete", {"part_ids": []}),
        ("POST", "/v1/uploads/{}/cancel", None),
    ]),
    ("openai", {}, "/v1/batches", {"endpoint": "/v1/responses"}, [
        ("GET", "/v1/batches/{}", None), ("POST", "/v1/batches/{}/cancel", None),
    ]),
    ("openai", {}, "/v1/conversations", {}, [
        ("GET", "/v1/conversations/{}", None), ("GET", "/v1/conversations/{}/items", None),
        ("POST", "/v1/conversations/{}/items", {"items": []}),
        ("POST", "/v1/responses", {"model": "gpt-6", "input": "x", "conversation": "{}"}),
        ("POST", "/v1/responses", {"model": "gpt-6", "input": "x", "conversation": {"id": "{}"}}),
        ("DELETE", "/v1/conversations/{}", None),
    ]),
    ("openai", {}, "/v1/vector_stores", {}, [
        ("GET", "/v1/vector_stores/{}", None), ("POST", "/v1/vector_stores/{}/search", {"query": "q"}),
        ("GET", "/v1/vector_stores/{}/files", None),
        ("POST", "/v1/responses", {"model": "gpt-6", "input": "x", "tools": [
            {"type": "file_search", "vector_store_ids": ["{}"]}]}),
        ("DELETE", "/v1/vector_stores/{}", None),
    ]),
    ("openai", {}, "/v1/containers", {"name": "c"}, [
        ("GET", "/v1/containers/{}", None), ("GET", "/v1/containers/{}/files", None),
        ("GET", "/v1/containers/{}/files/cfile_1/content", None),
        ("POST", "/v1/responses", {"model": "gpt-6", "input": "x", "tools": [
            {"type": "code_interpreter", "container": "{}"}]}),
        ("DELETE", "/v1/containers/{}", None),
    ]),
    ("openai", {}, "/v1/videos", {"model": "sora-2", "prompt": "x"}, [
        ("GET", "/v1/videos/{}", None), ("GET", "/v1/videos/{}/content", None),
        ("POST", "/v1/videos/{}/remix", {"prompt": "x"}), ("POST", "/v1/videos/edits", {"video": {"id": "{}"}}),
        ("DELETE", "/v1/videos/{}", None),
    ]),
    ("claude", ANTHROPIC, "/v1/files", "form", [
        ("GET", "/v1/files/{}", None), ("GET", "/v1/files/{}/content", None),
        ("POST", "/v1/messages", claude({"type": "document", "source": {"type": "file", "file_id": "{}"}})),
        ("POST", "/v1/messages/count_tokens", claude({"type": "container_upload", "file_id": "{}"})),
        ("POST", "/v1/messages", claude({"type": "tool_result", "tool_use_id": "t", "content": [
            {"type": "image", "source": {"type": "file", "file_id": "{}"}}]})),
        ("POST", "/v1/messages/batches", {"requests": [{"custom_id": "a", "params": claude(
            {"type": "image", "source": {"type": "file", "file_id": "{}"}})}]}),
        ("DELETE", "/v1/files/{}", None),
    ]),
    ("claude", {}, "/v1/messages/batches", {"requests": []}, [
        ("GET", "/v1/messages/batches/{}", None), ("GET", "/v1/messages/batches/{}/results", None),
        ("POST", "/v1/messages/batches/{}/cancel", None), ("DELETE", "/v1/messages/batches/{}", None),
    ]),
    ("gemini", {}, "/upload/v1beta/files", b"bytes", [
        ("GET", "/v1beta/files/{}", None), ("GET", "/v1beta/files/{}:download?alt=media", None),
        ("POST", "/v1beta/models/gemini-2.5-pro:generateContent", {"contents": [{"parts": [
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/{}"}}]}]}),
        ("POST", "/v1beta/models/gemini-2.5-pro:generateContent", {"contents": [{"parts": [
            {"file_data": {"file_uri": "files/{}"}}]}]}),
        ("DELETE", "/v1beta/files/{}", None),
    ]),
    ("gemini", {}, "/v1beta/cachedContents", {"model": "models/gemini-2.5-pro", "contents": []}, [
        ("GET", "/v1beta/cachedContents/{}", None), ("PATCH", "/v1beta/cachedContents/{}", {"ttl": "60s"}),
        ("POST", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", {
            "cachedContent": "cachedContents/{}", "contents": []}),
        ("DELETE", "/v1beta/cachedContents/{}", None),
    ]),
    ("gemini", {}, "/v1beta/models/gemini-2.5-pro:batchGenerateContent", {"batch": {}}, [
        ("GET", "/v1beta/batches/{}", None), ("POST", "/v1beta/batches/{}:cancel", None),
        ("DELETE", "/v1beta/batches/{}", None),
    ]),
    ("gemini", {}, "/v1beta/models/veo-3:predictLongRunning", {"instances": []}, [
        ("GET", "/v1beta/models/veo-3/operations/{}", None), ("GET", "/v1beta/operations/{}", None),
    ]),
]  # fmt: skip
IDS = [f"{kind[0]} {kind[2]}" for kind in KINDS]


def filled(value: Any, ident: str) -> Any:
    """`{}` replaced wherever it stands."""
    if value == "form":
        return form(purpose="user_data")
    return json.loads(json.dumps(value).replace('"{}"', json.dumps(ident)).replace("/{}", f"/{ident}"))


def ident_of(made: Any) -> str:
    if "file" in made:
        made = made["file"]
    return str(made["id"] if "id" in made else made["name"].rpartition("/")[2])


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "headers", "make", "body", "about"), KINDS, ids=IDS)
def test_an_object_is_its_makers_alone_and_stays_with_its_account(
    tmp_path: Path, provider: str, headers: dict[str, str], make: str, body: Any, about: list[tuple[str, str, Any]]
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of(provider), **FRIENDS) as stack:
            keeper = stack.fakes.keeper = Keeper()
            anna, bert = await stack.key("anna"), await stack.key("bert")
            sent = body if isinstance(body, bytes) else filled(body, "")
            status, made = await send(stack, anna, "POST", make, sent, headers)
            assert status == 200, made
            ident = ident_of(made)
            (maker,) = {account for account, _ in keeper.kept}
            before = len(stack.fakes.calls)
            told = []
            for method, path, content in about:
                for one in (ident, "never-made-1"):  # a foreign id, and one nobody has
                    status, answer = await send(
                        stack, bert, method, path.format(one), content and filled(content, one), headers
                    )
                    assert status in (400, 404), (method, path, status, answer)
                    answer.pop("request_id", None)
                    told.append(json.dumps(answer).replace(one, ""))
            assert told[::2] == told[1::2]  # the two cannot be told apart
            assert len(stack.fakes.calls) == before  # and nothing went up
            for method, path, content in about:
                status, answer = await send(
                    stack, anna, method, path.format(ident), content and filled(content, ident), headers
                )
                assert status == 200, (method, path, answer)
                assert stack.fakes.calls[-1].account == maker

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "headers", "make", "body", "about"), KINDS, ids=IDS)
def test_local_mode_and_admins_reach_everything(
    tmp_path: Path, provider: str, headers: dict[str, str], make: str, body: Any, about: list[tuple[str, str, Any]]
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of(provider)) as stack:
            keeper = stack.fakes.keeper = Keeper()
            sent = body if isinstance(body, bytes) else filled(body, "")
            status, made = await send(stack, "", "POST", make, sent, headers)
            assert status == 200, made
            ident = ident_of(made)
            (maker,) = {account for account, _ in keeper.kept}
            method, path, content = about[0]
            for one, expected in ((ident, 200), ("made-elsewhere-1", 404)):
                status, _ = await send(stack, "", method, path.format(one), content and filled(content, one), headers)
                assert status == expected
            calls = [call for call in stack.fakes.calls if ident in call.path]
            assert {call.account for call in calls} <= {maker}

    run(test)


ABOUT_RESPONSES: list[tuple[str, str, Any]] = [
    ("GET", "/v1/responses/{}", None),
    ("GET", "/v1/responses/{}/input_items", None),
    ("POST", "/v1/responses/{}/cancel", None),
    ("DELETE", "/v1/responses/{}", None),
    ("POST", "/v1/responses", {"model": "gpt-6", "input": "and?", "previous_response_id": "{}"}),
    ("POST", "/v1/responses", {"model": "gpt-6", "input": "and?", "comparison_response_id": "{}"}),
    ("POST", "/v1/responses", {"model": "gpt-6", "input": [{"type": "item_reference", "id": "{}"}]}),
    ("POST", "/v1/responses", {"model": "gpt-6", "input": [{"id": "{}"}]}),
    ("POST", "/v1/responses/compact", {"model": "gpt-6", "previous_response_id": "{}"}),
]


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["openai", "codex"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_stored_response_is_its_askers_alone(tmp_path: Path, provider: str, stream: bool) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of(provider), **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            ask = {"model": "gpt-6", "stream": stream, "input": "remember me"}
            status, raw = await send(stack, anna, "POST", "/v1/responses", ask)
            assert status == 200
            text = raw.decode() if isinstance(raw, bytes) else json.dumps(raw)
            ident = text.partition('"id": "resp_')[2] or text.partition('"id":"resp_')[2]
            ident = "resp_" + ident.partition('"')[0]
            maker, before = stack.fakes.calls[-1].account, len(stack.fakes.calls)
            for method, path, content in ABOUT_RESPONSES:
                for one in (ident, "resp_never"):
                    status, answer = await send(stack, bert, method, path.format(one), filled(content, one))
                    assert status in (400, 404), (method, path, answer)
            assert len(stack.fakes.calls) == before
            for method, path, content in ABOUT_RESPONSES[:6]:
                await send(stack, anna, method, path.format(ident), filled(content, ident))
                assert stack.fakes.calls[-1].account == maker
            assert len(stack.fakes.calls) == before + 6

    run(test)


def test_an_answer_that_is_not_kept_makes_no_object(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("openai"), **FRIENDS) as stack:
            anna = await stack.key("anna")
            for path, ask in (
                ("/v1/responses", {"model": "gpt-6", "store": False, "input": "x"}),
                ("/v1/chat/completions", {"model": "gpt-6", "messages": [{"role": "user", "content": "x"}]}),
            ):
                status, made = await send(stack, anna, "POST", path, ask)
                assert status == 200
                before = len(stack.fakes.calls)
                status, _ = await send(stack, anna, "GET", f"{path}/{made['id']}")
                assert (status, len(stack.fakes.calls)) == (404, before)

    run(test)


def test_a_stored_completion_is_its_askers_alone(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("openai"), **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            ask = {"model": "gpt-6", "store": True, "messages": [{"role": "user", "content": "x"}]}
            status, made = await send(stack, anna, "POST", "/v1/chat/completions", ask)
            path = f"/v1/chat/completions/{made['id']}"
            before = len(stack.fakes.calls)
            for method, one, content in (
                ("GET", path, None),
                ("GET", f"{path}/messages", None),
                ("POST", path, {"metadata": {}}),
                ("DELETE", path, None),
            ):
                status, _ = await send(stack, bert, method, one, content)
                assert (status, len(stack.fakes.calls)) == (404, before)
            await send(stack, anna, "GET", path)
            assert len(stack.fakes.calls) == before + 1

    run(test)


def test_a_foreign_file_is_no_batch(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("openai"), **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna, bert = await stack.key("anna"), await stack.key("bert")
            ident = ident_of((await send(stack, anna, "POST", "/v1/files", form(purpose="batch")))[1])
            before = len(stack.fakes.calls)
            status, _ = await send(stack, bert, "POST", "/v1/batches", {"input_file_id": ident})
            assert (status, len(stack.fakes.calls)) == (404, before)

    run(test)


def test_files_that_a_batch_writes_are_its_makers(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("openai"), **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna, bert = await stack.key("anna"), await stack.key("bert")
            _, batch = await send(stack, anna, "POST", "/v1/batches", {"endpoint": "/v1/responses"})
            _, polled = await send(stack, anna, "GET", f"/v1/batches/{batch['id']}")
            result = f"/v1/files/{polled['output_file_id']}/content"
            assert (await send(stack, bert, "GET", result))[0] == 404
            assert (await send(stack, anna, "GET", result))[0] == 200

    run(test)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-6","input":[{"role":"user","content":[{"type":"input_file","file\\u005fid":"%b"}]}]}',
        b'{"model":"gpt-6","input":[{"role":"user","content":[{"type":"input_file","file_id":"%b","file_id":"x"}]}]}',
        b'{"model":"gpt-6","input":[{"role":"user","content":[{"type":"input_file","file_id":"%b"}]}],"input":"x"}',
        b'{"model":"gpt-6","input":"x","tools":[{"type":"code_interpreter","container":{"file_ids":["%b"]}}]}',
        b'{"model":"gpt-6","input":"x","prompt":{"id":"p","variables":{"a":{"type":"input_image","file_id":"%b"}}}}',
    ],
)
def test_an_id_cannot_be_hidden_from_the_pool(tmp_path: Path, body: bytes) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("openai"), **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna, bert = await stack.key("anna"), await stack.key("bert")
            ident = ident_of((await send(stack, anna, "POST", "/v1/files", form()))[1])
            before = len(stack.fakes.calls)
            status, _ = await send(stack, bert, "POST", "/v1/responses", body.replace(b"%b", ident.encode()))
            twice = body.count(b'"input":') == 2  # of its own keys one stands there twice: no request at all
            assert (status, len(stack.fakes.calls)) == (400 if twice else 404, before)

    run(test)


def test_ownership_outlives_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, accounts_of("openai"), **FRIENDS) as stack:
            keeper = stack.fakes.keeper = Keeper()
            anna, bert = await stack.key("anna"), await stack.key("bert")
            ident = ident_of((await send(stack, anna, "POST", "/v1/files", form()))[1])
        async with Stack(tmp_path, accounts_of("openai"), **FRIENDS) as stack:
            stack.fakes.keeper = keeper
            assert (await send(stack, anna, "GET", f"/v1/files/{ident}"))[0] == 200
            assert (await send(stack, bert, "GET", f"/v1/files/{ident}"))[0] == 404

    run(test)


def test_objects_of_two_accounts_cannot_be_joined(tmp_path: Path) -> None:
    async def test() -> None:
        accounts = [key_account("openai:a", priority=1), key_account("openai:b")]
        async with Stack(tmp_path, accounts, **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna = await stack.key("anna")
            first = ident_of((await send(stack, anna, "POST", "/v1/files", form()))[1])
            await stack.accounts.set_disabled("openai:a", True)
            second = ident_of((await send(stack, anna, "POST", "/v1/files", form()))[1])
            status, answer = await send(stack, anna, "POST", "/v1/vector_stores", {"file_ids": [first, second]})
            assert status == 400 and "different accounts" in answer["error"]["message"]
            status, answer = await send(stack, anna, "GET", f"/v1/files/{first}")
            assert status == 503 and "cannot be asked" in answer["error"]["message"]

    run(test)


def test_a_socket_goes_on_from_ones_own_response_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("codex:key")], **FRIENDS) as stack:
            anna, bert = await stack.key("anna"), await stack.key("bert")
            async with socket(stack, authorization=f"Bearer {anna}") as client:
                ident = final_id(await client.turn(create(store=True)))
            async with socket(stack, authorization=f"Bearer {bert}") as client:
                own = final_id(await client.turn(create(store=True)))
                assert final_id(await client.turn(create(previous_response_id=own)))
                frames = sum(len(call.frames) for call in stack.fakes.calls)
                told = (await client.turn(create(previous_response_id=ident)))[-1]
            assert told["type"] == "error" and told["error"]["code"] == "previous_response_not_found"
            assert sum(len(call.frames) for call in stack.fakes.calls) == frames
            assert (await send(stack, anna, "GET", f"/v1/responses/{own}"))[0] == 404

    run(test)
