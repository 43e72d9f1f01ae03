"""The what-if page: the ledger replayed by a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from pool_server.core.settings import PoolUsers, Settings
from pool_server.web.admin import ledger_replay
from pool_server.web.admin.ledger_replay import ReplayFile, ReplayState
from tests.web.pool import ADMIN, exchange
from tests.web.site import Site
from tests.web.test_friends import Browser

OPEN = Settings(friend_code="swim", pool_users=PoolUsers(admin_password=ADMIN))
PAGE = {"Accept": "text/html"}
SUMS = {"requests": 9, "served": 8, "refused": 1, "apart": 0, "waited": 0, "moved": 2, "tokens": 5, "cost": 1.5,
        "bill": 0.0, "unused": 3.25}  # fmt: skip
STUDY = {
    "recorded": SUMS, "replayed": {"what": "as it was", "sums": SUMS, "low": SUMS, "high": SUMS},
    "what_ifs": [{"what": "-user <b>", "sums": SUMS, "low": SUMS, "high": {**SUMS, "refused": 4}}],
    "differs": dict.fromkeys(SUMS, 0.0123), "unexplained": 1, "unknown": ["claude:a"], "unread": 0, "gaps": [[0, 1]],
}  # fmt: skip


def admin_of(site: Site) -> Browser:
    return Browser(site, site.post("/admin", {"password": ADMIN}))


def state_of(admin: Browser) -> dict[str, object]:
    found: dict[str, object] = admin.get("/admin/what-if").json()
    return found


@pytest.mark.slow
@pytest.mark.pool(OPEN)
def test_a_replay_is_asked_for_followed_and_shown(site: Site) -> None:
    admin = admin_of(site)
    assert "The recorded past is replayed" in admin.get("/admin/what-if", **PAGE).text
    for n in range(5):
        record = exchange("u_1", n, session=f"s{n}", dialect="messages", operation="messages", provider="claude")
        record.at = time.time() - 3600 * n - 60
        site.run(lambda record=record: site.ctx.ledger.record(record))  # type: ignore[misc]
    assert admin.send("POST", "/admin/what-if", {"days": 7, "changes": "strategy random\n\n"}).status == 202
    assert admin.send("POST", "/admin/what-if", {"days": 7}).status == 409
    until = time.monotonic() + 170
    while state_of(admin)["running"] and time.monotonic() < until:
        site.run(lambda: asyncio.sleep(0.2))
    done = state_of(admin)
    assert done["error"] == ""
    found = done["found"]
    assert isinstance(found, dict) and found["recorded"]["requests"] == 5
    page = admin.get("/admin/what-if", **PAGE).text
    assert "of what happened" in page and "strategy random" in page and "Replayed as it was" in page


@pytest.mark.pool(OPEN)
def test_a_study_is_shown_with_its_range_and_what_it_rests_on(site: Site) -> None:
    file = ReplayFile(Path(site.ctx.settings.data_dir))
    file.write(ReplayState(30, ["-user <b>"], 1.0, 1.0, found=STUDY))
    page = admin_of(site).get("/admin/what-if", **PAGE).text
    assert "within 1.2 % of what happened" in page or "within 1 % of what happened" in page
    assert "<b>" not in page.replace("<body", "") and "-user &lt;b&gt;" in page
    assert "1 to 4" in page and "1 refusal that headroom does not explain is repeated" in page
    assert "claude:a" in page and "1 stretch of three days" in page


@pytest.mark.pool(OPEN)
def test_what_went_wrong_is_said_and_an_old_replay_does_not_run_for_ever(site: Site) -> None:
    admin, file = admin_of(site), ReplayFile(Path(site.ctx.settings.data_dir))
    file.write(ReplayState(30, [], 1.0, 1.0, error="there is no user 'Zoe'"))
    assert "there is no user &#x27;Zoe&#x27;" in admin.get("/admin/what-if", **PAGE).text.replace("&#39;", "&#x27;")
    file.write(ReplayState(30, [], 1.0, time.time() - 3600, doing="reading"))  # its worker was killed
    assert "the replay ended without a word" in admin.get("/admin/what-if", **PAGE).text
    for wrong in (b"", b"{", b'{"days": "x"}', b"[]"):
        (Path(site.ctx.settings.data_dir) / ledger_replay.FILE).write_bytes(wrong)
        assert admin.get("/admin/what-if", **PAGE).status == 200


@pytest.mark.pool(OPEN)
@pytest.mark.parametrize(
    "body", [{"days": 0}, {"days": 10**9}, {"changes": "x\n" * 6}, {"changes": "x" * 201}, {"hours": 1}]
)
def test_what_cannot_be_asked_is_refused(site: Site, body: dict[str, object]) -> None:
    assert admin_of(site).send("POST", "/admin/what-if", body).status == 400


def test_replays_are_the_operators(friends: Site) -> None:
    made = friends.post("/api/friend/login", {"code": "swim", "name": "Ada", "passphrase": "long enough"})
    friend = Browser(friends, made)
    assert friend.get("/admin/what-if").status == 403
    assert friend.send("POST", "/admin/what-if", {"days": 7}).status == 403


def test_a_change_is_never_taken_for_an_option() -> None:
    asked = ledger_replay.command(7, ["-user Ada", "--config=/etc/passwd"])
    assert "--what-if=-user Ada" in asked and "--what-if=--config=/etc/passwd" in asked
    assert json.dumps(asked)
