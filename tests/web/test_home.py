"""A friend's home: the first sentence is about this friend; a lost passphrase is set anew by whoever holds a key."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Provider
from pool_server.core.settings import COUNTED_LIMITS, Limits
from pool_server.users import LimitStanding
from pool_server.users.models import SERVER
from pool_server.web.base.shared import limits
from pool_server.web.base.shared.headroom import ProviderRow
from pool_server.web.base.shared.standing import standing
from tests.web.pool import CODE, exchange
from tests.web.site import Site
from tests.web.test_friends import Browser

NOW = 1_790_000_000.0
OPEN = ProviderRow(Provider.CLAUDE, "Claude", 1, 1, "good", "1 account ready", (), None, 0)
SPENT = ProviderRow(Provider.CODEX, "Codex", 0, 1, "bad", "0 of 1 account ready", (), NOW + 600, 0)


def rows(**used: tuple[float, float]) -> list[limits.LimitRow]:
    """Limits by name: (used, limit)."""
    most = msgspec.convert({name: int(most) for name, (_, most) in used.items()}, Limits)
    have = {name: have for name, (have, _) in used.items()}
    return limits.rows(LimitStanding(most, have, dict.fromkeys(used, NOW + 29_160)), NOW)


def test_a_used_up_limit_is_the_first_thing_said() -> None:
    found = standing(rows(tokens_day=(25_850, 1000), cost_week=(1, 50)), [OPEN], "Claude lasts all day")
    assert found == (
        "Your tokens for today are used up.",
        "bad",
        "They reset",
        NOW + 29_160,
        "The pool itself has headroom.",
    )
    both = standing(rows(cost_month=(9, 9)), [SPENT], "Codex has no headroom")
    assert (both.headline, both.rest) == ("Your budget for this month is used up.", "Codex has no headroom.")


def test_what_is_nearly_used_up_is_said_before_the_pool() -> None:
    found = standing(rows(tokens_week=(85, 100)), [OPEN], "")
    assert (found.headline, found.tone, found.verb) == (
        "Your tokens for this week are 85 % used.",
        "warn",
        "They reset",
    )
    assert standing(rows(tokens_week=(20, 100)), [OPEN], "").headline == "You can use the pool now."


def test_without_headroom_or_accounts_the_pool_is_what_matters() -> None:
    assert standing([], [SPENT], "").at == NOW + 600
    assert standing([], [SPENT._replace(next_return=None)], "").rest == "The operator has to sign in again."
    assert standing([], [], "").headline == "The pool has no accounts yet."
    assert standing([], [OPEN], "", draining=True).headline == "The pool is restarting."


@given(st.dictionaries(st.sampled_from([limit.name for limit in COUNTED_LIMITS]), st.floats(0, 300), min_size=1))
def test_green_is_for_whoever_may_go_on(used: dict[str, float]) -> None:
    found = standing(rows(**{name: (have, 100.0) for name, have in used.items()}), [OPEN], "")
    assert (found.tone == "bad") == any(have >= 100 for have in used.values())
    assert "2585" not in found.headline


def sign_in(site: Site, **fields: str) -> tuple[Browser, dict[str, Any]]:
    """A browser that came in this way, and what the door answered."""
    entry = site.post("/api/friend/login", fields)
    assert entry.status == 200, entry.text
    return Browser(site, entry), entry.json()


def change(browser: Browser, **fields: str) -> int:
    return browser.send("POST", "/api/me/passphrase", fields).status


def test_a_key_sets_a_lost_passphrase_anew_for_ten_minutes(friends: Site) -> None:
    _, first = sign_in(friends, code=CODE, name="Ada", passphrase="the one she lost")
    ada, _ = sign_in(friends, key=first["key"])
    assert "without the old one" in ada.get("/").text
    assert change(ada, new="a new passphrase") == 200
    again, _ = sign_in(friends, name="Ada", passphrase="a new passphrase")
    assert change(again, new="not without the old") == 401, "a session opened with the passphrase proves it"
    assert "without the old one" not in again.get("/").text


def test_a_key_session_grows_old(friends: Site) -> None:
    _, first = sign_in(friends, code=CODE, name="Ada", passphrase="the one she lost")
    ada, _ = sign_in(friends, key=first["key"])
    later = friends.ctx.clock() + 601

    def old() -> None:
        friends.ctx.users.sessions._clock = lambda: later

    friends.run(old)
    assert "without the old one" not in ada.get("/").text
    assert change(ada, new="a new passphrase") == 401


def test_a_used_up_limit_is_red_and_a_failure_has_no_tick(friends: Site) -> None:
    ada, first = sign_in(friends, code=CODE, name="Ada", passphrase="long enough")
    user = first["user"]["id"]
    friends.run(lambda: friends.ctx.users.people.patch_user(user, {"limits": {"tokens_day": 0}}, actor=SERVER))
    page = ada.get("/").text
    assert '<h1 class="state bad">Your tokens for today are used up.</h1>' in page
    assert 'class="bar bad"' in page
    assert '<span class="state bad">Used up</span>' in page
    assert "✓" not in page


def test_set_up_is_folded_after_the_first_answer_not_after_a_failure(friends: Site) -> None:
    ada, first = sign_in(friends, code=CODE, name="Ada", passphrase="long enough")
    user = first["user"]["id"]
    assert "<h2>Set up a client</h2>" in ada.get("/").text
    friends.run(lambda: friends.ctx.ledger.record(exchange(user, 1, status=502, outcome="upstream")))
    assert "<h2>Set up a client</h2>" in ada.get("/").text
    friends.run(lambda: friends.ctx.ledger.record(exchange(user, 2)))
    page = ada.get("/").text
    assert "<details><summary><h2>Set up another client</h2></summary>" in page
    assert "<details open><summary><h2>Set up another client" in ada.get("/?client=codex").text
    assert page.index('id="setup"') < page.index('id="mine"') < page.index('id="latest"') < page.index('id="keys"')


def test_a_key_says_what_it_used_and_when_it_ends(friends: Site) -> None:
    ada, first = sign_in(friends, code=CODE, name="Ada", passphrase="long enough")
    made = ada.send("POST", "/api/keys", {"label": "for a week", "expires_in": 7 * 86_400}).json()
    held = {key["label"]: key for key in ada.get("/api/me").json()["keys"]}
    assert 0 <= friends.ctx.clock() + 7 * 86_400 - held["for a week"]["expires"] < 60
    friends.run(lambda: friends.ctx.ledger.record(exchange(first["user"]["id"], 1, key=made["id"])))
    row = ada.get("/").text.partition("for a week</th>")[2].partition("</tr>")[0]
    assert "in 6 d" in row or "in 7 d" in row
    assert "42.0 k" in row
    for wrong in (0, -1, 1e12, "soon"):
        assert ada.send("POST", "/api/keys", {"expires_in": wrong}).status == 400


def test_a_friend_sees_the_account_they_brought_and_no_other(friends: Site) -> None:
    ada, first = sign_in(friends, code=CODE, name="Ada", passphrase="long enough")
    assert "<h2>Your accounts</h2>" not in ada.get("/").text
    friends.run(lambda: friends.ctx.accounts.change("claude:work", {"owner": first["user"]["id"]}))
    page = ada.get("/").text.partition("<h2>Your accounts</h2>")[2]
    assert "claude:work" in page
    assert "openai:spare" not in page
