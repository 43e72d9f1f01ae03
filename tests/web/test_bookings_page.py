"""Bookings on the home pages and by API: made, seen by everybody, ended by their own and by the operator."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pool_server.core.enums import Provider
from pool_server.core.settings import BookingSettings
from tests.web.pool import ADMIN, CODE, friends_settings
from tests.web.site import Site
from tests.web.test_forms import WORDS
from tests.web.test_forms import Browser as PlainBrowser
from tests.web.test_friends import Browser, enter

OFFERED = msgspec.structs.replace(friends_settings(), bookings=BookingSettings(most_percent=40.0))
HOUR = 3600


def left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codex tells how much is left; claude does not."""
    told: dict[str, Any] = {"codex": 60.0}
    monkeypatch.setattr(site.ctx.accounts, "has", lambda provider: provider in (Provider.CODEX, Provider.CLAUDE))
    monkeypatch.setattr(site.ctx.accounts, "glance", lambda provider: (told.get(provider.value), []))


@pytest.mark.pool(OFFERED)
def test_a_friend_books_and_everybody_sees_it(friends: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    left(friends, monkeypatch)
    ada, bo = Browser(friends, enter(friends)), Browser(friends, enter(friends, "Bo"))
    made = ada.send("POST", "/api/bookings", {"provider": "codex", "percent": 30, "hours": 2})
    row = made.json()
    assert made.status == 201 and (row["name"], row["mine"], row["running"]) == ("you", True, True)
    assert row["until"] - row["from"] == pytest.approx(2 * HOUR)
    [seen] = bo.get("/api/bookings").json()["bookings"]
    assert (seen["name"], seen["mine"], seen["percent"]) == ("Ada", False, 30.0)
    page = bo.get("/", Accept="text/html").text
    assert "Ada" in page and 'data-call="POST /api/bookings"' in page and f"/api/bookings/{row['id']}" not in page
    assert bo.send("DELETE", f"/api/bookings/{row['id']}").status == 404
    taken = bo.send("POST", "/api/bookings", {"provider": "codex", "percent": 11, "hours": 1})
    assert taken.status == 409 and "10 %" in taken.json()["error"]["message"]
    unknown = bo.send("POST", "/api/bookings", {"provider": "claude", "percent": 1, "hours": 1})
    assert unknown.status == 409 and unknown.json()["error"]["code"] == "unknown_headroom"
    assert (
        bo.send("POST", "/api/bookings", {"provider": "codex", "percent": 1, "hours": 1, "person": "Ada"}).status == 403
    )
    assert ada.send("DELETE", f"/api/bookings/{row['id']}").json() == {"ended": row["id"]}
    assert bo.get("/api/bookings").json()["bookings"] == []


@pytest.mark.pool(OFFERED)
def test_the_operator_books_for_a_person_and_ends_it(friends: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    left(friends, monkeypatch)
    enter(friends)
    boss = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    sent = {"provider": "codex", "percent": 5, "hours": 0.5}
    assert boss.send("POST", "/api/bookings", sent | {"person": "Nobody"}).status == 404
    row = boss.send("POST", "/api/bookings", sent | {"person": "Ada", "from": "2126-01-01T00:00"})
    assert row.status == 400 and "14 days" in row.json()["error"]["message"]
    row = boss.send("POST", "/api/bookings", sent | {"person": "Ada"}).json()
    assert (row["name"], row["mine"]) == ("Ada", False)
    page = boss.get("/", Accept="text/html").text
    assert f"/api/bookings/{row['id']}" in page and 'name="person"' in page
    assert boss.send("DELETE", f"/api/bookings/{row['id']}").status == 200
    actions = [entry["action"] for entry in boss.get("/admin/audit?action=booking").json()["rows"]]
    assert actions == ["booking.end", "booking.make"]


@pytest.mark.pool(OFFERED)
@pytest.mark.parametrize(
    "change",
    [
        {"percent": "many"}, {"percent": -1}, {"hours": 0}, {"hours": 1e300}, {"from": "yesterday"}, {"from": 1e300},
        {"provider": "nobody"}, {"provider": 7}, {"more": 1}, {"from": None},
    ],
)  # fmt: skip
def test_what_cannot_be_booked_is_refused(
    friends: Site, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    left(friends, monkeypatch)
    ada = Browser(friends, enter(friends))
    refused = ada.send("POST", "/api/bookings", {"provider": "codex", "percent": 1, "hours": 1} | change)
    assert refused.status == 400 and refused.json()["error"]["message"]
    assert ada.get("/api/bookings").json()["bookings"] == []


@pytest.mark.pool(OFFERED)
def test_without_scripts_a_booking_is_made_and_ended(friends: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    left(friends, monkeypatch)
    ada = PlainBrowser(friends, ("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": WORDS}))
    fields = {"provider": "codex", "percent": "12.5", "hours": "1", "from": ""}
    assert ada.send("/", "/api/bookings", "POST", **fields).status == 303
    [row] = friends.get("/api/bookings", Cookie=ada.cookie).json()["bookings"]
    assert row["percent"] == 12.5
    ada.send("/", f"/api/bookings/{row['id']}", "DELETE")
    assert friends.get("/api/bookings", Cookie=ada.cookie).json()["bookings"] == []


def test_nothing_of_it_is_shown_where_nobody_can_book(friends: Site) -> None:
    ada = Browser(friends, enter(friends))
    assert "/api/bookings" not in ada.get("/", Accept="text/html").text
    assert ada.send("POST", "/api/bookings", {"provider": "nobody", "percent": 1, "hours": 1}).status == 409
