"""Admin keys: companions of an API key that ask the vendor what was spent, and are shown to nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Provider
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings
from pool_server.providers import CredentialRejectedError, provider_module, usage_report
from pool_server.providers.times import rfc3339
from tests.accounts.kit import Pool

DAY = 86_400
CLAUDE = {"api_key": "sk-ant-api03-x", "admin_key": "sk-ant-admin01-companion"}
OPENAI = {"api_key": "sk-proj-x", "admin_key": "sk-admin-companion"}


class Books:
    """A vendor's report in two pages; records what it was asked."""

    def __init__(self, *pages: Any, status: int = 200) -> None:
        self.pages, self.status, self.asked = list(pages), status, list[HttpRequest]()

    async def __call__(self, request: HttpRequest) -> HttpAnswer:
        self.asked.append(request)
        return HttpAnswer(self.status, {}, json.dumps(self.pages.pop(0)).encode() if self.pages else b"")


FROM, TO = 10 * DAY, 17 * DAY


def claude_day(day: int, *cents: Any, **more: Any) -> dict[str, Any]:
    results = [{"amount": one, "currency": "USD"} for one in cents]
    return {"starting_at": rfc3339(day * DAY), "ending_at": rfc3339(day * DAY + DAY), "results": results, **more}


def openai_day(day: int, *usd: Any, **more: Any) -> dict[str, Any]:
    results = [{"amount": {"value": one, "currency": "usd"}} for one in usd]
    return {"start_time": day * DAY, "end_time": day * DAY + DAY, "results": results, **more}


def page(*days: Any, more: str = "") -> dict[str, Any]:
    return {"data": list(days), "has_more": bool(more), "next_page": more or None}


def week(day: Callable[..., dict[str, Any]], frm: int = 10, to: int = 17) -> list[dict[str, Any]]:
    return [day(one) for one in range(frm, to)]


CLAUDE_PAGES = (
    page(claude_day(10, "123.45", "0.05"), claude_day(11), more="p2"),
    page(claude_day(12, "100"), *week(claude_day, 13)),
)
OPENAI_PAGES = (page(openai_day(10, 1.5, 0.25), more="p2"), page(openai_day(11, "2.0"), *week(openai_day, 12)))


def asked(folder: Path, file: str, data: dict[str, str], books: Books) -> usage_report.VendorSpend:
    pool = Pool(folder, {f"{file}.json": data}, line=books)  # type: ignore[arg-type]
    return asyncio.run(pool.accounts.vendor_spend(file.replace("_", ":"), FROM, TO))


@pytest.mark.parametrize(
    ("file", "data", "pages", "usd", "header"),
    [
        ("claude_k", CLAUDE, CLAUDE_PAGES, 2.235, "x-api-key"),
        ("openai_k", OPENAI, OPENAI_PAGES, 3.75, "Authorization"),
        ("codex_k", OPENAI, (page(*week(openai_day)),), 0.0, "Authorization"),
    ],
)
def test_the_vendors_books_are_added_up(
    tmp_path: Path, file: str, data: dict[str, str], pages: tuple[Any, ...], usd: float, header: str
) -> None:
    books = Books(*pages)
    spent = asked(tmp_path, file, data, books)
    assert spent.usd == pytest.approx(usd) and spent.gaps == ()
    assert len(books.asked) == len(pages)
    for request in books.asked:
        shown = dict(request.headers)[header]
        assert shown.removeprefix("Bearer ") == data["admin_key"]
        assert len(request.egress) == 1 and request.method == "GET"
    if len(pages) > 1:
        assert "page=p2" in books.asked[1].url


