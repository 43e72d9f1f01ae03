"""Each real CLI, two turns of one conversation: one account, exact counts, nothing odd on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool_server.core.enums import Outcome
from pool_server.core.models import Usage
from tests.clients.cases import CASES, Case, missing
from tests.clients.jail import why_not
from tests.clients.stage import stage
from tests.fakes import plays

pytestmark = pytest.mark.clis

USAGE = Usage(input=37, cache_read=1100, output=11, known=True)


@pytest.fixture(autouse=True)
def _possible(request: pytest.FixtureRequest) -> None:
    case: Case = request.getfixturevalue("case")
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_turns_stay_on_one_account(case: Case, tmp_path: Path) -> None:
    with stage(case, tmp_path) as scene:
        for ident in scene.fakes.accounts:
            scene.fakes.always(ident, plays.ok(USAGE, ["Hello", " from", " the fake."]))
        scene.turn(case.first)
        after_one = len(scene.answers())
        scene.turn(case.second)
        records = scene.answers()
        assert 0 < after_one < len(records)
        assert len({record.account for record in records}) == 1
        assert {record.outcome for record in records} == {Outcome.OK}
        assert all(record.usage == USAGE for record in records), [record.usage for record in records]
        assert scene.upstream_answers() == len(records), "every model call is recorded once"
        assert all(scene.key not in repr(call.headers) + call.raw_path for call in scene.fakes.calls)
