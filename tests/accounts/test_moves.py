"""What a conversation's change of account costs, and when it is made."""

from __future__ import annotations

from math import log2
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts.selection import affinity
from pool_server.accounts.selection.select import Affinity, Decision, select
from pool_server.accounts.selection.warmth import AHEAD, Warmth, WarmthMemory, after
from pool_server.core.enums import ChoiceReason, CredentialKind, Strategy
from pool_server.core.models import Usage, WindowObservation
from pool_server.storage import Store
from pool_server.storage.write_behind import WriteBehind
from tests.accounts.kit import HOUR, NOW, Clock, ask, blame, entry, quota, view_of, week, window

KEY = {"kind": CredentialKind.API_KEY}


def warm(account: str, *, prompt: int = 10_000, spent: int = 5_000, ago: float = 10.0) -> Warmth:
    return Warmth(account, NOW - ago, prompt, spent, 0.9, 300.0)


def on_key(warmth: Warmth | None, *windows: WindowObservation, strategy: Strategy = Strategy.BALANCED) -> Decision:
    """A conversation on a key that is paid by use, beside a subscription with these windows."""
    view = view_of(entry("key", **KEY), entry("plan", *(windows or (week(10.0),))), strategy=strategy)
    return select(ask(session="s"), view, NOW, Affinity("claude:key", None, warmth))


def test_a_conversation_leaves_a_paid_key_when_that_frees_more_than_it_costs() -> None:
    decision = on_key(warm("claude:key"))
    assert (decision.account, decision.reason) == ("claude:plan", ChoiceReason.BEST)
    move = decision.record()["move"]
    assert (move["from"], move["to"], move["tokens"]) == ("claude:key", "claude:plan", 9_000)
    assert move["price"] == pytest.approx(log2(1 + 9_000 / (AHEAD * 5_000)), abs=0.001)
    assert move["gain"] > move["price"]


def test_a_move_that_costs_more_than_it_frees_is_not_made_and_says_so() -> None:
    decision = on_key(warm("claude:key", prompt=900_000, spent=2_000))
    assert (decision.account, decision.reason) == ("claude:key", ChoiceReason.PINNED)
    move = decision.record()["move"]
    assert move["to"] == "claude:plan" and move["price"] > 3.0
    assert on_key(warm("claude:key", prompt=900_000, spent=2_000, ago=HOUR)).account == "claude:plan"  # it is cold


@pytest.mark.parametrize("known", [None, Warmth("claude:key", NOW, 9.0, 9.0), warm("claude:elsewhere")])
def test_what_a_move_costs_is_not_guessed(known: Warmth | None) -> None:
    assert on_key(known).account == "claude:key"


def test_headroom_that_others_need_is_no_reason_to_move() -> None:
    assert on_key(warm("claude:key"), week(95.0, 6 * 24 * HOUR)).account == "claude:key"


@pytest.mark.parametrize("strategy", [one for one in Strategy if one is not Strategy.BALANCED])
def test_an_order_without_a_score_moves_nobody(strategy: Strategy) -> None:
    assert on_key(warm("claude:key"), strategy=strategy).account == "claude:key"


def test_an_account_about_to_run_out_keeps_its_long_conversations() -> None:
    view = view_of(entry("low", window(99.2), week(50.0)), entry("other", week(10.0)))
    short = warm("claude:low", prompt=2_000, spent=4_000)
    assert select(ask(session="s"), view, NOW, Affinity("claude:low", None, short)).account == "claude:other"
    long = warm("claude:low", prompt=4_000_000, spent=3_000)
    assert select(ask(session="s"), view, NOW, Affinity("claude:low", None, long)).account == "claude:low"


def test_a_healthy_account_keeps_a_warm_conversation_however_good_another_is() -> None:
    view = view_of(entry("here", week(60.0, 6 * 24 * HOUR)), entry("there", week(0.0, HOUR)))
    held = Affinity("claude:here", None, warm("claude:here", prompt=10, spent=90_000))
    assert select(ask(session="s"), view, NOW, held).reason is ChoiceReason.PINNED
    cold = Affinity("claude:here", None, warm("claude:here", ago=HOUR))
    assert select(ask(session="s"), view, NOW, cold).account == "claude:there"


def test_what_only_its_account_can_read_stays_there_however_cold() -> None:
    view = view_of(entry("here", week(60.0, 6 * 24 * HOUR)), entry("there", week(0.0, HOUR)))
    cold = msgspec.structs.replace(warm("claude:here", ago=HOUR), sealed=True)
    assert select(ask(session="s"), view, NOW, Affinity("claude:here", None, cold)).account == "claude:here"
    codex = after("codex:a", Usage(input=9, known=True), NOW)
    assert codex.again(NOW + HOUR) == 0.0 and not codex.forgotten(NOW + HOUR)


