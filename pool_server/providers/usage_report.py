"""What a vendor's own books say an organisation used on a day, and spent. No I/O: requests are described, not made.

Sources: platform.claude.com, Admin API, "Get Messages Usage Report" and "Get Cost Report" (amounts are decimal texts in
cents); OpenAI's API reference, "Usage: completions" and "Costs" (amounts are dollars). All are asked with an admin key
of the organisation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from pool_server.core.enums import Provider
from pool_server.core.models import HttpRequest, Usage
from pool_server.core.origins import origins
from pool_server.core.settings import Settings
from pool_server.providers.times import rfc3339

DAY_S = 86_400
_MOST = 1 << 53


class SpendReport(NamedTuple):
    """One page of what was spent, in dollars; `next_page` "" = the last page."""

    usd: float
    next_page: str


class UsageReport(NamedTuple):
    """One page of a day's sums; `requests` None = not told; `next_page` "" = the last page."""

    usage: Usage
    requests: int | None
    next_page: str


def report_request(
    provider: Provider, admin_key: str, day: int, settings: Settings, *, key_id: str = "", page: str = ""
) -> HttpRequest:
    """Asks for the UTC day that begins at `day` (unix seconds), of one API key where `key_id` names it.

    Raises ValueError for a provider without such a report.
    """
    query: list[tuple[str, str]]
    if provider is Provider.CLAUDE:
        base, path = settings.upstreams.claude, "/v1/organizations/usage_report/messages"
        query = [("starting_at", rfc3339(day)), ("ending_at", rfc3339(day + DAY_S)), ("bucket_width", "1d")]
        query += [("api_key_ids[]", key_id)] if key_id else []
        headers: tuple[tuple[str, str], ...] = (("x-api-key", admin_key), ("anthropic-version", "2023-06-01"))
    elif provider in (Provider.CODEX, Provider.OPENAI):
        base, path = settings.upstreams.openai, "/v1/organization/usage/completions"
        query = [("start_time", str(day)), ("end_time", str(day + DAY_S)), ("bucket_width", "1d")]
        query += [("api_key_ids", key_id)] if key_id else []
        headers = (("Authorization", f"Bearer {admin_key}"),)
    else:
        raise ValueError(f"{provider.value} has no report of use: give its figures with --input, --output …")
    query += [("page", page)] if page else []
    return HttpRequest("GET", f"{base}{path}?{urlencode(query)}", headers, egress=origins(base))


def spend_request(provider: Provider, admin_key: str, frm: int, to: int, settings: Settings, page: str) -> HttpRequest:
    """Asks what was spent on the UTC days from `frm` to `to` (unix seconds at midnights). Raises ValueError for a
    provider without such a report."""
    if provider is Provider.CLAUDE:
        base, path = settings.upstreams.claude, "/v1/organizations/cost_report"
        query = [("starting_at", rfc3339(frm)), ("ending_at", rfc3339(to)), ("bucket_width", "1d"), ("limit", "31")]
        headers: tuple[tuple[str, str], ...] = (("x-api-key", admin_key), ("anthropic-version", "2023-06-01"))
    elif provider in (Provider.CODEX, Provider.OPENAI):
        base, path = settings.upstreams.openai, "/v1/organization/costs"
        query = [("start_time", str(frm)), ("end_time", str(to)), ("bucket_width", "1d"), ("limit", "31")]
        headers = (("Authorization", f"Bearer {admin_key}"),)
    else:
        raise ValueError(f"{provider.value} has no report of what was spent")
    query += [("page", page)] if page else []
    return HttpRequest("GET", f"{base}{path}?{urlencode(query)}", headers, egress=origins(base))


def read_spend(provider: Provider, body: bytes) -> SpendReport:
    """A page of the report. Raises ValueError, in one line, for what is none, and for what is not in dollars."""
    try:
        told = msgspec.json.decode(body)
        results = [result for bucket in told["data"] for result in bucket["results"]]
        amounts = [result["amount"] for result in results]
        if provider is Provider.CLAUDE:
            currencies = {str(result.get("currency", "USD")).upper() for result in results}
            usd = sum(float(amount) for amount in amounts) / 100
        else:
            currencies = {str(amount.get("currency", "usd")).upper() for amount in amounts}
            usd = sum(float(amount["value"]) for amount in amounts)
        more = told.get("next_page") if told.get("has_more") else ""
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("the vendor's answer is no report of what was spent") from None
    if currencies - {"USD"} or not math.isfinite(usd):
        raise ValueError("the vendor's report is not in US dollars")
    return SpendReport(usd, more if isinstance(more, str) else "")


def read_report(provider: Provider, body: bytes) -> UsageReport:
    """A page of the report. Raises ValueError, in one line, for what is none."""
    try:
        told = msgspec.json.decode(body)
        results = [result for bucket in told["data"] for result in bucket["results"]]
        total, requests = Usage(known=True), None
        for result in results:
            usage = _claude(result) if provider is Provider.CLAUDE else _openai(result)
            for name in ("input", "cache_read", "cache_write", "cache_write_1h", "output", "web_searches"):
                setattr(total, name, getattr(total, name) + getattr(usage, name))
            if "num_model_requests" in result:
                requests = (requests or 0) + _count(result, "num_model_requests")
        more = told.get("next_page") if told.get("has_more") else ""
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError("the vendor's answer is no report of use") from None
    return UsageReport(total, requests, more if isinstance(more, str) else "")


def _claude(result: dict[str, Any]) -> Usage:
    made = result.get("cache_creation") or {}
    hour = _count(made, "ephemeral_1h_input_tokens") or _count(result, "cache_creation_1h_input_tokens")
    minutes = _count(made, "ephemeral_5m_input_tokens") or _count(result, "cache_creation_5m_input_tokens")
    return Usage(
        input=_count(result, "uncached_input_tokens"),
        cache_read=_count(result, "cache_read_input_tokens"),
        cache_write=minutes + hour,
        cache_write_1h=hour,
        output=_count(result, "output_tokens"),
        web_searches=_count(result.get("server_tool_use") or {}, "web_search_requests"),
    )


def _openai(result: dict[str, Any]) -> Usage:
    """Input includes what was read from and written to caches; writes are told by newer reports only."""
    read = _count(result, "input_cached_tokens")
    write = _count(result, "input_cache_write_tokens")
    prompt = _count(result, "input_tokens")
    return Usage(
        input=max(0, prompt - read - write), cache_read=read, cache_write=write, output=_count(result, "output_tokens")
    )


def _count(result: dict[str, Any], name: str) -> int:
    value = result.get(name)
    return value if type(value) is int and 0 <= value <= _MOST else 0
