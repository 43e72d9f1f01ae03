"""Every route of the pages and their API that takes an id, asked by a friend for what is somebody else's."""

from __future__ import annotations

import itertools
import re
from typing import Any

from pool_server.web.base.handler import Access
from pool_server.web.routes import TABLE
from tests.web.pool import CODE, exchange
from tests.web.site import Site

WORDS = "correct horse battery"
GROUP = re.compile(r"\([^()]*(?:\([^()]*\)[^()]*)*\)")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def entered(site: Site, name: str) -> tuple[str, dict[str, Any]]:
    """The id of somebody new, and the headers of their session with the page's token."""
    answer = site.post("/api/friend/login", {"code": CODE, "name": name, "passphrase": WORDS})
    session = f"pool_session={answer.cookies()['pool_session']}"
    token = site.get("/", Cookie=session, Accept="text/html").cookies()["_xsrf"]
    return answer.json()["user"]["id"], {"Cookie": f"{session}; _xsrf={token}", "X_XSRFToken": token}


def paths(ids: list[str]) -> list[str]:
    """Every route with an id or a choice of words in it, for each id and word."""
    found = []
    for pattern, handler in TABLE:
        groups = GROUP.findall(pattern)
        if not groups or handler.access is Access.OPEN or "static" in pattern:
            continue
        words = [group.strip("()").split("|") if "|" in group else ids for group in groups]
        literal = [part.replace("\\", "") for part in GROUP.split(pattern)]
        for filling in itertools.product(*words):
            between = (a + b for a, b in itertools.zip_longest(literal, filling, fillvalue=""))
            found.append("".join(between))
    return found


def test_no_route_lets_a_friend_have_or_change_what_is_somebody_elses(friends: Site) -> None:
    ada, hers = entered(friends, "Ada")
    _, his = entered(friends, "Bob")
    key = friends.get("/api/me", **hers).json()["keys"][0]["id"]
    friends.run(lambda: friends.ctx.ledger.record(exchange(ada)))
    ids = [ada, key, f"req-{ada}-1", "claude:work", "nobody-has-it"]
    asked = paths(ids)
    assert len(asked) > 60
    before = friends.get("/api/me", **hers).json()["keys"], friends.ctx.accounts.describe_all()
    for path, method in itertools.product(asked, METHODS):
        answer = friends.request(method, path, json_body=None if method == "GET" else {}, **his)
        assert answer.status in (400, 403, 404, 405), (method, path, answer.status)
        assert answer.status != 400 or method != "GET", (method, path)
    after = friends.get("/api/me", **hers).json()["keys"], friends.ctx.accounts.describe_all()
    assert [one["id"] for one in after[0]] == [one["id"] for one in before[0]]
    assert [(row.id, row.disabled) for row in after[1]] == [(row.id, row.disabled) for row in before[1]]
    assert friends.get(f"/requests/req-{ada}-1", Accept="text/html", **hers).status == 200
