"""The request log: found by anything, opened to its attempts and decision, told in words."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from typing import Any

import pytest

from pool_server.core.enums import Dialect, Operation, Strategy, Transport
from pool_server.core.models import Attempt, Usage
from pool_server.web.base.shared import request_rows
from pool_server.web.request_log import story as story
from tests.web import usage
from tests.web.pool import exchange
from tests.web.site import Site
from tests.web.test_analytics import words_of

DECISION: dict[str, Any] = {
    "account": "claude:work", "reason": "best", "strategy": "balanced", "pinned": "claude:home", "probe": False,
    "hard_lost": False, "retry_at": None, "eligible": 1, "refused": {"cooling": 1, "needs_login": 2},
    "candidates": [
        {"account": "claude:work", "score": 0.42, "terms": {"pace": 0.5, "in_flight": -0.08}},
        {"account": "claude:home", "refusal": "cooling", "until": 0.0},
    ],
}  # fmt: skip


def tried_twice(user: str, number: int = 1) -> Any:
    at = time.time() - 50
    decision = {**DECISION, "candidates": [DECISION["candidates"][0], {**DECISION["candidates"][1], "until": at + 600}]}
    attempts = [
        Attempt("claude:home", 429, "rate", "slow down", 0.0, 180.0),
        Attempt("claude:work", 200, "", "", 190.0, 2000.0),
    ]
    return exchange(user, number, at=at, attempts=attempts, decision=decision, session="ab12", agent="claude-cli/2")


@pytest.mark.parametrize(
    ("table", "vocabulary"),
    [(story.STRATEGIES, Strategy), (story.DIALECTS, Dialect), (story.OPERATIONS, Operation),
     (story.TRANSPORTS, Transport)],
)  # fmt: skip
def test_every_member_has_words(table: dict[StrEnum, str], vocabulary: type[StrEnum]) -> None:
    assert set(table) == set(vocabulary)


def test_a_decision_is_told_in_sentences() -> None:
    told = story.story(tried_twice("u"))
    assert told.sentences == (
        "work was selected: had the most useful headroom.",
        "The conversation was with home.",
        "1 account could have served.",
        "Left out: cooling down after a fault: 1; signed out: 2.",
        "Strategy: the account with the most useful headroom goes first.",
    )
    assert [(one.account, one.chosen) for one in told.considered] == [("work", True), ("home", False)]
    assert re.fullmatch(r"cooling down after a fault, back at (\w+ )?\d\d:\d\d", told.considered[1].words)
    assert " in 10 min" not in told.considered[1].words, "a past record holds clock times"
    assert told.considered[0].score == "+0.42"


def test_an_exchange_without_a_choice_says_why() -> None:
    nobody = {**DECISION, "account": None, "reason": None}
    soon = exchange("u", decision={**nobody, "retry_at": time.time() + 7200})
    assert re.search(r"the nearest return was (\w+ )?\d\d:\d\d\.$", story.story(soon).sentences[0])
    assert "none was about to return" in story.story(exchange("u", decision=nobody)).sentences[0]
    assert story.story(exchange("u", account="")).sentences == ("No account had to be selected.",)
    assert story.story(exchange("u")).sentences == ("How its account was selected was not recorded.",)
    assert story.story(exchange("u", decision={"left_out": "too large"})).sentences == (
        "The decision was not kept: too large.",
    )


def test_what_a_later_version_wrote_is_shown_as_it_is() -> None:
    record = exchange("u", dialect="telepathy", decision={**DECISION, "strategy": "vibes", "reason": "hunch"})
    assert "telepathy" in story.asked_for(record)
    assert "vibes" in " ".join(story.story(record).sentences)


def test_what_became_of_the_request_is_told() -> None:
    carried = {"translation": "chat>codex", "dropped": ["seed", "a<b>"], "approximated": {"top_k": "left out"}}
    assert story.passed_on(exchange("u", decision={**DECISION, **carried})) == (
        "translated from chat completions to the ChatGPT backend; left out: seed, a<b>; top_k: left out"
    )
    plain = {"translation": "messages>gemini", "dropped": [], "approximated": {}}
    told = story.passed_on(exchange("u", decision={**DECISION, **plain}))
    assert told == "translated from Anthropic Messages to Gemini"
    assert story.passed_on(exchange("u", decision=DECISION)) == "as it came"
    assert story.passed_on(exchange("u", account="")) == ""
    assert story.passed_on(exchange("u", decision={"translation": "new>newer"})) == "translated from new to newer"


@pytest.mark.pool(usage.discreet("pool"))
def test_a_friend_sees_what_became_of_their_own(site: Site) -> None:
    ada = usage.friend(site)
    carried = {"translation": "chat>messages", "dropped": ["<i>wind</i>"], "approximated": {}}
    usage.keep(site, [exchange(ada.user, 5, decision={**DECISION, **carried})])
    page = ada.page(f"/requests/req-{ada.user}-5")
    assert "left out: &lt;i&gt;wind&lt;/i&gt;" in page and "claude:home" not in page
    row = request_rows.row(exchange(ada.user, 6, decision={**DECISION, **carried}))
    assert (row["translation"], row["dropped"]) == ("chat>messages", ["<i>wind</i>"])


def test_accounts_are_only_counted_for_friends() -> None:
    lines = story.attempts(tried_twice("u"), named=False)
    assert [(line.account, line.tone, line.message) for line in lines] == [
        ("account 1", "bad", ""),
        ("account 2", "good", ""),
    ]
    told = story.attempts(tried_twice("u"), named=True)
    assert (told[0].message, told[0].took, told[1].began) == ("slow down", "180 ms", "after 190 ms")


def test_an_attempt_that_went_well_lasted_until_the_end() -> None:
    record = exchange("u", total_ms=2400.0, attempts=[Attempt("claude:work", 200, started_ms=400.0)])
    assert story.attempts(record, named=True)[0].took == "2.0 s"


@pytest.mark.pool(usage.discreet("pool"))
def test_the_operator_opens_one_and_sees_all_of_it(site: Site) -> None:
    ada, boss = usage.friend(site), usage.admin(site)
    usage.keep(site, [tried_twice(ada.user)])
    ident = f"req-{ada.user}-1"
    text = words_of(boss.page(f"/requests/{ident}"))
    for mark in (
        "Ada",
        "work was selected",
        "too many requests in a short time",
        "slow down",
        "429",
        "after 190 ms",
        "40,000",
        "claude-cli/2",
        "ab12",
        ident,
        "+0.42",
        "an answer in one piece, in Anthropic Messages",
    ):
        assert mark in text, mark
    own = words_of(ada.page(f"/requests/{ident}"))
    assert "account 2" in own
    for hidden in ("work", "home", "slow down", "Why this account"):
        assert hidden not in own, hidden
    assert boss.get("/requests/nothing", Accept="text/html").status == 404


@pytest.mark.pool(usage.discreet("pool"))
def test_the_log_is_searched_by_anything(site: Site) -> None:
    ada, bo, boss = usage.friend(site, "Ada"), usage.friend(site, "Bo"), usage.admin(site)
    bad = {"status": 502, "outcome": "upstream", "message": "it could not be reached", "usage": Usage()}
    usage.keep(site, [exchange(ada.user, 1), exchange(ada.user, 2, **bad), exchange(bo.user, 3, model="glm-4.6")])

    def found(query: str) -> int:
        return boss.page(f"/requests?{query}").count('href="/requests/req-')

    assert [found(q) for q in ("", "user=Ada", "failed=1", "status=502", "model=glm-4.6", "outcome=ok",
                               "account=claude:work", "provider=codex", "from=2020-01-01&to=2020-02-01")] == [
        3, 2, 1, 1, 1, 2, 3, 0, 0]  # fmt: skip
    page = boss.page("/requests?failed=1")
    reason = page.partition('class="reason"')[2].partition("</tr>")[0]
    assert "it could not be reached. The answer was 502." in words_of("<main" + reason)
    moved = boss.get(f"/requests?id=req-{ada.user}-1", Accept="text/html")
    assert (moved.status, moved.headers["Location"]) == (303, f"/requests/req-{ada.user}-1")
    assert "No request has the id nothing" in boss.page("/requests?id=nothing")
    assert ada.page("/requests").count('href="/requests/req-') == 2
    assert "Try again in a minute" in ada.page("/requests")


def test_older_ones_are_a_link_away(site: Site) -> None:
    usage.keep(site, [exchange("local", n) for n in range(60)])
    page = site.get("/requests?outcome=ok", Accept="text/html").text
    older = page.partition('<a href="/requests?outcome=ok&amp;cursor=')[2].partition('"')[0]
    rest = site.get(f"/requests?outcome=ok&cursor={older}", Accept="text/html").text
    assert rest.count('href="/requests/req-') == 10
    assert "data-live" in page
    assert "data-live" not in rest.partition('id="log"')[2].partition(">")[0]


def test_admin_requests_are_json_with_decisions_and_a_page_for_browsers(local: Site) -> None:
    usage.keep(local, [tried_twice("local")])
    (row,) = local.get("/admin/requests").json()["requests"]
    assert (row["user_name"], row["account"], row["decision"]["reason"]) == ("this machine", "claude:work", "best")
    assert [attempt["account"] for attempt in row["attempts"]] == ["claude:home", "claude:work"]
    assert not {"body", "prompt", "messages"} & set(row)
    page = local.get("/admin/requests?failed=1", Accept="text/html")
    assert (page.status, page.headers["Location"]) == (303, "/requests?failed=1")
