"""Use by program, key, project and conversation: on the pages, in the API, for whose eyes."""

from __future__ import annotations

import time

import pytest

from tests.web import usage
from tests.web.pool import exchange
from tests.web.site import Site


@pytest.fixture
def filled(site: Site) -> Site:
    now = time.time()
    usage.keep(
        site,
        [
            exchange(
                "local",
                number,
                at=now - number,
                agent=("Codex 0.169.0", "Claude Code 2.1.332")[number % 2],
                session=f"5e55{number // 3:08x}",
                project="site" if number else "",
            )
            for number in range(6)
        ],
    )
    return site


def test_the_api_tells_use_by_label(filled: Site) -> None:
    for field, expected in (
        ("program", {"Codex 0.169.0": 3, "Claude Code 2.1.332": 3}),
        ("conversation", {"5e5500000000": 3, "5e5500000001": 3}),
        ("project", {"site": 5}),
        ("key", {}),
    ):
        rows = filled.get(f"/api/usage/top?by={field}&range=7d").json()["top"]
        assert {row["name"]: row["requests"] for row in rows} == expected
    chart = filled.get("/api/usage/series?by=program&range=24h&metric=requests").json()
    assert sum(sum(line["values"]) for line in chart["series"]) == 6
    sheet = filled.get("/api/usage/export?what=series&by=program&range=24h").text
    assert "Codex 0.169.0" in sheet.splitlines()[0]


def test_what_is_not_kept_is_told(filled: Site) -> None:
    for query in (
        "top?by=program&model=m",
        "series?by=program&bucket=minute&range=24h",
        "top?by=nothing",
        "series?by=key&bucket=hour&range=24h",
    ):
        answer = filled.get(f"/api/usage/{query}")
        assert answer.status == 400, query
    assert "known by user only, not by model" in filled.get("/api/usage/top?by=program&model=m").text


def test_pages_show_programs_and_conversations(filled: Site) -> None:
    home = filled.get("/").text
    assert "Claude Code 2.1.332" in home and "5e5500000001" in home
    for span in ("24h", "7d", "30d"):
        page = filled.get(f"/analytics?by=program&range={span}")
        assert page.status == 200 and "Codex 0.169.0" in page.text


@pytest.mark.pool(usage.discreet("pool"))
def test_a_friend_sees_projects_and_conversations_of_their_own_alone(site: Site) -> None:
    ada, bob = usage.friend(site, "ada"), usage.friend(site, "bob")
    records = [
        exchange(who.user, number, agent="Codex 0.169.0", session=f"{who.user[-4:]}{number}", project="secret")
        for who in (ada, bob)
        for number in range(2)
    ]
    usage.keep(site, records)
    for field in ("conversation", "project", "key"):
        assert ada.get(f"/api/usage/top?by={field}&user=all").status == 403
        assert ada.get(f"/api/usage/series?by={field}&user=all&bucket=day").status == 403
        assert ada.get(f"/api/usage/export?what=series&by={field}&user=all").status == 403
        assert ada.get(f"/analytics?by={field}&user=all").status == 403
    (row,) = ada.get("/api/usage/top?by=program&user=all").json()["top"]
    assert row["requests"] == 4, "programs name nobody"
    mine = ada.get("/api/usage/top?by=conversation").json()["top"]
    assert {one["key"] for one in mine} == {f"{ada.user[-4:]}{n}" for n in range(2)}
    everyone = usage.admin(site).json("/api/usage/top?by=conversation")["top"]
    assert len(everyone) == 4
