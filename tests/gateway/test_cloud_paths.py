"""Clients in a mode for Vertex AI or Bedrock are told so: their calls are no administration of anybody's account."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pool_server.core.enums import Dialect
from pool_server.gateway.routes.matching import match
from tests.fakes import key_account
from tests.gateway.stack import Stack, run

CALLS = [
    (
        "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-x:streamRawPredict",
        Dialect.MESSAGES,
    ),
    ("/projects/p/locations/global/publishers/anthropic/models/claude-sonnet-5-5:rawPredict", Dialect.MESSAGES),
    ("/v1beta1/projects/p/locations/l/publishers/google/models/gemini-3.8-flash:generateContent", Dialect.GEMINI),
    ("/v1/publishers/google/models/gemini-3.8-flash:streamGenerateContent", Dialect.GEMINI),
    ("/model/us.anthropic.claude-sonnet-5-5/invoke-with-response-stream", Dialect.MESSAGES),
    ("/model/us.anthropic.claude-sonnet-5-5/converse", Dialect.MESSAGES),
]


def test_a_cloud_s_call_is_told_what_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with Stack(tmp_path, [key_account("claude:a")]) as stack:
            for path, dialect in CALLS:
                status, raw = await stack.post(path, {})
                told = json.loads(raw)
                assert status == 404 and "Vertex AI's or Bedrock's" in told["error"]["message"], path
                assert ("status" in told["error"]) is (dialect is Dialect.GEMINI)
            assert stack.fakes.calls == []

    run(main)


@pytest.mark.parametrize(
    "path",
    ["/v1/projects/p", "/v1/projects", "/v1/projects/p/locations/l", "/v1beta1/projects/p/locations/l/endpoints"],
)
def test_what_acts_on_an_account_stays_refused(path: str) -> None:
    route = match("POST", path, {})
    assert route is not None and route.refused


@pytest.mark.parametrize("path", ["/model", "/model/x", "/model/x/edit", "/publishers"])
def test_a_page_s_path_stays_one(path: str) -> None:
    assert match("POST", path, {}) is None