WHOLE = week(claude_day, 11)
PARTS: list[tuple[str, list[Any], float, str]] = [
    ("a missing day", [page(*WHOLE)], 0.0, "1 of 7 days is not in it"),
    ("no day at all", [page()], 0.0, "7 of 7 days are not in it"),
    ("a day twice", [page(claude_day(10, "100"), claude_day(10, "100"), *WHOLE)], 2.0, "a day stands in it more"),
    ("a day that was not asked for", [page(claude_day(9, "500"), *WHOLE)], 0.0, "1 of 7 days"),
    ("a day that cannot be read", [page({"starting_at": "soon", "results": []}, *WHOLE)], 0.0, "a day in it cannot"),
    (
        "a day that begins at noon",
        [page({"starting_at": 10.5 * DAY, "results": []}, *WHOLE)],
        0.0,
        "a day in it cannot",
    ),
    ("euros", [page(claude_day(10, "100", results=[{"amount": "100", "currency": "EUR"}]), *WHOLE)], 0.0, "in EUR"),
    ("no currency", [page({**claude_day(10), "results": [{"amount": "1"}]}, *WHOLE)], 0.0, "names no currency"),
    ("words", [page(claude_day(10, "100", "a lot"), *WHOLE)], 1.0, "an amount cannot be read"),
    ("no amount", [page(claude_day(10, None, "50"), *WHOLE)], 0.5, "an amount cannot be read"),
    ("no number", [page(claude_day(10, "50", "inf", True), *WHOLE)], 0.5, "an amount cannot be read"),
    ("goes on nowhere", [{**page(claude_day(10), *WHOLE), "has_more": True}], 0.0, "does not say where"),
    ("goes on oddly", [{**page(claude_day(10), *WHOLE), "next_page": 7}], 0.0, "does not say where"),
    ("goes in a circle", [page(claude_day(10), more="p"), page(*WHOLE, more="p")], 0.0, "more pages than were read"),
    ("never ends", [page(more=f"p{n}") for n in range(40)], 0.0, "more pages than were read"),
]


@pytest.mark.parametrize(("pages", "usd", "why"), [one[1:] for one in PARTS], ids=[one[0] for one in PARTS])
def test_a_part_is_never_told_as_the_sum(tmp_path: Path, pages: list[Any], usd: float, why: str) -> None:
    spent = asked(tmp_path, "claude_k", CLAUDE, Books(*pages))
    assert spent.usd == pytest.approx(usd)
    assert any(why in str(gap) for gap in spent.gaps), spent.gaps


@pytest.mark.parametrize("result", [{"amount": 5}, {"amount": {"value": 5}}, {"amount": {"currency": "usd"}}, {}])
def test_nor_is_one_of_openai(tmp_path: Path, result: dict[str, Any]) -> None:
    pages = [page({**openai_day(10), "results": [result]}, *week(openai_day, 11))]
    spent = asked(tmp_path, "openai_k", OPENAI, Books(*pages))
    assert (spent.usd, len(spent.gaps)) == (0.0, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"data":[7]}',
        b'{"data":[{"results":[7]}]}',
        b'{"data":7}',
        b'{"data":' + b"[" * 9999,
    ],
)
def test_what_is_no_report_is_said(body: bytes) -> None:
    for provider in (Provider.CLAUDE, Provider.OPENAI):
        with pytest.raises(ValueError, match=r"report"):
            usage_report.read_spend(provider, body)


def test_a_page_that_fails_makes_it_unknown(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no report"):
        asked(tmp_path, "claude_k", CLAUDE, Books(CLAUDE_PAGES[0]))


def test_a_refusal_and_a_missing_key_are_said(tmp_path: Path) -> None:
    books = Books(status=403)
    files = {"claude_k.json": CLAUDE, "claude_bare.json": {"api_key": "sk-ant-api03-y"}}
    pool = Pool(tmp_path, files, line=books)  # type: ignore[arg-type]
    for account, why in (("claude:k", "answered 403"), ("claude:bare", "no admin key")):
        with pytest.raises(ValueError, match=why) as failed:
            asyncio.run(pool.accounts.vendor_spend(account, 0, DAY))
        assert "companion" not in str(failed.value)


@pytest.mark.parametrize(
    ("provider", "data"),
    [
        (Provider.CLAUDE, {**CLAUDE, "admin_key": "sk-ant-api03-z"}),
        (Provider.OPENAI, {**OPENAI, "admin_key": "sk-proj-z"}),
        (Provider.OPENAI, {**OPENAI, "base_url": "https://models.example.org/v1"}),
        (Provider.QWEN, {"api_key": "sk-q", "admin_key": "sk-admin-x"}),
    ],
)
def test_an_admin_key_in_the_wrong_place_rejects_the_file(provider: Provider, data: dict[str, str]) -> None:
    with pytest.raises(CredentialRejectedError, match="admin_key") as refused:
        provider_module(provider).parse(data, f"{provider.value}:x", now=0)
    assert data["admin_key"] not in str(refused.value)


def test_it_is_never_used_to_ask_a_model_and_never_shown() -> None:
    module = provider_module(Provider.CLAUDE)
    cred = module.parse(CLAUDE, "claude:k", now=0)
    asked = module.test_request(cred, Settings())
    assert CLAUDE["admin_key"] not in str(asked.headers) + asked.url + repr(cred)
    assert cred.hide(b"echo " + CLAUDE["admin_key"].encode()) != b"echo " + CLAUDE["admin_key"].encode()
