"""One line of the pool for a status bar: what is left, one's own limit, nothing of other people."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.describe import PooledWindow, ProviderStatus
from pool_server.core.enums import AccountState, Provider
from pool_server.core.settings import Limits
from pool_server.users import LimitStanding
from pool_server.users.models import SERVER
from pool_server.web.base.shared import limits
from pool_server.web.status import line
from tests.web.pool import CODE, seen
from tests.web.site import Site

NOW = 1_790_000_000.0


def row(provider: str = "claude", **changes: Any) -> ProviderStatus:
    window = PooledWindow("5h", 18_000.0, 1, 38.0, NOW + 3180)
    usual = ProviderStatus(Provider(provider), {AccountState.READY: 1}, 1, 1, 62.0, [window], None, 0, 0, 0)
    return msgspec.structs.replace(usual, **changes)


def own(percent: float) -> list[limits.LimitRow]:
    told = LimitStanding(Limits(tokens_day=100), {"tokens_day": percent}, {"tokens_day": NOW + 28_800})
    return limits.rows(told, NOW)


def test_the_line() -> None:
    assert line([row()], [], NOW) == "Claude 62 % left, resets in 53 min"
    assert line([row(), row("codex", ready=0, next_return=NOW + 7200), row("qwen", total=0)], own(82), NOW) == (
        "Claude 62 % left, resets in 53 min · Codex used up, back in 2 h · "
        "your tokens for today 82 % used, reset in 8 h"
    )
    assert line([row(ready=0), row("openai", room_percent=None, windows=[])], own(10), NOW) == (
        "Claude needs the operator · OpenAI-compatible ready"
    )
    assert line([], own(120), NOW) == "no accounts · your tokens for today used up, reset in 8 h"


@given(st.floats(0, 500), st.floats(0, 100), st.booleans())
def test_one_printable_line_always(percent: float, left: float, ready: bool) -> None:
    assert line([row(room_percent=left, ready=int(ready))], own(percent), NOW).isprintable()


def test_a_key_gets_its_line_and_nobody_else(friends: Site) -> None:
    made = friends.post("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": "long enough"}).json()
    user, bearer = made["user"]["id"], {"Authorization": f"Bearer {made['key']}"}
    friends.run(lambda: seen(friends.ctx, "claude:work", 38.0))
    friends.run(lambda: friends.ctx.users.people.patch_user(user, {"limits": {"tokens_day": 0}}, actor=SERVER))
    answer = friends.get("/api/statusline", **bearer)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "Claude 62 % left" in answer.text
    assert "your tokens for today used up" in answer.text
    assert "claude:work" not in friends.get("/api/statusline", Accept="application/json", **bearer).text
    assert "Claude" not in friends.get("/api/statusline?provider=openai", **bearer).text
    assert friends.get("/api/statusline?provider=nobody", **bearer).status == 400
    assert friends.get("/api/statusline").status == 401


def test_a_key_is_told_the_model_to_ask_for(friends: Site) -> None:
    made = friends.post("/api/friend/login", {"code": CODE, "name": "Ada", "passphrase": "long enough"}).json()
    user, bearer = made["user"]["id"], {"Authorization": f"Bearer {made['key']}"}
    told = friends.get("/api/usable?dialect=messages", **bearer).json()
    assert told["served"] is True and told["model"].startswith("claude-") and told["returns_at"] is None
    friends.run(lambda: friends.ctx.users.people.patch_user(user, {"limits": {"models": ["gpt-9"]}}, actor=SERVER))
    assert not friends.get("/api/usable?dialect=messages", **bearer).json()["served"], "it is not theirs to ask for"
    assert friends.get("/api/usable?dialect=smoke", **bearer).status == 400
    assert friends.get("/api/usable").status == 401


def test_local_mode_asks_for_no_key(local: Site) -> None:
    assert local.get("/api/statusline").text.endswith("\n")
