"""Admin keys: companions of an API key that ask the vendor what was spent, and are shown to nobody else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.enums import Provider
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Settings
from pool_server.providers import CredentialRejectedError, provider_module, usage_report
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


def claude_page(*cents: str, more: str = "") -> dict[str, Any]:
    results = [{"amount": one, "currency": "USD"} for one in cents]
    return {"data": [{"results": results}, {"results": []}], "has_more": bool(more), "next_page": more or None}


def openai_page(*usd: float, more: str = "") -> dict[str, Any]:
    results = [{"amount": {"value": one, "currency": "usd"}} for one in usd]
    return {"data": [{"results": results}], "has_more": bool(more), "next_page": more or None}


@pytest.mark.parametrize(
    ("file", "data", "pages", "usd", "header"),
    [
        ("claude_k", CLAUDE, (claude_page("123.45", "0.05", more="p2"), claude_page("100")), 2.235, "x-api-key"),
        ("openai_k", OPENAI, (openai_page(1.5, 0.25, more="p2"), openai_page(2.0)), 3.75, "Authorization"),
        ("codex_k", OPENAI, (openai_page(),), 0.0, "Authorization"),
    ],
)
def test_the_vendors_books_are_added_up(
    tmp_path: Path, file: str, data: dict[str, str], pages: tuple[Any, ...], usd: float, header: str
) -> None:
    books = Books(*pages)
    pool = Pool(tmp_path, {f"{file}.json": data}, line=books)  # type: ignore[arg-type]
    spent = asyncio.run(pool.accounts.vendor_spend(file.replace("_", ":"), 10 * DAY, 17 * DAY))
    assert spent == pytest.approx(usd)
    assert len(books.asked) == len(pages)
    for request in books.asked:
        shown = dict(request.headers)[header]
        assert shown.removeprefix("Bearer ") == data["admin_key"]
        assert len(request.egress) == 1 and request.method == "GET"
    if len(pages) > 1:
        assert "page=p2" in books.asked[1].url


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data":[{"results":[{}]}]}', b'{"data":[{"results":[{"amount":"x"}]}]}', b"\xff",
             b'{"data":[{"results":[{"amount":"1","currency":"EUR"}]}]}', b'{"data":[{"results":[{"amount":"inf"}]}]}'],
)  # fmt: skip
def test_what_is_no_report_is_said(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"report"):
        usage_report.read_spend(Provider.CLAUDE, body)


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
