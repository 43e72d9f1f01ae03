"""Stored responses and batches: their usage counts once, when it is fetched, whoever asks how often."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import ApiFamily, ObjectKind
from pool_server.core.models import Usage, UsageRecord
from pool_server.core.settings import Upstreams
from tests.gateway.stack import Stack, run
from tests.gateway.test_objects import send
from tests.gateway.test_spending import batch_file, google, lines
from tests.http1.wire import Talk, raw_server, read_request

USAGE = {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200}


class Vendor:
    """Answers each (method, path) with what `answers` says for it; a list is used up one by one, the last stays."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            method, path = head.split(b" ", 2)[:2]
            found = self.answers[method.decode(), path.decode().partition("?")[0]]
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )


@contextlib.asynccontextmanager
async def pool(folder: Path, vendor: Talk, file: str) -> AsyncIterator[Stack]:
    """A pool whose one account is asked at a raw server."""
    async with raw_server(vendor) as port:
        (folder / "pool").mkdir()
        (folder / "pool" / file).write_text(json.dumps({"api_key": "sk-raw"}))
        url = f"http://127.0.0.1:{port}"
        async with Stack(folder, [], friend_code="c", upstreams=Upstreams(openai=url, claude=url, gemini=url)) as stack:
            yield stack


async def get(stack: Stack, path: str, token: str) -> int:
    async with stack.client.get(stack.url + path, headers={"Authorization": f"Bearer {token}"}) as answer:
        await answer.read()
        return answer.status


def used(stack: Stack) -> tuple[int, int]:
    """Tokens by the ledger, and by the limits."""
    record = stack.records()[0]
    total = stack.ledger.queries.total(record.at - 10, record.at + 60).describe().total_tokens
    return total, stack.users.limits.of(record.user)["used"]["tokens_day"]


def response(status: str, usage: Any = None) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "model": "gpt-4.1", "output": [], "usage": usage}


ASKED = {"model": "gpt-4.1", "input": "hi"}


def test_a_stored_response_counts_once_however_often_it_is_fetched(tmp_path: Path) -> None:
    vendor = Vendor()
    vendor.answers["POST", "/v1/responses"] = response("completed", USAGE)
    vendor.answers["GET", "/v1/responses/resp_1"] = response("completed", USAGE)

    async def test() -> None:
        async with pool(tmp_path, vendor, "codex_key.json") as stack:
            token = await stack.key()
            status, _ = await stack.post("/v1/responses", ASKED, token=token)
            assert status == 200
            for _ in range(3):
                assert await get(stack, "/v1/responses/resp_1", token) == 200
            assert used(stack) == (1200, 1200)
            assert [record.usage.total for record in stack.records()] == [1200, 0, 0, 0]
            assert all(record.cost is None for record in stack.records()[1:])

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_answers_that_all_have_the_same_id_count_each(tmp_path: Path, path: str) -> None:
    vendor = Vendor()
    vendor.answers["POST", "/v1/responses"] = response("completed", USAGE)
    chat = {"id": "c1", "object": "chat.completion", "model": "gpt-4.1", "choices": [{"index": 0, "message": {}}]}
    vendor.answers["POST", "/v1/chat/completions"] = chat | {"usage": {"prompt_tokens": 1000, "completion_tokens": 200}}
    vendor.answers["GET", "/v1/responses/resp_1"] = response("completed", USAGE)
    vendor.answers["GET", "/v1/chat/completions/c1"] = vendor.answers["POST", "/v1/chat/completions"]
    body = {"model": "gpt-4.1", "store": True, "input": "hi", "messages": [{"role": "user", "content": "hi"}]}
    del body["messages" if path.endswith("responses") else "input"]

    async def test() -> None:
        async with pool(tmp_path, vendor, "codex_key.json") as stack:
            token = await stack.key()
            for _ in range(3):
                assert (await stack.post(path, body, token=token))[0] == 200
            fetched = {"/v1/responses": "/v1/responses/resp_1"}.get(path, "/v1/chat/completions/c1")
            assert await get(stack, fetched, token) == 200
            assert (await stack.post(path, body, token=token))[0] == 200
            assert used(stack) == (4800, 4800)
            assert sorted(record.usage.total for record in stack.records()) == [0, 1200, 1200, 1200, 1200]

    run(test)


