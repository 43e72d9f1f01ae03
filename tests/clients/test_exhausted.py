"""Every account is out: the real CLI stops, shows the reason and the time of return, and does not hammer; where one
returns within a minute it waits and goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_server.core.enums import Outcome, Provider
from pool_server.core.settings import Choosing
from tests.clients.cases import CLAUDE, CODEX, EACH_CLIENT, Case, missing
from tests.clients.jail import Ran, why_not
from tests.clients.stage import Stage, stage
from tests.fakes import Play, faults

pytestmark = pytest.mark.clis

REST_S = 7200
MOST_REQUESTS = 3  # a socket's attempt and its fall back to HTTP count as two
REASON = re.compile(r"(?i)out of room|usage limit|quota|rate limit|limit reached")
RETURN = re.compile(r"(?i)(again|resets?|returns?|back)\b[^\n]{0,40}?\d")


def out(provider: Provider) -> Play:
    return {
        Provider.CODEX: faults.codex_usage_limit(resets_in=REST_S),
        Provider.CLAUDE: faults.claude_limit(time.time() + REST_S),
        Provider.GEMINI: faults.gemini_exhausted(f"{REST_S}s"),
    }.get(provider, faults.retry_after(REST_S))


@pytest.fixture
def scene(case: Case, tmp_path: Path) -> Iterator[Stage]:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    with stage(case, tmp_path, accounts=2) as made:
        for one in made.fakes.accounts.values():
            made.fakes.always(one.id, out(one.provider))
        yield made


def asked(scene: Stage) -> int:
    return sum(one.outcome in (Outcome.EXHAUSTED, Outcome.DENIED) for one in scene.answers())


def shown(ran: Ran) -> str:
    return ran.out + ran.err


@pytest.mark.parametrize("case", EACH_CLIENT, ids=lambda case: case.name)
def test_an_empty_pool_is_told_once_and_not_hammered(scene: Stage) -> None:
    ran = scene.run(scene.case.first)
    assert REASON.search(shown(ran)), scene.told(ran)
    assert RETURN.search(shown(ran)), scene.told(ran)
    assert 1 <= asked(scene) <= MOST_REQUESTS, scene.told(ran)
    calls = scene.fakes.made()
    asked_for = [(call.account, call.path, call.json.get("model")) for call in calls if not call.frames]
    assert len(asked_for) == len(set(asked_for)), "each account was asked once for a model at most"
    before = scene.upstream_answers()
    scene.run(scene.case.first)
    assert scene.upstream_answers() == before, "whoever rests is not asked again"


@pytest.mark.parametrize(
    ("case", "play"),
    [(CODEX[0], faults.codex_usage_limit(resets_in=3)), (CLAUDE[0], faults.retry_after(3))],
    ids=["codex", "claude"],
)
def test_what_frees_within_a_minute_is_waited_for(case: Case, play: Play, tmp_path: Path) -> None:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    with stage(case, tmp_path, accounts=2, choosing=Choosing(wait_s=0)) as scene:
        for one in scene.fakes.accounts.values():
            scene.fakes.then(one.id, play)
        ran = scene.run(case.first)
        assert (ran.code, "Hello from" in ran.out) == (0, True), scene.told(ran)
        outcomes = [record.outcome for record in scene.answers()]
        assert Outcome.EXHAUSTED in outcomes and outcomes[-1] == Outcome.OK, scene.told(ran)
