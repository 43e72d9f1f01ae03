"""Several accounts at once: ticked on a page without scripts, or named by a program."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.web.pool import ADMIN
from tests.web.site import Answer, Site
from tests.web.test_forms import Browser

PAGE = "/admin/several-accounts"
BOTH = ("claude:work", "openai:spare")
BOSS: dict[str, Any] = {"Authorization": f"Bearer {ADMIN}"}


@pytest.fixture
def boss(friends: Site) -> Browser:
    return Browser(friends, ("/admin", {"password": ADMIN}))


def tick(boss: Browser, action: str, *accounts: str, page: str = PAGE, **more: str) -> Answer:
    return boss.send(page, PAGE, action=action, **{f"accounts__{one}": "1" for one in accounts}, **more)


def states(site: Site) -> dict[str, str]:
    return {row["id"]: row["state"] for row in site.get("/admin/accounts", **BOSS).json()["accounts"]}


def test_ticked_accounts_are_turned_off_and_that_is_undone(friends: Site, boss: Browser) -> None:
    done = tick(boss, "disable", *BOTH)
    assert done.status == 200 and "Turned off: work, spare." in done.text
    assert set(states(friends).values()) == {"disabled"}
    assert done.text.count(" checked>") == 2, "they stay ticked for what comes next"
    back = re.search(r'<button name="action" value="(\w+)">Undo', done.text)
    assert back is not None
    assert "Turned on: work, spare." in tick(boss, back[1], *BOTH).text
    assert set(states(friends).values()) == {"ready"}
    told = [(row["action"], row["target"]) for row in friends.get("/admin/audit", **BOSS).json()["rows"]]
    assert {("account.disable", one) for one in BOTH} <= set(told) >= {("account.enable", one) for one in BOTH}


def test_removing_asks_once_on_a_page_and_can_be_undone(friends: Site, boss: Browser) -> None:
    asked = tick(boss, "remove", "openai:spare")
    assert "Remove this account?" in asked.text
    assert "spare" in asked.text and "work" not in re.sub(r"\s+", " ", asked.text.split('class="picks"')[1])
    assert states(friends).keys() == set(BOTH)
    gone = tick(boss, "remove", "openai:spare", sure="true")
    assert "Removed: spare." in gone.text and states(friends).keys() == {"claude:work"}
    assert "Brought back: spare." in tick(boss, "restore", "openai:spare").text
    assert states(friends).keys() == set(BOTH)


def test_what_cannot_be_done_with_one_is_done_with_the_others(friends: Site) -> None:
    asked = {"action": "disable", "accounts": ["claude:nobody", "openai:spare", "openai:spare"]}
    answer = friends.post(PAGE, asked, **BOSS).json()
    assert answer["done"] == ["openai:spare"]
    assert answer["failed"] == [{"account": "claude:nobody", "message": "there is no account claude:nobody"}]
    assert states(friends) == {"claude:work": "ready", "openai:spare": "disabled"}


@pytest.mark.parametrize(
    "wrong", [{"action": "disable"}, {"action": "sell", "accounts": ["claude:work"]}, {"accounts": ["claude:work"]},
              {"action": "reset", "accounts": [1]}, {"action": "reset", "accounts": [f"c:{n}" for n in range(1001)]}]
)  # fmt: skip
def test_a_wrong_request_changes_nothing(friends: Site, wrong: dict[str, Any]) -> None:
    assert friends.post(PAGE, wrong, **BOSS).status == 400
    assert set(states(friends).values()) == {"ready"}


def test_the_list_leads_here_with_what_is_searched_for(friends: Site, boss: Browser) -> None:
    assert f'href="{PAGE}?q=wor&amp;state=&amp;provider="' in boss.see("/accounts?q=wor")
    page = boss.see(f"{PAGE}?q=wor")
    assert "accounts.claude:work" in page and "accounts.openai:spare" not in page
    assert "No account matches" in boss.see(f"{PAGE}?state=suspended")
    assert friends.get(PAGE, Accept="text/html").status == 303, "the operator's alone"
