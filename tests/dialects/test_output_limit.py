"""How many tokens an answer may have, as vendors' refusals name it."""

from __future__ import annotations

import pytest

from pool_server.dialects import output_limit

LASTING = (
    ("max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you …", 16384),
    ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
    ("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 65536]", 65536),
    ("`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than …", 8192),
    ("max_tokens: 64001 > 64000, which is the maximum allowed number of output tokens for claude-x", 64000),
    ("The maximum tokens you requested exceeds the model limit of 8192. Try again with a lower one.", 8192),
    ("… maxOutputTokens value of 100000 but the supported range is from 1 (inclusive) to 65537 (exclusive).", 65536),
)  # fmt: skip
BESIDE = (
    ("This model's maximum context length is 131072 tokens. However, you requested 140000 tokens (100000 in the "
     "messages, 40000 in the completion).", 31072),
    ("This endpoint's maximum context length is 163840 tokens. However, you requested about 170000 tokens (140000 of "
     "text input, 30000 in the output).", 23840),
    ("max_tokens is too large: 32000. This model's maximum context length is 32768 tokens and your request has 5000 "
     "input tokens (32000 > 32768 - 5000).", 27768),
    ("input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000, decrease one", 10000),
)  # fmt: skip
NONE = ("This model's maximum context length is 8192 tokens.", "prompt is too long: 210000 tokens > 200000 maximum", "")


@pytest.mark.parametrize(("said", "tokens"), LASTING + BESIDE)
def test_a_limit_is_read(said: str, tokens: int) -> None:
    assert output_limit(said) == (tokens, (said, tokens) in LASTING)


@pytest.mark.parametrize("said", NONE)
def test_what_names_none_has_none(said: str) -> None:
    assert output_limit(said) is None
