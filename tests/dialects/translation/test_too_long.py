"""A prompt that is longer than the model reads: clients shorten their conversation only when they are told so in their
own dialect's words, whatever the vendor says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pool_server.core.enums import Dialect
from pool_server.dialects.translation.errors import error_body, read_error

TOO_LONG: tuple[tuple[int, dict[str, Any]], ...] = (
    (400, {"message": "Your input exceeds the context window of this model.", "code": "context_length_exceeded"}),
    (400, {"message": "This model's maximum context length is 64000 tokens. However, you requested 64001 tokens."}),
    (400, {"message": "The decoder prompt (length 70000) is longer than the maximum model length of 65536."}),
    (400, {"message": "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it"}),
    (400, {"message": "request does not fit", "type": "exceed_context_size_error", "n_ctx": 8192}),
    (400, {"message": "Your request exceeded model token limit: 262144 (requested: 270000)"}),
    (400, {"message": "total message size 10176584 exceeds limit 2097152"}),
    (400, {"message": "Prompt exceeds max length", "code": "1261"}),
    (400, {"message": "This model's maximum prompt length is 131072 but the request contains 140000 tokens."}),
    (422, {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 8000"}),
    (422, {"message": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000"}),
    (400, {"message": "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]"}),
    (400, {"message": "Total tokens of image and text exceed max message tokens."}),
    (400, {"message": "length of prompt_tokens (140000) must be less than max_seq_len (131072)."}),
    (400, {"message": "prompt token count of 140000 exceeds the limit of 128000"}),
    (400, {"message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048575)."}),
    (400, {"message": "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000"}),
    (400, {"message": "ValidationException: Input is too long for requested model."}),
    (413, {"message": "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 12000"}),
    (
        429,
        {"message": "Request too large for gpt-4o on tokens per min: Limit 30000, Requested 42000", "type": "tokens"},
    ),
)
OTHER: tuple[tuple[int, str], ...] = (
    (400, "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes"),
    (400, "Your image exceeds the maximum allowed size"),
    (400, "max_tokens: 64001 > 64000, which is the maximum allowed number of output tokens"),
    (400, "The requested number of output tokens exceeds the maximum"),
    (400, "max_tokens exceeds the model's maximum"),
    (400, "Range of max_tokens should be [1, 8192]"),
    (400, "A tool's name exceeds the maximum length of 64"),
    (400, "A maximum of 4 blocks with cache_control may be provided. Found 5."),
    (413, "Request Entity Too Large"),
    (429, "Rate limit reached for gpt-4o on tokens per min: Limit 30000, Used 29000, Requested 1200"),
)


@pytest.mark.parametrize(("status", "error"), TOO_LONG)
def test_a_prompt_that_is_too_long_is_told_as_every_dialect_tells_it(status: int, error: dict[str, Any]) -> None:
    told = read_error(status, json.dumps({"error": error}).encode())
    assert told.status == 400
    for client in (Dialect.CHAT, Dialect.RESPONSES):
        assert error_body(client, told)["error"]["code"] == "context_length_exceeded"
    claude = error_body(Dialect.MESSAGES, told)["error"]
    assert claude["type"] == "invalid_request_error" and "prompt is too long" in claude["message"].lower()


@pytest.mark.parametrize(("status", "message"), OTHER)
def test_what_else_is_too_large_is_not_told_as_one(status: int, message: str) -> None:
    told = read_error(status, json.dumps({"error": {"message": message}}).encode())
    assert (told.status, told.code) == (status, "")
    assert error_body(Dialect.MESSAGES, told)["error"]["message"] == message


def test_a_body_of_too_many_bytes_stays_one() -> None:
    told = read_error(413, b'{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}')
    assert (told.status, told.code) == (413, "context_length_exceeded")
