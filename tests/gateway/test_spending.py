"""Limits bind what has no single model in view: batches, forms, and calls that name no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.settings import Limits
from tests.fakes import key_account
from tests.fakes.objects import Keeper
from tests.gateway.stack import ADMIN, Stack, run
from tests.gateway.test_objects import ANTHROPIC, FRIENDS, form, ident_of, send

OPUS, HAIKU = "claude-opus-5", "claude-haiku-4-5"
HAIKU_ONLY = {"models": ["*haiku*", "gpt-6-mini", "gemini-2.5-flash"]}


async def limited(stack: Stack, **limits: Any) -> str:
    """The key of a user with these limits."""
    user = await stack.users.people.create_user("anna", limits=limits, actor=ADMIN)
    return str(user["key"])


def messages(*requests: tuple[str, int]) -> dict[str, Any]:
    asked: list[dict[str, Any]] = [
        {"custom_id": f"c{number}", "params": {"model": model, "max_tokens": most, "messages": []}}
        for number, (model, most) in enumerate(requests)
    ]
    return {"requests": asked}


def lines(*requests: tuple[str, int]) -> bytes:
    asked = [
        {"custom_id": f"c{n}", "url": "/v1/responses", "body": {"model": model, "max_output_tokens": most}}
        for n, (model, most) in enumerate(requests)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in asked)


def batch_file(content: bytes, purpose: str = "batch") -> Any:
    made = form(purpose=purpose)
    made._fields.clear()
    made.add_field("purpose", purpose)
    made.add_field("file", content, filename="in.jsonl", content_type="application/jsonl")
    return made


def google(model: str = "gemini-2.5-flash", *, inner: str = "", most: int = 100, count: int = 1) -> dict[str, Any]:
    request: dict[str, Any] = {"contents": [], "generationConfig": {"maxOutputTokens": most}}
    if inner:
        request["model"] = f"models/{inner}"
    rows = [{"request": request, "metadata": {"key": str(number)}} for number in range(count)]
    return {"batch": {"display_name": "b", "input_config": {"requests": {"requests": rows}}}}


REFUSED: list[tuple[str, dict[str, Any], str, Any]] = [
    ("claude", HAIKU_ONLY, "/v1/messages/batches", messages((HAIKU, 9), (OPUS, 9))),
    ("claude", HAIKU_ONLY, "/v1/messages/batches", {"requests": [{"custom_id": "a", "params": {"max_tokens": 9}}]}),
    ("claude", {"tokens_day": 20_000}, "/v1/messages/batches", messages(*[(HAIKU, 64_000)] * 100)),
    ("claude", {"tokens_month": 20_000}, "/v1/messages/batches", messages(*[(HAIKU, 300)] * 100)),
    ("claude", {"cost_day": 1.0}, "/v1/messages/batches", messages(*[("claude-sonnet-4-5", 64_000)] * 100)),
    ("gemini", HAIKU_ONLY, "/v1beta/models/gemini-2.5-pro:batchGenerateContent", google()),
    ("gemini", HAIKU_ONLY, "/v1beta/models/gemini-2.5-flash:batchGenerateContent", google(inner="gemini-2.5-pro")),
    ("gemini", {"tokens_day": 20_000}, "/v1beta/models/gemini-2.5-flash:batchGenerateContent", google(most=65_000)),
    ("gemini", {"tokens_day": 2_000}, "/v1beta/models/gemini-2.5-flash:batchGenerateContent", google(count=30)),
    ("gemini", HAIKU_ONLY, "/v1beta/cachedContents", {"model": "models/gemini-2.5-pro", "contents": []}),
    ("openai", HAIKU_ONLY, "/v1/responses", {"input": "x"}),
    ("openai", HAIKU_ONLY, "/v1/responses/input_tokens", {"input": "x"}),
    ("openai", HAIKU_ONLY, "/v1/embeddings", {"input": "x"}),
    ("openai", HAIKU_ONLY, "/v1/images/generations", {"prompt": "x"}),
    ("openai", HAIKU_ONLY, "/v1/videos", {"prompt": "x"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "limits", "path", "body"), REFUSED)
def test_what_goes_beyond_the_limits_is_refused_before_it_is_paid(
    tmp_path: Path, provider: str, limits: dict[str, Any], path: str, body: Any
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account(f"{provider}:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna = await limited(stack, **limits)
            status, answer = await send(stack, anna, "POST", path, body, ANTHROPIC if provider == "claude" else {})
            assert status in (403, 429), answer
            assert not stack.fakes.calls

    run(test)


@pytest.mark.parametrize(
    ("provider", "path", "body"),
    [
        ("claude", "/v1/messages/batches", messages((HAIKU, 900), ("claude-haiku-5", 900))),
        ("gemini", "/v1beta/models/gemini-2.5-flash:batchGenerateContent", google(inner="gemini-2.5-flash")),
        ("gemini", "/v1beta/cachedContents", {"model": "models/gemini-2.5-flash", "contents": []}),
        ("openai", "/v1/files", "form"),
        ("openai", "/v1/conversations", {}),
        ("openai", "/v1/moderations", {"input": "x"}),
    ],
)
def test_what_is_within_the_limits_goes_up(tmp_path: Path, provider: str, path: str, body: Any) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account(f"{provider}:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna = await limited(stack, tokens_day=20_000, **HAIKU_ONLY)
            await send(stack, anna, "POST", path, form() if body == "form" else body)
            assert len(stack.fakes.calls) == 1

    run(test)


@pytest.mark.parametrize(
    ("limits", "content", "status"),
    [
        ({}, lines(("gpt-6", 9)), 200),
        (HAIKU_ONLY, lines(("gpt-6-mini", 9), ("gpt-6-mini", 9)), 200),
        (HAIKU_ONLY, lines(("gpt-6-mini", 9), ("gpt-6", 9)), 403),
        ({"tokens_day": 20_000}, lines(*[("gpt-6-mini", 1_000)] * 30), 429),
    ],
)
def test_a_batch_in_a_file_is_read_when_it_is_uploaded(
    tmp_path: Path, limits: dict[str, Any], content: bytes, status: int
) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna = await limited(stack, **limits)
            uploaded, made = await send(stack, anna, "POST", "/v1/files", batch_file(content))
            assert uploaded == 200
            before = len(stack.fakes.calls)
            batch = {"input_file_id": ident_of(made), "endpoint": "/v1/responses", "completion_window": "24h"}
            told, answer = await send(stack, anna, "POST", "/v1/batches", batch)
            assert (told, len(stack.fakes.calls) - before) == (status, status == 200), answer

    run(test)


def test_a_file_that_was_not_read_is_no_batch(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a"), key_account("gemini:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna = await stack.key("anna")
            _, other = await send(stack, anna, "POST", "/v1/files", batch_file(lines(("gpt-6", 9)), "user_data"))
            _, upload = await send(stack, anna, "POST", "/v1/uploads", {"purpose": "batch", "bytes": 9})
            path = f"/v1/uploads/{upload['id']}/complete"
            _, whole = await send(stack, anna, "POST", path, {"part_ids": []})
            before = len(stack.fakes.calls)
            for ident in (other["id"], whole["file"]["id"]):
                status, answer = await send(stack, anna, "POST", "/v1/batches", {"input_file_id": ident})
                assert status == 400 and "purpose=batch" in answer["error"]["message"]
            _, made = await send(stack, anna, "POST", "/upload/v1beta/files", b"{}")
            body = {"batch": {"inputConfig": {"fileName": made["file"]["name"]}}}
            path = "/v1beta/models/gemini-2.5-flash:batchGenerateContent"
            status, answer = await send(stack, anna, "POST", path, body)
            assert status == 400 and len(stack.fakes.calls) == before + 1

    run(test)


def test_the_lines_of_a_batch_name_no_foreign_object(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna, bert = await stack.key("anna"), await stack.key("bert")
            ident = ident_of((await send(stack, anna, "POST", "/v1/files", form()))[1])
            line = {"custom_id": "a", "body": {"model": "gpt-6", "input": [{"content": [{"file_id": ident}]}]}}
            content = lines(("gpt-6", 9)) + json.dumps(line).encode()
            before = len(stack.fakes.calls)
            assert (await send(stack, bert, "POST", "/v1/files", batch_file(content)))[0] == 404
            assert len(stack.fakes.calls) == before
            assert (await send(stack, anna, "POST", "/v1/files", batch_file(content)))[0] == 200

    run(test)


@pytest.mark.parametrize("content", [b"no json\n", b"[1]\n", b'{"body":7}\n', b'{"body":{"model":"m"}}\n{', b""])
def test_a_file_that_cannot_be_read_as_a_batch_is_none(tmp_path: Path, content: bytes) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            stack.fakes.keeper = Keeper()
            anna = await stack.key("anna")
            status, made = await send(stack, anna, "POST", "/v1/files", batch_file(content))
            assert status == 200
            before = len(stack.fakes.calls)
            status, _ = await send(stack, anna, "POST", "/v1/batches", {"input_file_id": made["id"]})
            assert (status, len(stack.fakes.calls)) == (400, before)

    run(test)


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/v1/images/edits", {"model": "gpt-6-mini", "prompt": "x"}, 200),
        ("/v1/images/edits", {"model": "gpt-image-2", "prompt": "x"}, 403),
        ("/v1/images/edits", {"prompt": "x"}, 403),
        ("/v1/audio/transcriptions", {"model": "whisper-2"}, 403),
        ("/v1/videos", {"model": "sora-2", "prompt": "x"}, 403),
    ],
)
def test_a_forms_model_counts_and_leads_to_its_vendor(
    tmp_path: Path, path: str, fields: dict[str, str], status: int
) -> None:
    async def test() -> None:
        accounts = [key_account("qwen:a", priority=1), key_account("openai:a", priority=200)]
        async with Stack(tmp_path, accounts, **FRIENDS) as stack:
            anna = await limited(stack, **HAIKU_ONLY)
            told, _ = await send(stack, anna, "POST", path, form(**fields))
            assert [call.account for call in stack.fakes.calls] == (["openai:a"] if status == 200 else [])
            assert told == (404 if status == 200 else status)  # the fake provider has no such call
            assert msgspec.convert(HAIKU_ONLY, Limits).models

    run(test)


def test_a_form_with_two_models_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with Stack(tmp_path, [key_account("openai:a")], **FRIENDS) as stack:
            anna = await limited(stack, **HAIKU_ONLY)
            two = form(model="gpt-6-mini", prompt="x")
            two.add_field("model", "gpt-image-2")
            assert (await send(stack, anna, "POST", "/v1/images/edits", two))[0] == 400
            assert not stack.fakes.calls

    run(test)
