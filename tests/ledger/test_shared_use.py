"""What owners give and take: every exchange is somebody's, once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool_server.ledger import SharedUses
from pool_server.ledger.rollups.sums import Sums

USERS, ACCOUNTS = ("ada", "bob", "cyd"), ("a:1", "b:2", "c:3")
MATRIX = st.dictionaries(st.tuples(st.sampled_from(USERS), st.sampled_from(ACCOUNTS)), st.integers(1, 1000))
OWNERS = st.dictionaries(st.sampled_from(ACCOUNTS), st.sampled_from((*USERS, "")))


def requests(count: int) -> Sums:
    sums = Sums()
    sums.n[0] = count
    return sums


@given(MATRIX, OWNERS)
def test_nothing_is_lost_and_what_is_given_is_taken(found: dict[tuple[str, str], int], owners: dict[str, str]) -> None:
    uses = SharedUses({pair: requests(count) for pair, count in found.items()}, owners)
    people = {user: uses.person(user).brief() for user in USERS}

    def total(part: str) -> int:
        return sum(getattr(row, part).requests for row in people.values())

    assert total("took") + total("own") == sum(found.values())
    of_the_pool = sum(count for (_, account), count in found.items() if not owners.get(account))
    assert total("gave") == total("took") - of_the_pool
    for account, owner in owners.items():
        if owner:
            row = uses.account(account).brief()
            others = sum(count for (user, one), count in found.items() if one == account and user != owner)
            assert row.gave.requests == others
            assert row.took.requests == people[owner].took.requests