def test_an_owner_is_not_moved_off_their_own_account() -> None:
    own = entry("own", owner="ann", **KEY)
    own.owner = "ann"
    view = view_of(own, entry("plan", week(10.0)))
    held = Affinity("claude:own", None, warm("claude:own", ago=HOUR))
    assert select(ask(session="s"), view, NOW, held).account == "claude:own"


def test_the_operators_order_stands_above_the_price() -> None:
    view = view_of(entry("key", priority=1, **KEY), entry("plan", week(10.0), priority=2))
    held = Affinity("claude:key", None, warm("claude:key", ago=HOUR))
    assert select(ask(session="s"), view, NOW, held).account == "claude:key"


def test_a_move_that_is_forced_tells_its_price_too() -> None:
    out = entry("out", window(100.0))
    blame(out.health, quota(2 * HOUR))
    view = view_of(out, entry("other", week(10.0)))
    priced = select(ask(session="s"), view, NOW, Affinity("claude:out", None, warm("claude:out"))).record()["move"]
    assert (priced["from"], priced["to"], priced["tokens"], priced["gain"]) == (
        "claude:out",
        "claude:other",
        9_000,
        None,
    )
    unknown = select(ask(session="s"), view, NOW, Affinity("claude:out")).record()["move"]
    assert (unknown["price"], unknown["tokens"]) == (None, None)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1e6))
def test_a_price_is_never_less_than_nothing(fresh: int, read: int, written: int, out: int, ago: float) -> None:
    usage = Usage(input=fresh, cache_read=read, cache_write=written, output=out, known=True)
    found = after("claude:a", usage, NOW)
    price, again = found.price(NOW + ago), found.again(NOW + ago)
    assert price is not None and again is not None and price >= 0 and 0 <= again <= usage.prompt
    assert (again == 0) == (ago > 300 or not usage.prompt)
    assert 0 <= found.lost_by(usage, NOW + ago) <= usage.prompt


# -- the memory of it


def memory(tmp_path: Path) -> WriteBehind:
    return WriteBehind(Store.open(tmp_path / "state", tables=affinity.TABLES, durable=False), Clock())


def test_another_worker_knows_roughly_what_this_one_served(tmp_path: Path) -> None:
    store = memory(tmp_path)
    here, there = WarmthMemory(store), WarmthMemory(store)
    here.note("ann", "s", "claude:a", Usage(input=100, cache_read=9_900, output=20, known=True), NOW)
    found = there.find("ann", "s", NOW + 1)
    assert found is not None
    assert (found.account, found.prompt, found.again(NOW + 1)) == ("claude:a", 10_000, 9_000)
    there.note("ann", "s", "claude:b", Usage(input=10_000, known=True), NOW + 70)
    seen = here.find("ann", "s", NOW + 71)
    assert seen is not None and seen.account == "claude:b"
    assert here.find("bob", "s", NOW) is None


def test_a_row_of_a_newer_version_is_no_knowledge(tmp_path: Path) -> None:
    store = memory(tmp_path)
    known = WarmthMemory(store)
    known.note("ann", "s", "claude:a", Usage(input=100, known=True), NOW)
    key = affinity.warm_key("ann", "s")
    raw = store.get(affinity.TABLE, key)
    assert raw is not None
    for strange in (raw.replace(b"claude:a", b"tomorrow:a"), raw[:20], b""):
        store.put(affinity.TABLE, key, strange)
        assert WarmthMemory(store).find("ann", "s", NOW) is None


def test_only_what_matters_is_written(tmp_path: Path) -> None:
    store = memory(tmp_path)
    known = WarmthMemory(store)
    key = affinity.warm_key("ann", "s")
    known.note("ann", "s", "claude:a", Usage(input=1000, known=True), NOW)
    before = store.get(affinity.TABLE, key)
    for second in range(20):
        known.note("ann", "s", "claude:a", Usage(input=1000 + second, known=True), NOW + second)
    assert store.get(affinity.TABLE, key) == before
    known.note("ann", "s", "claude:a", Usage(), NOW + 30)  # nothing is known of it
    assert store.get(affinity.TABLE, key) == before
    known.note("ann", "s", "claude:a", Usage(input=2000, known=True), NOW + 40)
    assert store.get(affinity.TABLE, key) != before


def test_a_vendor_that_says_nothing_of_its_cache_has_no_price(tmp_path: Path) -> None:
    known = WarmthMemory(memory(tmp_path))
    known.note("ann", "s", "gemini:a", Usage(input=1000, known=True), NOW)
    found = known.find("ann", "s", NOW)
    assert found is not None
    assert found.price(NOW) is None and found.again(NOW) is None