def test_a_response_in_the_background_is_reserved_and_then_counted(tmp_path: Path) -> None:
    vendor = Vendor()
    vendor.answers["POST", "/v1/responses"] = response("queued")
    states = [response("in_progress"), response("completed", USAGE)]
    vendor.answers["GET", "/v1/responses/resp_1"] = states

    async def test() -> None:
        async with pool(tmp_path, vendor, "codex_key.json") as stack:
            token = await stack.key()
            await stack.post("/v1/responses", ASKED | {"background": True}, token=token)
            (made,) = stack.records()
            assert made.reserved is not None and made.reserved.estimated and not made.usage.counted
            assert used(stack) == (0, made.reserved.total)
            await get(stack, "/v1/responses/resp_1", token)
            assert used(stack) == (0, made.reserved.total), "nothing is known yet"
            for _ in range(2):
                await get(stack, "/v1/responses/resp_1", token)
            assert used(stack) == (1200, made.reserved.total), "less was used than reserved: nothing more is charged"

    run(test)


def result(output: int) -> dict[str, Any]:
    usage = {"input_tokens": 50_000, "output_tokens": output, "service_tier": "batch"}
    message = {"id": f"msg_{output}", "type": "message", "model": "claude-opus-5-5", "content": [], "usage": usage}
    return {"custom_id": str(output), "result": {"type": "succeeded", "message": message}}


def test_a_batch_is_reserved_when_made_and_counted_when_fetched(tmp_path: Path) -> None:
    vendor = Vendor()
    path = "/v1/messages/batches"
    vendor.answers["POST", path] = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}
    vendor.answers["GET", f"{path}/msgbatch_1"] = vendor.answers["POST", path]
    vendor.answers["GET", f"{path}/msgbatch_1/results"] = b"".join(
        json.dumps(result(output)).encode() + b"\n" for output in (1000, 3000)
    )
    asked = {
        "requests": [{"custom_id": str(n), "params": {"model": "claude-opus-5-5", "max_tokens": 9}} for n in (1, 2)]
    }

    async def test() -> None:
        async with pool(tmp_path, vendor, "claude_key.json") as stack:
            token = await stack.key()
            status, _ = await stack.post(path, asked, token=token, anthropic_version="2023-06-01")
            assert status == 200
            (made,) = stack.records()
            assert made.reserved is not None and made.reserved.output == 2 * 9
            assert used(stack) == (0, made.reserved.total)
            await get(stack, f"{path}/msgbatch_1", token)
            assert used(stack) == (0, made.reserved.total)
            for _ in range(2):
                await get(stack, f"{path}/msgbatch_1/results", token)
            assert used(stack) == (104_000, 104_000), "what was reserved is part of it"
            fetched = stack.records()[2]
            assert (fetched.tier, fetched.model) == ("batch", "claude-opus-5-5")
            assert fetched.cost == pytest.approx((100_000 * 4.0 + 4000 * 20.0) * 0.5 / 1e6)

    run(test)


