"""The table of states, as one."""

from __future__ import annotations

import pytest

from pool_server.accounts.health.transitions import TRANSITIONS, AccountEvent, after
from pool_server.core.enums import AccountState as S

E = AccountEvent
EXPECTED = {
    #             quota        fault      full         low         room     rested   answered probe      lost
    S.READY:       (S.EXHAUSTED, S.COOLING, S.EXHAUSTED, S.DRAINING, None,    None,    None,    None,      None),
    S.DRAINING:    (S.EXHAUSTED, S.COOLING, S.EXHAUSTED, None,       S.READY, None,    None,    None,      None),
    S.COOLING:     (S.EXHAUSTED, None,      S.EXHAUSTED, None,       S.READY, S.READY, S.READY, S.PROBING, None),
    S.EXHAUSTED:   (None,        None,      None,        None,       S.READY, S.READY, S.READY, S.PROBING, None),
    S.PROBING:     (S.EXHAUSTED, S.COOLING, None,        None,       S.READY, S.READY, S.READY, None,  S.COOLING),
    S.NEEDS_LOGIN: (None,) * 9,
    S.SUSPENDED:   (None,) * 9,
}  # fmt: skip
COLUMNS = (E.QUOTA, E.FAULT, E.FULL, E.LOW, E.ROOM, E.RESTED, E.ANSWERED, E.PROBE, E.PROBE_LOST)


@pytest.mark.parametrize("state", list(EXPECTED))
def test_the_whole_table(state: S) -> None:
    for event, expected in zip(COLUMNS, EXPECTED[state], strict=True):
        assert after(state, event) is (expected or state), (state, event)


def test_a_dead_login_stops_every_state_but_a_suspended_one() -> None:
    for state in EXPECTED:
        assert after(state, E.LOGIN_LOST) is (S.SUSPENDED if state is S.SUSPENDED else S.NEEDS_LOGIN)
        assert after(state, E.STOPPED) is S.SUSPENDED


def test_a_new_login_or_the_operator_frees_every_state() -> None:
    for state in EXPECTED:
        assert after(state, E.NEW_LOGIN) is S.READY
        assert after(state, E.RESET) is S.READY


def test_the_table_covers_all_learnt_states_and_nothing_else() -> None:
    assert set(TRANSITIONS) == set(EXPECTED) == set(S) - {S.DISABLED}
