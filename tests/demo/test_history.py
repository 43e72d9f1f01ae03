"""The made-up past is one that could have been."""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict

import pytest

from pool_server.core.enums import CredentialKind, Outcome
from pool_server.core.models import UsageRecord
from pool_server.demo import cast
from pool_server.demo.fake_account import DAY
from pool_server.demo.history import SeededPerson, fillings, history
from pool_server.ledger import Prices
from pool_server.providers import SPECS

NOW = 1_800_000_000.0
ACCOUNTS = {
    provider: [one.id for one in cast.accounts(NOW, "http://fake") if one.provider is provider]
    for provider, spec in SPECS.items()
    if spec.keys.fields and not spec.preset
}


@functools.cache
def past(seed: int = 7) -> list[UsageRecord]:
    people = [SeededPerson(friend, f"u_{number}", f"k_{number}") for number, friend in enumerate(cast.FRIENDS)]
    return list(history(people, ACCOUNTS, now=NOW, seed=seed))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_past() -> None:
    assert past() == past.__wrapped__() != past(8)


def test_everybody_was_there_for_months_and_until_just_now() -> None:
    records = past()
    assert 3_000 < len(records) < 20_000
    assert len({one.id for one in records}) == len(records)
    assert {one.user for one in records} == {f"u_{number}" for number in range(len(cast.FRIENDS))}
    assert all(NOW - 120 * DAY < one.at < NOW for one in records)
    assert any(NOW - one.at < 3 * cast.HOUR for one in records)


def test_records_are_sound() -> None:
    records = past()
    for one in records:
        assert one.account.startswith(f"{one.provider}:") and one.attempts[-1].account == one.account
        assert 0 <= one.usage.reasoning <= one.usage.output
        assert one.usage.known == (one.outcome in (Outcome.OK, Outcome.CLIENT_GONE))
        assert (one.first_byte_ms or 0) <= one.total_ms + 0.001
    outcomes = Counter(one.outcome for one in records)
    assert outcomes[Outcome.OK] > 0.9 * len(records) and len(outcomes) == 5
    assert any(len(one.attempts) == 2 for one in records)


def test_a_conversation_stays_on_its_account_and_grows() -> None:
    sessions: dict[str, list[UsageRecord]] = defaultdict(list)
    for one in past():
        if one.outcome == Outcome.OK:
            sessions[one.session].append(one)
    for turns in sessions.values():
        assert len({one.account for one in turns}) == 1
        reads = [one.usage.cache_read for one in turns]
        assert all(before < after for before, after in itertools.pairwise(reads))


def test_decisions_tell_why_an_account_was_chosen() -> None:
    turns: dict[str, int] = Counter()
    for one in past():
        decision = one.decision
        if one.outcome == Outcome.EXHAUSTED:
            assert decision["account"] is None and decision["retry_at"] > one.at
        else:
            assert decision["account"] == decision["candidates"][0]["account"] == one.account
            assert decision["reason"] == ("pinned" if turns[one.session] else "best")
            scores = [row["score"] for row in decision["candidates"]]
            assert scores[0] == max(scores)
        turns[one.session] += 1


def test_nearly_every_model_has_a_price() -> None:
    prices = Prices({}, {})
    unknown = {model for models in cast.MODELS.values() for model in models if prices.find(model) is None}
    assert unknown <= set(cast.COMPATIBLE_MODELS)


def test_quota_fills_up_to_what_it_is_now_and_starts_anew_at_resets() -> None:
    seen = list(fillings("claude:a", {18_000: (40.0, NOW + 9_000)}, now=NOW, days=2))
    assert len(seen) > 90 and all(0 <= one.used_percent <= 100 for one in seen)
    assert abs(seen[-1].used_percent - 40) < 5
    for before, after in itertools.pairwise(seen):
        assert after.observed_at - before.observed_at == 1800
        if before.resets_at == after.resets_at:
            assert after.used_percent >= before.used_percent
        else:
            assert before.resets_at is not None and after.observed_at > before.resets_at - 1


def test_the_cast_has_every_kind_of_account() -> None:
    cast_now = cast.accounts(NOW, "http://fake")
    assert {one.provider for one in cast_now} == set(ACCOUNTS)
    assert {cast.RESTING, cast.EXHAUSTED, cast.SIGNED_OUT} <= {one.id for one in cast_now}
    assert {one.kind for one in cast_now} == set(CredentialKind) - {CredentialKind.SERVICE_ACCOUNT}