def test_results_that_break_off_count_when_they_are_fetched_whole(tmp_path: Path) -> None:
    whole = b"".join(json.dumps(result(output)).encode() + b"\n" for output in range(1, 400))
    tries: list[bytes] = [whole[: len(whole) // 2], whole]

    async def vendor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            body = tries.pop(0)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-jsonl\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(whole) + body)
            await writer.drain()
            if body != whole:
                return

    async def test() -> None:
        async with pool(tmp_path, vendor, "claude_key.json") as stack:
            token = await stack.key()
            path = "/v1/messages/batches/msgbatch_1/results"
            made = [(ObjectKind.BATCH, "msgbatch_1")]
            await stack.gateway.owners.keep(stack.user(token), ApiFamily.ANTHROPIC, made, "claude:key")
            with contextlib.suppress(Exception):
                await get(stack, path, token)
            await stack.idle()
            assert [record.usage for record in stack.records()] == [Usage()]
            assert await get(stack, path, token) == 200
            assert used(stack)[0] == 399 * 50_000 + sum(range(1, 400))

    run(test)


BATCH_USAGE = {"input_tokens": 3000, "output_tokens": 700, "total_tokens": 3700}


def openai_batch(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "batch_1", "object": "batch", "status": status, "input_file_id": "file-in", **more}


def openai_result(prompt: int, output: int) -> bytes:
    usage = {"input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output}
    body = {"id": f"resp_{prompt}", "model": "gpt-4.1", "usage": usage}
    line = {"id": "batch_req_1", "custom_id": str(prompt), "response": {"status_code": 200, "body": body}}
    return json.dumps(line).encode() + b"\n"


def openai_batches() -> Vendor:
    """A vendor whose batch is done at the second look; it tells what its results sum up to."""
    vendor = Vendor()
    done = openai_batch("completed", output_file_id="file-out", error_file_id="file-err", usage=BATCH_USAGE)
    vendor.answers["POST", "/v1/files"] = {"id": "file-in", "object": "file", "purpose": "batch"}
    vendor.answers["POST", "/v1/batches"] = openai_batch("validating")
    vendor.answers["GET", "/v1/batches/batch_1"] = [openai_batch("in_progress"), done]
    vendor.answers["GET", "/v1/files/file-out/content"] = openai_result(1000, 300) + openai_result(2000, 400)
    failed = {"custom_id": "c", "response": {"status_code": 400, "body": {"error": {"message": "no"}}}}
    vendor.answers["GET", "/v1/files/file-err/content"] = json.dumps(failed).encode() + b"\n"
    return vendor


async def made_batch(stack: Stack, token: str, most: int) -> UsageRecord:
    """A batch of two requests in an uploaded file."""
    content = lines(("gpt-4.1", most), ("gpt-4.1", most))
    status, _ = await send(stack, token, "POST", "/v1/files", batch_file(content))
    assert status == 200
    body = {"input_file_id": "file-in", "endpoint": "/v1/responses", "completion_window": "24h"}
    status, _ = await stack.post("/v1/batches", body, token=token)
    assert status == 200
    return stack.records()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("most", [9, 4000])
def test_a_batch_in_a_file_is_reserved_when_made_and_counted_when_fetched(tmp_path: Path, most: int) -> None:
    async def test() -> None:
        async with pool(tmp_path, openai_batches(), "codex_key.json") as stack:
            token = await stack.key()
            made = await made_batch(stack, token, most)
            assert made.reserved is not None and made.reserved.estimated and not made.usage.counted
            assert made.reserved.output == 2 * min(most, 2000)
            reserved = made.reserved.total
            assert used(stack) == (0, reserved)
            for _ in range(3):
                await get(stack, "/v1/batches/batch_1", token)
            assert used(stack) == (0, reserved), "what the batch tells is the sum of its results"
            await get(stack, "/v1/files/file-err/content", token)
            for _ in range(3):
                await get(stack, "/v1/files/file-out/content", token)
            assert used(stack) == (3700, max(reserved, 3700)), "what was reserved is part of it"
            (fetched,) = [record for record in stack.records() if record.usage.counted]
            assert (fetched.tier, fetched.model, fetched.job) == ("batch", "gpt-4.1", made.job)
            assert fetched.cost == pytest.approx((3000 * 2.0 + 700 * 8.0) * 0.5 / 1e6)

    run(test)


def test_what_a_batch_is_likely_to_cost_is_reserved(tmp_path: Path) -> None:
    async def test() -> None:
        async with pool(tmp_path, openai_batches(), "codex_key.json") as stack:
            token = await stack.key()
            made = await made_batch(stack, token, 4000)
            assert made.reserved is not None
            used_up = stack.users.limits.of(made.user)["used"]["cost_day"]
            assert used_up == pytest.approx((made.reserved.input * 2.0 + 4000 * 8.0) / 1e6)

    run(test)


def test_results_of_a_batch_that_was_never_looked_at_count_once(tmp_path: Path) -> None:
    """Nothing says whose results the file holds: they count for the file."""

    async def test() -> None:
        async with pool(tmp_path, openai_batches(), "codex_key.json") as stack:
            token = await stack.key()
            made = [(ObjectKind.FILE, "file-out")]
            await stack.gateway.owners.keep(stack.user(token), ApiFamily.OPENAI, made, "codex:key")
            for _ in range(2):
                assert await get(stack, "/v1/files/file-out/content", token) == 200
            assert used(stack) == (3700, 3700)

    run(test)


def test_a_gemini_batch_is_reserved_when_made_and_counted_once_when_done(tmp_path: Path) -> None:
    vendor = Vendor()
    made_at, job_at = "/v1beta/models/gemini-2.5-flash:batchGenerateContent", "/v1beta/batches/b1"
    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 200, "totalTokenCount": 1200}
    results = [{"response": {"candidates": [], "usageMetadata": counts, "modelVersion": "gemini-2.5-flash"}}] * 2
    running = {"name": "batches/b1", "metadata": {"state": "BATCH_STATE_RUNNING"}}
    done = {"name": "batches/b1", "done": True, "response": {"inlinedResponses": {"inlinedResponses": results}}}
    vendor.answers["POST", made_at] = running
    vendor.answers["GET", job_at] = [running, done]

    async def test() -> None:
        async with pool(tmp_path, vendor, "gemini_key.json") as stack:
            token = await stack.key()
            status, _ = await stack.post(made_at, google(most=100, count=2), token=token)
            assert status == 200
            (made,) = stack.records()
            assert made.reserved is not None and made.reserved.output == 2 * 100
            reserved = made.reserved.total
            for _ in range(3):
                await get(stack, job_at, token)
            assert used(stack) == (2400, max(reserved, 2400))
            (fetched,) = [record for record in stack.records() if record.usage.counted]
            assert (fetched.tier, fetched.job) == ("batch", made.job)

    run(test)
