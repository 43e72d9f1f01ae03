"""Results of batch jobs: counted line by line, whoever's they are, and only where they are results."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_server.core.enums import Dialect, Operation
from pool_server.core.models import Usage
from pool_server.dialects import Meter, identity, makes_batch, meter
from pool_server.dialects.types import BadBodyError
from pool_server.dialects.usage import batch
from pool_server.dialects.wire.batches import google_batch, lines_of, message_batch
from pool_server.ledger.pricing.price_table import shipped


def claude(model: str, **usage: int) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "model": model, "content": [{"type": "text", "text": "\n"}]}
    result = {"type": "succeeded", "message": message | {"usage": usage}}
    return {"custom_id": "a", "result": result}


def openai(model: str, **usage: int) -> dict[str, Any]:
    body = {"id": "chatcmpl-1", "model": model, "choices": [], "usage": usage}
    return {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}


def gemini(model: str, **usage: int) -> dict[str, Any]:
    return {"key": "a", "response": {"candidates": [], "usageMetadata": usage, "modelVersion": model}}


FAILED = {"custom_id": "b", "result": {"type": "errored", "error": {"type": "error"}}}
REFUSED = {"custom_id": "c", "response": {"status_code": 400, "body": {"error": {}}}, "error": None}


def read(body: bytes, dialect: Dialect, cuts: list[int] | None = None) -> Meter:
    reading = meter(dialect, Operation.OTHER, stream=False)
    for start, end in pairwise([0, *sorted(cuts or []), len(body)]):
        reading.feed(body[start:end])
    reading.finish()
    return reading


def lines(*entries: Any) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


CLAUDE = lines(
    claude("claude-haiku-5-5", input_tokens=60_000, output_tokens=1000),
    FAILED,
    claude("claude-haiku-5-5", input_tokens=60_000, output_tokens=1000),
    claude("claude-haiku-5-5", input_tokens=100_001, output_tokens=5),
    claude("claude-opus-5-5", input_tokens=10, output_tokens=5, cache_read_input_tokens=7),
)
CLAUDE_PARTS = [
    Usage(120_000, output=2000, known=True, model="claude-haiku-5-5", calls=2),
    Usage(100_001, output=5, known=True, model="claude-haiku-5-5"),
    Usage(10, 7, output=5, known=True, model="claude-opus-5-5"),
]


@settings(max_examples=40)
@given(st.lists(st.integers(0, len(CLAUDE)), max_size=6), st.sampled_from([CLAUDE, CLAUDE[:-1], b"\n" + CLAUDE]))
def test_results_are_counted_however_they_come(cuts: list[int], body: bytes) -> None:
    reading = read(body, Dialect.MESSAGES, cuts)
    assert reading.complete and reading.served.tier == "batch" and reading.model == ""
    assert reading.usage == Usage(220_011, 7, output=2010, known=True, parts=CLAUDE_PARTS)


def test_results_of_each_vendor() -> None:
    body = lines(openai("gpt-6-sol", prompt_tokens=30, completion_tokens=12), REFUSED)
    found = read(body, Dialect.CHAT)
    assert (found.usage.input, found.usage.output, found.model) == (30, 12, "gpt-6-sol")
    body = lines(gemini("gemini-2.5-pro", promptTokenCount=9, candidatesTokenCount=3, thoughtsTokenCount=2))
    found = read(body, Dialect.GEMINI)
    assert (found.usage.input, found.usage.output, found.usage.reasoning) == (9, 5, 2)
    one = json.dumps(claude("claude-opus-5-5", input_tokens=3, output_tokens=4)).encode()
    assert read(one, Dialect.MESSAGES).usage.total == 7, "a single result without a newline"


@pytest.mark.parametrize("place", ["response", "output"])
def test_results_within_a_gemini_job_count_when_it_is_done(place: str) -> None:
    entries = [gemini("gemini-2.5-pro", promptTokenCount=9, candidatesTokenCount=3), {"error": {"code": 3}}]
    results = {"inlinedResponses": {"inlinedResponses": entries}}
    job: dict[str, Any] = {"name": "batches/1", "done": True}
    job |= {"response": results} if place == "response" else {"metadata": {"output": results}}
    assert read(json.dumps(job).encode(), Dialect.GEMINI).usage.total == 12
    waiting = {"name": "batches/1", "metadata": {"state": "BATCH_STATE_RUNNING"}}
    found = read(json.dumps(waiting).encode(), Dialect.GEMINI)
    assert not found.usage.known and found.response_id == "batches/1" and found.complete


@pytest.mark.parametrize(
    "body",
    [
        lines({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}),
        lines({"key": "a", "request": {"contents": []}}),
        b'{"object":"list","data":[]}\n',
        b"plain words\nand more\n",
        b"\n\n\n",
        b"\xff\xfe\x00",
        b'{"custom_id":"a","result":7}\n',
    ],
)
def test_other_files_are_no_results(body: bytes) -> None:
    for dialect in (Dialect.CHAT, Dialect.MESSAGES, Dialect.GEMINI):
        found = read(body, dialect)
        assert found.usage == Usage() and found.complete and found.served.tier == ""


def test_broken_and_endless_lines_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LINE_CAP", 1000)
    good = lines(claude("claude-opus-5-5", input_tokens=3, output_tokens=4))
    body = good + b"{broken\n" + b"x" * 5000 + b"\n[]\n" + good
    for size in (7, 300, len(body)):
        reading = read(body, Dialect.MESSAGES, list(range(size, len(body), size)))
        assert reading.usage.total == 14


def test_many_models_stay_few_parts() -> None:
    body = lines(*(claude(f"model-{n}", input_tokens=1, output_tokens=1) for n in range(500)))
    usage = read(body, Dialect.MESSAGES).usage
    assert usage.total == 1000 and len(usage.parts) <= 80 and sum(part.calls for part in usage.parts) == 500


def test_every_step_of_a_price_is_a_step_of_the_sums() -> None:
    table = shipped()
    entries = [*table.models.values(), *(entry for host in table.hosts.values() for entry in host.models.values())]
    steps = {tier.above for entry in entries for tier in entry.tiers}
    steps |= {tier["above"] for entry in entries for change in entry.dated for tier in change.get("tiers", ())}
    assert steps <= set(batch.STEPS)


@pytest.mark.parametrize(
    ("method", "path", "response_id", "stored", "found"),
    [
        ("POST", "/v1/responses", "resp_1", True, "resp_1"),
        ("POST", "/v1/responses", "resp_1", False, ""),
        ("GET", "/v1/responses/resp_1", "resp_1", False, "resp_1"),
        ("GET", "/responses/resp_1", "", False, "resp_1"),
        ("GET", "/v1/responses/resp_1/input_items", "", False, ""),
        ("POST", "/v1/responses/resp_1/cancel", "resp_1", False, ""),
        ("GET", "/v1/chat/completions/chatcmpl-1", "chatcmpl-1", False, "chatcmpl-1"),
        ("POST", "/v1/messages/batches", "msgbatch_1", False, "msgbatch_1"),
        ("GET", "/v1/messages/batches/msgbatch_1/results", "", False, "msgbatch_1"),
        ("GET", "/v1/messages/batches/msgbatch_1", "msgbatch_1", False, ""),
        ("POST", "/v1beta/models/m:batchGenerateContent", "batches/1", False, "batches/1"),
        ("GET", "/v1beta/batches/1", "batches/1", False, "batches/1"),
        ("GET", "/v1/files/file-1/content", "", False, "files/file-1"),
        ("GET", "/download/v1beta/files/f1:download", "", False, "files/f1"),
        ("GET", "/v1/models", "", False, ""),
        ("DELETE", "/v1/responses/resp_1", "resp_1", True, ""),
    ],
)
def test_what_a_usage_counts_for(method: str, path: str, response_id: str, stored: bool, found: str) -> None:
    assert identity(method, path, response_id, stored=stored) == found


def test_what_makes_a_batch() -> None:
    assert makes_batch("POST", "/v1/messages/batches") and not makes_batch("GET", "/v1/messages/batches")
    assert makes_batch("POST", "/v1/batches") and not makes_batch("POST", "/v1/batches/batch_1/cancel")
    assert not makes_batch("POST", "/v1/vector_stores/vs_1/file_batches")


def test_what_a_new_batch_is_likely_to_use() -> None:
    """An answer's most tokens bound it, but few answers take thousands."""
    asked = [("a", {"max_tokens": 9}), ("a", {}), ("b", {"max_tokens": 64_000})]
    params = [{"model": model, "messages": [{"role": "user", "content": "x" * 400}], **more} for model, more in asked]
    prompts = [len(json.dumps(each)) // 4 for each in params]
    expected = {"a": (prompts[0] + prompts[1], 9 + 2000), "b": (prompts[2], 2000)}
    most = {"a": prompts[0] + prompts[1] + 9 + 2000, "b": prompts[2] + 64_000}
    inline = json.dumps({"requests": [{"custom_id": "c", "params": each} for each in params]}).encode()
    found = message_batch(inline)
    assert (found.expected, found.models) == (expected, most)
    lines = lines_of(b"\n".join(json.dumps({"custom_id": "c", "body": each}).encode() for each in params))
    assert (lines.expected, lines.models) == (expected, most)
    requests = [{"request": {"generationConfig": {"maxOutputTokens": most}}} for most in (9, 64_000)]
    body = json.dumps({"batch": {"input_config": {"requests": {"requests": requests}}}}).encode()
    assert google_batch("m", body).expected == {"m": (len(body) // 4, 9 + 2000)}


BOUNDS = [
    ({"max_tokens": 500, "n": 4}, 2000),
    ({"max_tokens": 500, "n": 2, "best_of": 8}, 4000),
    ({"max_output_tokens": 1, "max_tokens": 64_000}, 64_000),
    ({"max_completion_tokens": 1, "max_output_tokens": 0, "max_tokens": 9}, 9),
    ({"max_tokens": None, "n": 3}, 6000),
    ({"max_tokens": 500, "n": 0}, 500),
    ({"max_tokens": 5.0, "n": -3}, 5),
    ({"max_tokens": "64000"}, None),
    ({"max_tokens": True}, None),
    ({"max_tokens": 5, "n": "100"}, None),
    ({"max_tokens": [9]}, None),
]


@pytest.mark.parametrize(("told", "most"), BOUNDS, ids=[json.dumps(told) for told, _ in BOUNDS])
def test_the_most_a_request_of_a_batch_may_use(told: dict[str, object], most: int | None) -> None:
    params = {"model": "m", **told}
    inline = json.dumps({"requests": [{"custom_id": "c", "params": params}]}).encode()
    line = json.dumps({"custom_id": "c", "body": params}).encode()
    if most is None:
        with pytest.raises(BadBodyError):
            message_batch(inline)
        assert lines_of(line).models == {}, "no batch can be made of it"
        return
    expected = {"m": len(json.dumps(params)) // 4 + most}
    assert message_batch(inline).models == lines_of(line).models == expected


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"maxOutputTokens": 100, "candidateCount": 8}, 800),
        ({"max_output_tokens": 9, "maxOutputTokens": 7000, "candidate_count": 2}, 14_000),
        ({"candidateCount": 3}, 6000),
        (None, 2000),
        ({"maxOutputTokens": "64000"}, None),
    ],
)
def test_the_most_a_request_of_a_gemini_batch_may_use(config: object, most: int | None) -> None:
    rows = [{"request": {"contents": [], "generationConfig": config}}]
    body = json.dumps({"batch": {"input_config": {"requests": {"requests": rows}}}}).encode()
    if most is None:
        with pytest.raises(BadBodyError):
            google_batch("m", body)
        return
    assert google_batch("m", body).models["m"] == len(body) // 4 + most


@pytest.mark.parametrize("told", [{"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}, None])
@pytest.mark.parametrize("state", ["validating", "in_progress", "completed", "failed"])
def test_a_batch_tells_the_sum_of_its_results_which_does_not_count(state: str, told: object) -> None:
    found = meter(Dialect.RESPONSES, Operation.BATCHES, stream=False)
    found.feed(json.dumps({"id": "batch_1", "object": "batch", "status": state, "usage": told}).encode())
    found.finish()
    assert (found.usage, found.response_id) == (Usage(), "batch_1")
