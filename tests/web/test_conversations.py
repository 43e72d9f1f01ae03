"""Conversations: what each used, what came from caches, and what a move to another account cost."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.models import Usage, UsageRecord
from pool_server.web.base.shared.names import ConversationBook, without_version
from pool_server.web.request_log.conversations import cache_share, moves
from tests.web.pool import ADMIN, CODE, exchange
from tests.web.site import Site
from tests.web.test_friends import Browser


def cost(model: str, tokens: int) -> float | None:
    """Ten dollars a million read, one from a cache."""
    return 0.0 if not tokens else None if model == "unpriced" else 9 * tokens / 1e6


def turn(number: int, account: str, read: int, cached: int, model: str = "m") -> UsageRecord:
    usage = Usage(input=read, cache_read=cached, output=10, known=True)
    return exchange("u", number, account=account, usage=usage, model=model, session="c1")


def test_a_move_costs_what_the_cache_would_have_saved() -> None:
    told = [turn(1, "claude:a", 50_000, 0), turn(2, "claude:a", 1_000, 50_000), turn(3, "claude:b", 60_000, 0)]
    (move,) = moves(told, cost)
    assert (move.before, move.after, move.lost) == ("claude:a", "claude:b", 51_000)
    assert move.cost is not None
    assert abs(move.cost - 51_000 * 9 / 1e6) < 1e-9
    assert moves(told[:2], cost) == []


def test_what_was_shortened_or_cached_there_is_not_lost() -> None:
    (short,) = moves([turn(1, "a:1", 90_000, 0), turn(2, "a:2", 2_000, 0)], cost)
    assert short.lost == 2_000
    (warm,) = moves([turn(1, "a:1", 5_000, 0), turn(2, "a:2", 100, 5_000)], cost)
    assert (warm.lost, warm.cost) == (0, 0.0)
    (unknown,) = moves([turn(1, "a:1", 5_000, 0), turn(2, "a:2", 6_000, 0, "unpriced")], cost)
    assert unknown.cost is None


def test_requests_that_reached_no_account_are_no_move() -> None:
    failed = exchange("u", 2, account="", usage=Usage(), status=429, outcome="exhausted")
    assert moves([turn(1, "a:1", 100, 0), failed, turn(3, "a:1", 100, 0)], cost) == []


@given(st.lists(st.tuples(st.sampled_from(["a:1", "a:2"]), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=12))
def test_no_move_loses_more_than_was_there(turns: list[tuple[str, int, int]]) -> None:
    told = [turn(number, *one) for number, one in enumerate(turns)]
    for move in moves(told, cost):
        assert move.lost is not None
        assert 0 <= move.lost <= max(one.usage.prompt for one in told)
        assert move.cost is not None
        assert move.cost >= 0


def test_the_share_of_caches() -> None:
    assert cache_share(25, 50, 25) == 50
    assert cache_share(0, 0, 0) is None


def test_a_friend_sees_their_own_without_accounts_and_the_operator_sees_all(friends: Site) -> None:
    entry = friends.post("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": "long enough"})
    ada, user = Browser(friends, entry), entry.json()["user"]["id"]
    assert "No conversation in the last 7 days" in ada.get("/analytics/conversations").text
    for number, (who, account) in enumerate([(user, "claude:work"), (user, "claude:home"), ("u_other", "claude:work")]):
        session = "mine1234" if who == user else "theirs99"
        record = exchange(who, number, account=account, session=session, agent="Claude Code 2.1.330", model="opus")
        friends.run(partial(friends.ctx.ledger.record, record))
    listed = ada.get("/analytics/conversations").text
    assert "mine1234" in listed
    assert "theirs99" not in listed
    assert listed.count("Claude Code with opus") == 1
    assert "Claude Code with opus" in ada.get("/", Accept="text/html").text
    page = ada.get("/analytics/conversations/mine1234").text
    assert "It moved 1 time to another account" in page
    assert "claude:work" not in page and "claude:home" not in page
    assert ada.get("/analytics/conversations/theirs99").status == 404
    assert ada.get("/analytics/conversations/nothing").status == 404
    admin = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    assert "theirs99" in admin.get("/analytics/conversations").text
    assert "mine1234" not in admin.get("/analytics/conversations?q=unknown+claude").text
    assert "mine1234" in admin.get("/analytics/conversations?q=ada+claude&sort=latest").text
    full = admin.get("/analytics/conversations/mine1234").text
    assert "claude:work" in full and "claude:home" in full


def test_a_move_without_a_price_is_not_said_to_cost_nothing(friends: Site) -> None:
    for number, account in enumerate(["claude:work", "claude:home"]):
        record = exchange("u_other", number, account=account, session="unpriced1", model="no-such-model-9")
        friends.run(partial(friends.ctx.ledger.record, record))
    admin = Browser(friends, friends.post("/admin", {"password": ADMIN}))
    page = admin.get("/analytics/conversations/unpriced1").text
    assert "It moved 1 time to another account; what that cost" in page
    assert "cost nothing" not in page


def test_a_conversation_is_called_by_its_latest_request(friends: Site) -> None:
    book, ledger = ConversationBook(), friends.ctx.ledger
    for number, (who, agent, model) in enumerate(
        [("ada", "Codex 1.2", "gpt"), ("bo", "aider", "gpt"), ("ada", "", "")]
    ):
        friends.run(partial(ledger.record, exchange(who, number, session="s" * 80, agent=agent, model=model)))
        book.read(ledger)
    assert book.get("s" * 64, "bo").title == "aider with gpt"
    assert book.get("s" * 64, "ada").title == ""
    assert book.get("s" * 64).user == "ada"
    assert book.get("s" * 64, "cy") == book.get("nothing")


@pytest.mark.parametrize(
    ("agent", "name"),
    [("Claude Code 2.1", "Claude Code"), ("aider", "aider"), ("x/1.2", "x"), ("Gemini CLI", "Gemini CLI"), ("", "")],
)
def test_a_program_without_its_version(agent: str, name: str) -> None:
    assert without_version(agent) == name
