"""What a vendor's own books say an organisation used on a day, and spent. No I/O: requests are described, not made.

Sources: platform.claude.com, Admin API, "Get Messages Usage Report" and "Get Cost Report" (amounts are decimal texts in
cents); OpenAI's API reference, "Usage: completions" and "Costs" (amounts are dollars). All are asked with an admin key
of the organisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from pool_server.core.enums import Provider
from pool_server.core.lenient_json import read_any
from pool_server.core.models import HttpRequest, Usage
from pool_server.core.origins import origins
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy
from pool_server.providers.times import moment, number, rfc3339

DAY_S = 86_400
_MOST = 1 << 53
_CURRENCY = re.compile(r"[A-Z]{3}")


class SpendReport(NamedTuple):
    """One page of what was spent: (UTC day in unix seconds, dollars), and in words what of it could not be taken in.
    `next_page` "" = the last page."""

    days: tuple[tuple[int, float], ...]
    gaps: tuple[LazyText, ...]
    next_page: str


class VendorSpend(NamedTuple):
    """Dollars by a vendor's own books. With `gaps`, each a clause in words, they are a part of what was spent."""

    usd: float
    gaps: tuple[LazyText, ...]


class UsageReport(NamedTuple):
    """One page of sums and the UTC days (unix seconds) they are of; `requests` None = not told; `next_page` "" = the
    last page."""

    usage: Usage
    requests: int | None
    days: frozenset[int]
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
        raise ValueError(lazy("{provider} has no report of what was spent", provider=provider.value))
    query += [("page", page)] if page else []
    return HttpRequest("GET", f"{base}{path}?{urlencode(query)}", headers, egress=origins(base))


def read_spend(provider: Provider, body: bytes) -> SpendReport:
    """A page of the report. Raises ValueError, in one line, for what is none."""
    days: list[tuple[int, float]] = []
    gaps: list[LazyText] = []
    try:
        told: Any = read_any(body)
        for bucket in told["data"]:
            day, amounts = _day(bucket), [_dollars(provider, result) for result in bucket["results"]]
            gaps += [amount for amount in amounts if isinstance(amount, LazyText)]
            if day is None:
                gaps.append(lazy("a day in it cannot be read"))
            else:
                days.append((day, sum(amount for amount in amounts if not isinstance(amount, LazyText))))
        page = _next_page(told)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(lazy("the vendor's answer is no report of what was spent")) from None
    if page is None:
        gaps.append(lazy("it goes on, and does not say where"))
    return SpendReport(tuple(days), tuple(gaps), page or "")


def add_up(pages: Sequence[SpendReport], frm: int, to: int) -> VendorSpend:
    """The pages of a report of the UTC days from `frm` to `to` together; of the last one `next_page` was not read."""
    usd, seen = 0.0, list[int]()
    gaps = [gap for page in pages for gap in page.gaps]
    for day, amount in (one for page in pages for one in page.days):
        seen.append(day)
        usd += amount if frm <= day < to else 0.0
    asked = set(range(frm, to, DAY_S))
    missing = len(asked - set(seen))
    if missing:
        gaps.append(
            lazy("1 of {all} days is not in it", all=len(asked))
            if missing == 1
            else lazy("{missing} of {all} days are not in it", missing=missing, all=len(asked))
        )
    if len(seen) != len(set(seen)):
        gaps.append(lazy("a day stands in it more than once"))
    if not pages or pages[-1].next_page:
        gaps.append(lazy("it has more pages than were read"))
    return VendorSpend(usd, tuple({str(gap): gap for gap in gaps}.values()))


def read_report(provider: Provider, body: bytes) -> UsageReport:
    """A page of the report. Raises ValueError, in one line, for what is none, and for one with a figure, a day or a
    further page that cannot be read."""
    try:
        told: Any = read_any(body)
        days = [_day(bucket) for bucket in told["data"]]
        usage, requests = _summed(provider, (result for bucket in told["data"] for result in bucket["results"]))
        page = _next_page(told)
    except (KeyError, TypeError, AttributeError):
        raise ValueError("the vendor's answer is no report of use") from None
    known = frozenset(day for day in days if day is not None)
    if page is None or len(known) != len(days):
        raise ValueError("the vendor's report of use cannot be read whole")
    return UsageReport(usage, requests, known, page)


def _summed(provider: Provider, results: Iterable[dict[str, Any]]) -> tuple[Usage, int | None]:
    total, requests = Usage(known=True), None
    for result in results:
        usage = _claude(result) if provider is Provider.CLAUDE else _openai(result)
        for name in ("input", "cache_read", "cache_write", "cache_write_1h", "output", "web_searches"):
            setattr(total, name, getattr(total, name) + getattr(usage, name))
        if "num_model_requests" in result:
            requests = (requests or 0) + _count(result, "num_model_requests")
    return total, requests


def _day(bucket: dict[str, Any]) -> int | None:
    """The UTC day (unix seconds) a bucket is of."""
    begins = moment(bucket.get("starting_at", bucket.get("start_time")))
    return int(begins) if begins is not None and begins % DAY_S == 0 else None


def _next_page(told: dict[str, Any]) -> str | None:
    """Where the report goes on, "" for its last page, None where it goes on and nobody can tell where."""
    page = told.get("next_page")
    if isinstance(page, str) and page:
        return page
    return None if told.get("has_more") or page else ""


def _dollars(provider: Provider, result: dict[str, Any]) -> float | LazyText:
    """An amount, or why it is not known. Claude tells cents."""
    amount, currency, unit = result.get("amount"), result.get("currency"), 100
    if provider is not Provider.CLAUDE:
        told = amount if isinstance(amount, dict) else {}
        amount, currency, unit = told.get("value"), told.get("currency"), 1
    name, value = str(currency).upper(), number(amount)
    if name != "USD":
        known = _CURRENCY.fullmatch(name) is not None
        return lazy("an amount is in {currency}", currency=name) if known else lazy("an amount names no currency")
    return lazy("an amount cannot be read") if value is None else value / unit


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
    """A figure, 0 where it is not told. Raises ValueError for one that cannot be read."""
    value = result.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError("a figure in the vendor's report of use cannot be read")
    return value
