"""Vendors' own reports of a day's use: what is asked, and what an answer means."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pool_server.core.enums import Provider
from pool_server.core.models import Usage
from pool_server.core.settings import Settings
from pool_server.providers.usage_report import read_report, report_request

DAY = 1_795_824_000  # 28 November 2026
KEY = "sk-admin-secret"


def test_what_claude_is_asked() -> None:
    request = report_request(Provider.CLAUDE, KEY, DAY, Settings(), key_id="apikey_1", page="p2")
    address = urlsplit(request.url)
    assert (address.netloc, address.path) == ("api.anthropic.com", "/v1/organizations/usage_report/messages")
    assert parse_qs(address.query) == {
        "starting_at": ["2026-11-28T00:00:00Z"],
        "ending_at": ["2026-11-29T00:00:00Z"],
        "bucket_width": ["1d"],
        "api_key_ids[]": ["apikey_1"],
        "page": ["p2"],
    }
    assert dict(request.headers)["x-api-key"] == KEY and request.egress == {"https://api.anthropic.com"}
    assert KEY not in repr(request)


@pytest.mark.parametrize("provider", [Provider.CODEX, Provider.OPENAI])
def test_what_openai_is_asked(provider: Provider) -> None:
    request = report_request(provider, KEY, DAY, Settings())
    address = urlsplit(request.url)
    assert (address.netloc, address.path) == ("api.openai.com", "/v1/organization/usage/completions")
    assert parse_qs(address.query) == {
        "start_time": [str(DAY)],
        "end_time": [str(DAY + 86_400)],
        "bucket_width": ["1d"],
    }
    assert dict(request.headers)["Authorization"] == f"Bearer {KEY}"


def test_a_provider_without_a_report_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="--input"):
        report_request(Provider.GEMINI, KEY, DAY, Settings())


def page(*results: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"data": [{"start_time": DAY, "results": results}], **more}).encode()


def test_what_reports_mean() -> None:
    claude = {
        "uncached_input_tokens": 100,
        "cache_read_input_tokens": 900,
        "cache_creation": {"ephemeral_1h_input_tokens": 30, "ephemeral_5m_input_tokens": 20},
        "output_tokens": 50,
        "server_tool_use": {"web_search_requests": 2},
        "model": None,
    }
    found = read_report(Provider.CLAUDE, page(claude, claude, has_more=True, next_page="p2"))
    assert found.usage == Usage(200, 1800, 100, 60, output=100, web_searches=4, known=True)
    assert (found.requests, found.next_page) == (None, "p2")
    openai = {"input_tokens": 1000, "input_cached_tokens": 800, "output_tokens": 50, "num_model_requests": 5}
    found = read_report(Provider.OPENAI, page(openai, has_more=False, next_page=None))
    assert found.usage == Usage(200, 800, output=50, known=True) and (found.requests, found.next_page) == (5, "")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"data":7}', b'{"data":[{}]}', b'{"data":[{"results":[7]}]}', b"\xff"]
)
def test_what_is_no_report_is_refused(body: bytes) -> None:
    for provider in (Provider.CLAUDE, Provider.OPENAI):
        with pytest.raises(ValueError, match="no report of use"):
            read_report(provider, body)


@pytest.mark.parametrize(
    "odd", [{"uncached_input_tokens": -5}, {"output_tokens": "7"}, {"cache_read_input_tokens": 1e300},
            {"cache_creation": {"ephemeral_1h_input_tokens": True}}],
)  # fmt: skip
def test_a_figure_that_cannot_be_read_is_not_left_out_of_a_sum(odd: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a figure"):
        read_report(Provider.CLAUDE, page({"output_tokens": 5}, odd))


@pytest.mark.parametrize(
    "told",
    [
        {"data": [], "has_more": True},
        {"data": [{"results": []}]},
        {"data": [{"start_time": 7, "results": []}]},
        {"data": [{"start_time": DAY, "results": []}] * 2},
    ],
)
def test_nor_is_a_day_or_a_page(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="whole"):
        read_report(Provider.OPENAI, json.dumps(told).encode())


def test_the_days_are_told() -> None:
    assert read_report(Provider.OPENAI, page({})).days == {DAY}
    assert read_report(Provider.OPENAI, b'{"data":[]}').days == frozenset()
    claude = {"data": [{"starting_at": "2026-11-28T00:00:00Z", "results": [{"cache_creation": None}]}]}
    assert read_report(Provider.CLAUDE, json.dumps(claude).encode()).days == {DAY}
