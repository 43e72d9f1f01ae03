"""What pages say of the folder, of a sign-in that ended and of a wrong address is in the reader's language."""

from __future__ import annotations

import time

import pytest

from pool_server.accounts.health import learning
from pool_server.accounts.health.transitions import StateActor
from pool_server.alerts.incidents import remember
from pool_server.alerts.rules import AlertFacts, step
from pool_server.core.settings import Alerts
from pool_server.language import lazy
from pool_server.web.admin.ledger_replay import ReplayState, doing
from tests.web import usage
from tests.web.pool import friends_settings
from tests.web.site import Site

pytestmark = pytest.mark.pool(friends_settings())
GERMAN = {"Accept": "text/html", "Accept-Language": "de"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("range=ever", "range muss eines von 24h, 7d"),
        ("tz=Mars", "Name einer Zeitzone"),
        ("from=x", "from muss Unix-Sekunden"),
        ("from=20&to=10", "to muss nach from liegen"),
        (f"user={'u' * 300}", "user ist zu lang"),
    ],
)
def test_a_wrong_address(site: Site, query: str, said: str) -> None:
    answer = usage.admin(site).get(f"/analytics?{query}", **GERMAN)
    assert (answer.status, said in answer.text) == (400, True), answer.text[-900:]


def test_a_folder_that_cannot_be_read_and_a_refresh_that_was_refused(site: Site) -> None:
    boss, accounts = usage.admin(site), site.ctx.accounts
    why = lazy(
        "{reason}; {account} stays as it was", reason=lazy("cannot be read: {why}", why="EIO"), account="claude:x"
    )
    accounts._registry.credentials.wrong = {"claude_x.json": why}
    lost = lazy("the refresh token is refused ({code}): {words}", code="invalid_grant", words="spent")
    site.run(
        lambda: accounts._registry.update(
            "claude:work", lambda known: learning.login_lost(known, time.time(), lost, "t", StateActor.REFRESH)
        )
    )
    facts = AlertFacts(pool_folder=accounts.folder_trouble())
    site.run(lambda: remember(site.ctx.ledger.notes, step({}, facts, Alerts(), 1.0)[0]))
    for language, trouble in (
        ("de", "nicht lesbar: EIO; claude:x bleibt, wie es war"),
        ("en", "cannot be read: EIO; claude:x stays"),
    ):
        page = boss.get("/accounts", Accept="text/html", **{"Accept-Language": language}).text
        assert page.count(trouble) == 2, "at its place and in the banner"
    assert accounts.describe("claude:work").message == str(lost)
    row = boss.get("/admin/accounts", **{"Accept": "application/json", "Accept-Language": "de"}).json()["accounts"][0]
    assert row["state"] == "needs_login" and "invalid_grant" in row["message"] and row["message"] != str(lost)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("starting", "starting"),
        ("as it was (2 of 3)", "as it was (2 of 3)"),
        ("+1 claude (1 of 3)", "+1 claude (1 of 3)"),
    ],
)
def test_what_a_replay_is_at(told: str, shown: str) -> None:
    assert doing(ReplayState(doing=told)) == shown
