"""Transcripts on the pages and by API: one's own decision, and nobody else's business."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import zstandard

from pool_server.accounts.held_requests import HeldRequest
from pool_server.core import processes
from pool_server.core.settings import TranscriptSettings
from pool_server.transcripts import archive
from tests.web.pool import ADMIN, friends_settings
from tests.web.site import Site
from tests.web.test_friends import Browser, enter

OFFERED = pytest.mark.pool(friends_settings(transcripts=TranscriptSettings(enabled=True)))
LINES = b'{"type":"exchange","agent":"Codex 1","session":"5e55"}\n{"type":"end"}\n'


def put(site: Site, user: str, talk: str = "c1") -> str:
    path = archive.place(site.ctx.transcripts.folder, user, "Codex/1.0", talk, "0001")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(LINES))
    return f"codex.{talk}"


def friend(site: Site, name: str = "Ada") -> tuple[Browser, str]:
    entered = enter(site, name)
    return Browser(site, entered), entered.json()["user"]["id"]


@OFFERED
def test_consent_is_ones_own_word_given_and_taken_back(friends: Site) -> None:
    ada, user = friend(friends)
    assert "not kept" in ada.get("/", Accept="text/html").text
    assert ada.get("/api/me/transcripts").json()["allowed"] is False
    told = ada.send("PATCH", "/api/me/transcripts", {"allowed": True}).json()
    assert told["allowed"] and told["since"] and friends.ctx.users.consents.allows(user)
    assert "are kept, because you allowed it" in ada.get("/", Accept="text/html").text
    put(friends, user)
    told = ada.send("PATCH", "/api/me/transcripts", {"allowed": False, "delete": True}).json()
    assert not told["allowed"] and told["conversations"] == []
    assert not friends.ctx.users.consents.allows(user)
    actions = [row.action for row in friends.run(lambda: friends.ctx.users.audit_log(action="transcripts."))[0]]
    assert actions == ["transcripts.delete", "transcripts.withdraw", "transcripts.allow"]


def test_what_the_operator_does_not_offer_nobody_can_allow(friends: Site) -> None:
    ada, user = friend(friends)
    assert ada.send("PATCH", "/api/me/transcripts", {"allowed": True}).status == 409
    assert "Nothing of your requests and answers is kept" in ada.get("/", Accept="text/html").text
    assert "keeps no transcripts" in ada.get("/transcripts", Accept="text/html").text
    assert not friends.ctx.users.consents.allows(user)


@OFFERED
def test_ones_own_are_listed_read_and_deleted(friends: Site) -> None:
    ada, user = friend(friends)
    ids = [put(friends, user, talk) for talk in ("c1", "c2")]
    rows = ada.get("/api/me/transcripts").json()["conversations"]
    assert sorted(row["id"] for row in rows) == ids and {row["session"] for row in rows} == {"5e55"}
    got = ada.get(f"/api/me/transcripts/{ids[0]}")
    assert got.body == LINES and got.headers["Content-Disposition"].startswith("attachment")
    page = ada.get("/transcripts", Accept="text/html").text
    assert page.count("5e55") == 2
    assert ada.send("DELETE", f"/api/me/transcripts/{ids[0]}").json() == {"deleted": 1}
    assert ada.get(f"/api/me/transcripts/{ids[0]}").status == 404
    assert ada.send("DELETE", "/api/me/transcripts").json() == {"deleted": 1}
    assert ada.get("/api/me/transcripts").json()["conversations"] == []


@pytest.mark.slow
@OFFERED
@pytest.mark.parametrize("bad", ["..", "codex.c1%2f..", "%2e%2e%2fx.y", "codex", "codex.c1.x"])
def test_an_id_that_is_none_is_not_found(friends: Site, bad: str) -> None:
    ada, user = friend(friends)
    put(friends, user)
    assert ada.get(f"/api/me/transcripts/{bad}").status == 404
    assert ada.send("DELETE", f"/api/me/transcripts/{bad}").status == 404


@OFFERED
def test_others_find_nothing_and_the_operator_only_what_is_shared(friends: Site) -> None:
    ada, user = friend(friends)
    bob, _ = friend(friends, "Bob")
    talk = put(friends, user)
    admin = {"Authorization": f"Bearer {ADMIN}"}
    assert bob.get(f"/api/me/transcripts/{talk}").status == 404
    assert bob.get(f"/admin/transcripts/{user}/{talk}").status == 403
    [row] = friends.get("/admin/transcripts", **admin).json()["people"]
    assert (row["name"], row["exchanges"], row["shared"]) == ("Ada", 1, [])
    assert friends.get(f"/admin/transcripts/{user}/{talk}", **admin).status == 403
    assert ada.send("PATCH", f"/api/me/transcripts/{talk}", {"shared": True}).json()["shared"]
    assert friends.get(f"/admin/transcripts/{user}/{talk}", **admin).body == LINES
    assert friends.run(lambda: friends.ctx.users.audit_log(action="transcripts.read"))[0][0].target == user
    ada.send("PATCH", f"/api/me/transcripts/{talk}", {"shared": False})
    assert friends.get(f"/admin/transcripts/{user}/{talk}", **admin).status == 403
    assert friends.get("/api/me/transcripts", **admin).status == 409


@OFFERED
def test_a_damaged_one_does_not_take_the_page_away(friends: Site) -> None:
    ada, user = friend(friends)
    talk = put(friends, user)
    [path] = Path(friends.ctx.transcripts.folder).rglob("*.zst")
    path.write_bytes(b"no zstd")
    assert ada.get("/transcripts", Accept="text/html").status == 200
    assert ada.send("DELETE", f"/api/me/transcripts/{talk}").status == 200


def test_a_capture_is_ordered_fetched_and_deleted_by_its_person_alone(friends: Site) -> None:
    ada, user = friend(friends)
    bob, _ = friend(friends, "Bob")
    key = ada.get("/api/me").json()["keys"][0]["id"]
    made = ada.send("POST", "/api/me/captures", {"exchanges": 2, "key": key})
    assert made.status == 201 and made.json()["open"]
    assert friends.ctx.transcripts.reports.wanted(user, key)
    [row] = ada.get("/api/me/captures").json()["captures"]
    assert (row["taken"], row["texts"]) == (0, False)
    assert "0 of 2 captured" in ada.get("/transcripts", Accept="text/html").text
    address = f"/api/me/captures/{row['id']}"
    assert ada.get(address).status == 200 and bob.get(address).status == 404
    assert bob.send("DELETE", address).status == 404 and ada.send("DELETE", address).status == 200
    assert ada.get(address).status == 404
    assert ada.send("POST", "/api/me/captures", {"exchanges": 1, "texts": True}).status == 409
    assert ada.send("POST", "/api/me/captures", {"exchanges": 99}).status == 400
    assert ada.send("POST", "/api/me/captures", {"key": "k_none"}).status == 404


def test_what_waits_is_seen_and_cancelled_by_its_person_and_the_operator(friends: Site) -> None:
    ada, user = friend(friends)
    bob, _ = friend(friends, "Bob")
    waits = friends.ctx.accounts.held
    for number in (1, 2):
        waits._list(HeldRequest(f"r{number}", user, "claude-opus", "Codex 1", 1e9, 4e9, processes.name()))
    assert "Waiting for headroom" in ada.get("/", Accept="text/html").text
    assert "Waiting for headroom" not in bob.get("/", Accept="text/html").text
    assert [row["id"] for row in ada.get("/api/held").json()["held"]] == ["r1", "r2"]
    assert bob.get("/api/held").json()["held"] == [] and bob.send("DELETE", "/api/held/r1").status == 404
    assert ada.send("DELETE", "/api/held/r1").json() == {"cancelled": "r1"}
    admin: dict[str, Any] = {"Authorization": f"Bearer {ADMIN}"}
    assert len(friends.get("/api/held", **admin).json()["held"]) == 2
    page = Browser(friends, friends.post("/admin", {"password": ADMIN})).get("/", Accept="text/html").text
    assert "Waiting for headroom" in page and "Ada" in page
    assert friends.request("DELETE", "/api/held/r2", **admin).status == 200
