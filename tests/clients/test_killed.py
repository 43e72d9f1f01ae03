"""An account dies between two turns, or within one: the real CLI's user sees an answer and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool_server.core.enums import Outcome, Provider, Transport
from pool_server.demo.fake_upstream import refused_refresh
from tests.clients.cases import EACH_CLIENT, Case, missing
from tests.clients.jail import Ran, why_not
from tests.clients.stage import Stage, stage
from tests.fakes import Call, FakeAccount, Play, faults, plays

pytestmark = pytest.mark.clis

TROUBLE = re.compile(r"(?i)\b(error|retry\w*|reconnect\w*|overload\w*|fail\w*|unauthorized|rerouted|limit)\b")
# Codex says this of its own cache file when the run before ended within the blink in which it was being written.
OWN_NOISE = re.compile(r".*codex_models_manager::manager: failed to load models cache.*")
ANSWER = ["Hello", " from", " the fake."]
TOOLS = {
    "exec_command": {"cmd": "echo seen"},
    "Bash": {"command": "echo seen", "description": "say it"},
    "bash": {"command": "echo seen", "description": "say it"},
    "glob": {"pattern": "*.md"},
}
# Events that come before anything a client shows.
_BOOKKEEPING = {Provider.CODEX: 2, Provider.CLAUDE: 1}

Kill = Callable[[Stage, FakeAccount], Play]  # what happens to an account, and its answer from then on


def _play(play: Callable[[Provider], Play]) -> Kill:
    return lambda scene, account: play(account.provider)


def _out_of_quota(provider: Provider) -> Play:
    return {
        Provider.CODEX: faults.codex_usage_limit(resets_in=3600),
        Provider.CLAUDE: faults.claude_limit(time.time() + 3600),
        Provider.GEMINI: faults.gemini_exhausted(),
    }.get(provider, faults.insufficient_quota(429))


def _overloaded(provider: Provider) -> Play:
    """Inside a 200 stream, before anything a client shows."""
    return {
        Provider.CODEX: faults.in_stream(faults.responses_failed(), at=_BOOKKEEPING[Provider.CODEX]),
        Provider.CLAUDE: faults.in_stream(faults.messages_error(), at=_BOOKKEEPING[Provider.CLAUDE]),
        Provider.GEMINI: faults.in_stream(faults.gemini_error(), at=0),
    }.get(provider, faults.in_stream(faults.chat_error(), at=0))


def _signed_out(scene: Stage, account: FakeAccount) -> Play:
    """The token is no longer good and cannot be renewed."""
    account.revoke()
    status, body = refused_refresh(account.provider.value)
    scene.fakes.always(account.id, plays.status(status, body), on="token")
    return faults.unauthorized()


KILLS: dict[str, Kill] = {
    "429": _play(_out_of_quota),
    "401": _signed_out,
    "500": _play(lambda provider: faults.server_error()),
    "overload in 200": _play(_overloaded),
    "cut": _play(lambda provider: plays.cut(_BOOKKEEPING.get(provider, 0))),
}


class Killer:
    """The first account that is asked for an answer, or the first that has asked for a tool, dies by `kill`."""

    def __init__(self, scene: Stage, kill: Kill, *, after_tool: bool) -> None:
        self._scene, self._kill, self._after_tool = scene, kill, after_tool
        self.victim: str | None = None
        self.shot = False  # the victim was asked again and answered as a dead account does
        self._play: Play | None = None

    def __call__(self, account: FakeAccount, call: Call) -> Play | None:
        """The director of the fake providers. Calls that are not streams (routing to a model) are let pass."""
        if call.path.endswith(":generateContent"):
            return None
        if self.victim is None:
            if self._after_tool:
                return plays.ok(pieces=ANSWER).but(tools=TOOLS, asked=self._tool_asked)
            self.victim = account.id
        if account.id != self.victim:
            return None
        self._play = self._play or self._kill(self._scene, account)
        self.shot = True
        return self._play

    def _tool_asked(self, account: FakeAccount, call: Call) -> None:
        if self.victim is None:
            self.victim = account.id


@pytest.fixture
def scene(case: Case, tmp_path: Path) -> Iterator[Stage]:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    with stage(case, tmp_path, accounts=4) as made:
        for ident in made.fakes.accounts:
            made.fakes.always(ident, plays.ok(pieces=ANSWER))
        yield made


def clean(scene: Stage, ran: Ran) -> None:
    """Nothing on the screen speaks of trouble."""
    found = TROUBLE.search(OWN_NOISE.sub("", ran.out + ran.err))
    assert found is None, f"{found and found.group()!r}\n{scene.told(ran)}"


def survive(scene: Stage, kill: Kill, argv: list[str], *, after_tool: bool) -> None:
    """One turn in which an account dies: a clean screen, an answer of another account, every answer recorded."""
    before = len(scene.answers())
    killer = scene.fakes.director = Killer(scene, kill, after_tool=after_tool)
    ran = scene.turn(argv)
    scene.fakes.director = None
    clean(scene, ran)
    fresh = scene.answers()[before:]
    last = next(one for one in reversed(fresh) if one.outcome == Outcome.OK)
    assert killer.shot and last.account != killer.victim, scene.told(ran)
    # A socket whose account is gone asks the CLI to send the conversation again, which it does unseen.
    again = [one for one in fresh if one.transport == Transport.WEBSOCKET and one.outcome == Outcome.UPSTREAM]
    assert {one.outcome for one in fresh if one not in again} == {Outcome.OK}, scene.told(ran)
    assert all(one.usage.known for one in fresh if one not in again)


@pytest.mark.parametrize("name", KILLS)
@pytest.mark.parametrize("case", EACH_CLIENT, ids=lambda case: case.name)
def test_an_account_that_dies_is_not_noticed(scene: Stage, name: str) -> None:
    """First within a turn, while a tool the model asked for runs; then the next account, between two turns."""
    survive(scene, KILLS[name], scene.case.first, after_tool=True)
    survive(scene, KILLS[name], scene.case.second, after_tool=False)


@pytest.mark.parametrize("case", [one for one in EACH_CLIENT if not one.keys_only], ids=lambda case: case.name)
def test_a_token_that_ends_between_turns_is_renewed(scene: Stage) -> None:
    clean(scene, scene.turn(scene.case.first))
    used = scene.fakes.accounts[scene.answers()[-1].account]
    used.revoke()
    clean(scene, scene.turn(scene.case.second))
    assert {one.account for one in scene.answers()} == {used.id}
    assert used.generation == 1, "one refresh"
