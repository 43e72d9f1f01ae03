"""Long lists: searched, filtered, sorted and cut in the query, and small however long they are."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.describe import AccountRow
from pool_server.users.models import SERVER
from pool_server.web.base.listing import PER_PAGE, matches, natural, page_of
from tests.web.pool import ADMIN, friends_settings, open_context
from tests.web.site import LiveSite, Site

ROWS = [{"id": f"u{n}", "name": f"Friend {n:03}", "note": "night owl" if n % 7 == 0 else ""} for n in range(120)]


def cut(rows: list[dict[str, Any]], **chosen: str) -> Any:
    asked = {"q": "", "page": "", **chosen}
    return page_of(
        rows,
        asked,
        path="/people",
        keep=lambda row: matches((row["name"], row["note"]), asked["q"]),
        key=lambda r: r["name"],
    )


@given(st.integers(0, 200), st.text(max_size=8))
def test_every_row_is_on_one_page_whatever_page_is_asked_for(count: int, page: str) -> None:
    rows = [{"name": f"{n:03}", "note": ""} for n in range(count)]
    found = cut(rows, page=page)
    assert len(found.rows) <= PER_PAGE
    assert bool(found.rows) == bool(count)
    seen, number = [], 1
    while True:
        part = cut(rows, page=str(number))
        seen += part.rows
        if not part.later:
            break
        number += 1
    assert seen == rows


def test_words_are_searched_in_every_field_and_kept_in_the_links() -> None:
    found = cut(ROWS, q="OWL friend")
    assert found.found == len([row for row in ROWS if row["note"]])
    assert cut(ROWS, q="friend").later == "/people?q=friend&page=2"
    assert not cut(ROWS, q="nobody").rows


def test_names_are_sorted_as_people_sort_them() -> None:
    names = ["acct-10", "Acct-9", "acct", "10", "acct-9b", "9", "²", "acct-٣"]
    assert sorted(names, key=natural) == ["9", "10", "acct", "Acct-9", "acct-9b", "acct-10", "acct-٣", "²"]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """200 accounts and 500 people."""
    folder: Path = tmp_path_factory.mktemp("crowd")
    (folder / "pool").mkdir()
    for number in range(200):
        path = folder / "pool" / f"openai_key-{number:03}.json"
        path.write_text(json.dumps({"api_key": f"sk-FAKE-{number}", "base_url": "http://127.0.0.1:9/v1"}))
        path.chmod(0o600)
    with LiveSite(lambda: open_context(folder, friends_settings())) as site:
        for number in range(500):
            site.run(partial(site.ctx.users.people.create_user, f"Friend {number:03}", actor=SERVER))
        yield site, site.post("/admin", {"password": ADMIN}).cookies()["pool_session"]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/accounts", "/people"])
def test_a_crowd_is_a_small_page(crowded: tuple[Site, str], path: str) -> None:
    site, session = crowded
    page = site.get(path, Accept="text/html", Cookie=f"pool_session={session}")
    assert page.status == 200
    assert len(page.body) <= 100_000
    assert "Next</a>" in page.text
    assert page.text.index('id="add"') < page.text.index("key-000" if path == "/accounts" else "Friend 0")


def test_lists_are_searched_filtered_and_sorted_by_the_address(crowded: tuple[Site, str]) -> None:
    site, session = crowded

    def named(path: str) -> list[tuple[str, str]]:
        page = site.get(path, Accept="text/html", Cookie=f"pool_session={session}").text
        return re.findall(r'id="account-([^"]+)"|<a href="/people/u_\w+">([^<]+)</a>', page)

    assert [one for one, _ in named("/accounts?q=key-042")] == ["openai:key-042"]
    assert [one for one, _ in named("/accounts?provider=claude")] == ["claude:work"]
    assert named("/accounts?state=needs_login") == []
    assert [name for _, name in named("/people?q=friend+499")] == ["Friend 499"]
    assert next(name for _, name in named("/people?sort=name&page=2")) == "Friend 050"
    assert named("/people?state=disabled") == []


def test_a_row_of_many_is_opened_by_its_address(crowded: tuple[Site, str]) -> None:
    site, session = crowded
    page = site.get("/accounts?id=openai%3Akey-007", Accept="text/html", Cookie=f"pool_session={session}").text
    assert page.count('class="item"') == 1
    assert "/admin/accounts/openai:key-007/test" in page


@pytest.mark.parametrize("path", ["/accounts", "/accounts?q=key-1", "/accounts?id=openai:key-007", "/analytics", "/"])
def test_a_page_describes_the_accounts_it_shows_and_no_others(
    crowded: tuple[LiveSite, str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """So that it takes the same time in a pool of ten thousand."""
    site, session = crowded
    described, some = list[str](), site.ctx.accounts.describe_some

    def counted(ids: list[str]) -> list[AccountRow]:
        described.extend(ids)
        return some(ids)

    monkeypatch.setattr(site.ctx.accounts, "describe_some", counted)
    monkeypatch.setattr(site.ctx.accounts, "describe_all", None)
    page = site.get(path, Accept="text/html", Cookie=f"pool_session={session}")
    assert page.status == 200
    assert len(described) <= PER_PAGE
    shown = set(re.findall(r"key-[0-9]{3}", page.text.split('<section id="removed"')[0]))
    assert {one.partition(":")[2] for one in described} >= shown


def test_an_owner_is_searched_by_name_also_where_the_file_has_an_id(crowded: tuple[LiveSite, str]) -> None:
    site, session = crowded
    friend = site.run(partial(site.ctx.users.people.create_user, "Zoë Zuckermann", actor=SERVER))

    async def give() -> None:
        await site.ctx.accounts.change("openai:key-123", {"owner": friend["id"]})

    site.run(give)
    page = site.get("/accounts?q=zuckermann", Accept="text/html", Cookie=f"pool_session={session}")
    assert re.findall(r'id="account-([^"]+)"', page.text) == ["openai:key-123"]


@pytest.mark.parametrize("limit", [1, 7, 100, 201, 20_000])
def test_the_pages_of_the_api_are_the_whole_list(crowded: tuple[LiveSite, str], limit: int) -> None:
    site, session = crowded

    def ask(address: str) -> dict[str, Any]:
        answer = site.get(address, Accept="application/json", Cookie=f"pool_session={session}")
        assert answer.status == 200
        found: dict[str, Any] = answer.json()
        return found

    whole = [row["id"] for row in ask("/admin/accounts")["accounts"]]
    assert len(whole) > 200 and whole == sorted(whole)
    seen, pages = list[str](), 0
    cursor: str | None = ""
    while cursor is not None and pages < 3:
        page = ask(f"/admin/accounts?limit={limit}&cursor={cursor}")
        assert len(page["accounts"]) <= limit
        seen += [row["id"] for row in page["accounts"]]
        cursor, pages = page.get("next"), pages + 1
    assert seen == whole[: limit * pages]
