"""Limits of one key on the pages and in their API: set by whoever holds it and by the operator, shown with bars."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import pytest

from pool_server.core.models import Usage
from pool_server.core.settings import NightShift
from pool_server.users import Principal, Reservation
from tests.web.pool import ADMIN, CODE
from tests.web.site import Site
from tests.web.test_forms import WORDS, Forms
from tests.web.test_forms import Browser as PlainBrowser
from tests.web.test_friends import Browser, enter


def ada_of(site: Site) -> tuple[Browser, dict[str, Any]]:
    """A signed-in friend and the row of their first key."""
    ada = Browser(site, enter(site))
    return ada, ada.get("/api/me").json()["keys"][0]


def spend(site: Site, key: str, tokens: int) -> None:
    """One whole request with this key."""

    def exchange() -> None:
        who = site.ctx.users.authenticate(key)
        assert isinstance(who, Principal)
        made = site.ctx.users.admission.reserve(who, provider="codex", model="m", tokens=0, cost=None)
        assert isinstance(made, Reservation)
        site.ctx.users.admission.settle(made, Usage(input=tokens), None)

    site.run(exchange)


def test_a_friend_sets_limits_of_a_key_of_their_own_and_sees_them_with_a_bar(friends: Site) -> None:
    entered = enter(friends)
    ada = Browser(friends, entered)
    key, token = ada.get("/api/me").json()["keys"][0], entered.json()["key"]
    assert key["standing"] is None
    changed = ada.send("PATCH", f"/api/keys/{key['id']}", {"limits": {"tokens_day": 1000}, "label": "codex on desk"})
    assert (changed.status, changed.json()["standing"]["limits"]["tokens_day"]) == (200, 1000)
    spend(friends, token, 820)
    page = ada.get(f"/keys/{key['id']}", Accept="text/html").text
    assert "820 of 1,000" in page and "82 % used" in page and 'class="bar warn"' in page
    home = ada.get("/", Accept="text/html").text
    assert "Tokens a day: 82 % used" in home and f'href="/keys/{key["id"]}"' in home
    line = friends.get("/api/statusline", Authorization=f"Bearer {token}").text
    assert "on your key “codex on desk”, your tokens for today 82 % used" in line
    lifted = ada.send("PATCH", f"/api/keys/{key['id']}", {"limits": {}, "expires_in": 60})
    assert lifted.json()["standing"] is None and 0 < lifted.json()["expires"] - friends.ctx.clock() <= 60
    assert ada.send("PATCH", f"/api/keys/{key['id']}", {"expires_in": None}).json()["expires"] is None


def test_a_new_key_may_come_with_limits(friends: Site) -> None:
    ada, _ = ada_of(friends)
    made = ada.send("POST", "/api/keys", {"label": "ci", "expires_in": 3600, "limits": {"cost_day": 0.5}}).json()
    assert set(made) == {"id", "key", "label", "expires"}
    row = ada.get("/api/me").json()["keys"][-1]
    assert row["standing"]["limits"]["cost_day"] == 0.5 and row["expires"] == made["expires"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limits": {"tokens_year": 1}},
        {"limits": {"tokens_day": "many"}},
        {"limits": None},
        {"expires_in": -1},
        {"expires_in": 0},
        {"expires": 1},
        {"expires_in": 1e300},
        {"label": "x" * 65},
        {"user": "u_1"},
        {"limits": {"providers": ["nobody"]}},
        {"wait": "soon"},
        {"wait": 6},
    ],
)
def test_a_change_that_cannot_be_changes_nothing(friends: Site, body: dict[str, Any]) -> None:
    ada, key = ada_of(friends)
    refused = ada.send("PATCH", f"/api/keys/{key['id']}", body)
    assert refused.status == 400 and refused.json()["error"]["message"]
    assert ada.get("/api/me").json()["keys"][0] == key


def test_nobody_elses_key_is_seen_or_changed(friends: Site) -> None:
    _, key = ada_of(friends)
    bo = Browser(friends, enter(friends, "Bo"))
    assert bo.send("PATCH", f"/api/keys/{key['id']}", {"limits": {"tokens_day": 0}}).status == 404
    assert bo.get(f"/keys/{key['id']}", Accept="text/html").status == 404
    assert (
        bo.get(f"/people/{friends.run(partial(friends.ctx.users.people.owner, key['id']))}/keys/{key['id']}").status
        == 403
    )
    assert friends.get(f"/keys/{key['id']}").status == 401


def test_the_operator_sets_limits_of_anybodys_key(friends: Site) -> None:
    _, key = ada_of(friends)
    user = friends.run(partial(friends.ctx.users.people.owner, key["id"]))
    boss = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    place = f"/admin/pool-users/{user}/keys/{key['id']}"
    changed = boss.send("PATCH", place, {"limits": {"models": ["*mini*"]}})
    assert changed.json()["standing"]["limits"]["models"] == ["*mini*"]
    assert boss.get(f"/admin/pool-users/{user}/keys").json()["keys"] == [changed.json()]
    page = boss.get(f"/people/{user}/keys/{key['id']}", Accept="text/html").text
    assert 'value="*mini*"' in page and f'href="/people/{user}"' in page
    assert boss.send("PATCH", f"/admin/pool-users/u_other/keys/{key['id']}", {"limits": {}}).status == 404
    (entry, *_) = boss.get("/admin/audit?action=key.change").json()["rows"]
    assert (entry["target"], entry["detail"]["limits"]) == (key["id"], {"models": ["*mini*"]})


def test_without_scripts_limits_are_set_and_cleared(friends: Site) -> None:
    ada = PlainBrowser(friends, ("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": WORDS}))
    key = friends.get("/api/me", Cookie=ada.cookie).json()["keys"][0]["id"]
    page, place = f"/keys/{key}", f"/api/keys/{key}"

    def row() -> dict[str, Any]:
        found: dict[str, Any] = friends.get("/api/me", Cookie=ada.cookie).json()["keys"][0]
        return found

    kept = ada.send(page, place, "PATCH", limits__tokens_day="500", limits__models="opus, haiku", expires_in="86400")
    assert (kept.status, kept.headers["Location"]) == (303, page)
    limits = row()["standing"]["limits"]
    assert (limits["tokens_day"], limits["models"], limits["cost_day"]) == (500, ["opus", "haiku"], None)
    assert row()["expires"] is not None
    ada.send(page, place, "PATCH", limits__tokens_day="", limits__models="", expires_in="null")
    assert row()["standing"] is None and row()["expires"] is None
    gone = ada.send(page, place, "DELETE")
    assert (gone.status, gone.headers["Location"]) == (303, "/")


def test_without_scripts_all_limits_of_a_person_are_cleared(friends: Site) -> None:
    boss = PlainBrowser(friends, ("/admin", {"password": ADMIN}))
    user = enter(friends).json()["user"]["id"]
    page, place = f"/people/{user}", f"/admin/pool-users/{user}"
    boss.send(page, place, "PATCH", limits__tokens_day="500")
    assert friends.get(place, Cookie=boss.cookie).json()["limits"] == {"tokens_day": 500}
    boss.send(page, place, "PATCH", limits__tokens_day="")
    assert friends.get(place, Cookie=boss.cookie).json()["limits"] == {}


@pytest.mark.slow
def test_a_page_of_many_keys_holds_no_form_of_limits_each(friends: Site) -> None:
    ada, _ = ada_of(friends)
    for number in range(40):
        ada.send("POST", "/api/keys", {"label": f"key {number} " + "long " * 8, "limits": {"tokens_day": 10}})
    home = ada.get("/", Accept="text/html").text
    assert home.count('name="limits.tokens_day"') == 0
    assert len([form for form in Forms(home).found if form[2].get("_method") == "DELETE"]) == 41


def test_a_key_has_its_requests_held_where_the_operator_holds_any(friends: Site) -> None:
    ada = PlainBrowser(friends, ("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": WORDS}))
    key = friends.get("/api/me", Cookie=ada.cookie).json()["keys"][0]["id"]
    page, place = f"/keys/{key}", f"/api/keys/{key}"

    def shown() -> str:
        return str(friends.get(page, Cookie=ada.cookie, Accept="text/html").text)

    assert 'name="wait"' not in shown()
    with_nights = msgspec.structs.replace(friends.ctx.settings, night_shift=NightShift(longest_h=6.0))
    friends.run(lambda: setattr(friends.ctx, "settings", with_nights))
    assert 'value="for=4h"' in shown() and 'value="for=8h"' not in shown()
    ada.send(page, place, "PATCH", wait="until=06:00", label="night")
    assert '<option value="until=06:00" selected>until 06:00' in shown()
    assert friends.get("/api/me", Cookie=ada.cookie).json()["keys"][0]["wait"] == "until=06:00"
    ada.send(page, place, "PATCH", wait="")
    assert friends.get("/api/me", Cookie=ada.cookie).json()["keys"][0]["wait"] == ""
