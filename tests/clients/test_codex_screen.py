"""The real Codex full-screen, driven by keys in a pseudo terminal: what the pool's user sees, over both transports."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool_server.core.enums import Outcome, Transport
from pool_server.core.models import Usage, UsageRecord
from tests.clients.cases import CODEX, QUIET, Case, Files, missing
from tests.clients.jail import why_not
from tests.clients.stage import Stage, stage
from tests.clients.terminal import Terminal
from tests.clients.test_killed import ANSWER, KILLS, Killer
from tests.fakes import Call, FakeAccount, Play, faults, plays

pytestmark = pytest.mark.clis

BY_SOCKET, BY_HTTP = CODEX[0], CODEX[1]
USAGE = Usage(input=37, cache_read=1100, output=11, known=True)
GOOD = plays.ok(USAGE, ANSWER)
PROMPT = "Ask Codex to do anything"
# How the machine confines commands is not what is tested.
UNCONFINED = 'sandbox_mode = "danger-full-access"\napproval_policy = "never"\n'
TROUBLE = re.compile(
    r"(?i)■|\b(error|retry\w*|reconnecting|overload\w*|fail\w*|unauthorized|rerouted|warnings?|capacity"
    r"|unavailable|disconnected|limit reached)\b"
)
_F2, _ESCAPE = "\x1bOQ", "\x1b"


@pytest.fixture(params=[BY_SOCKET, BY_HTTP], ids=["socket", "http"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    yield from _scene(request.param, tmp_path)


def _scene(case: Case, folder: Path) -> Iterator[Stage]:
    reason = missing(case.client) or why_not()
    if reason:
        pytest.skip(reason)
    temporary = folder / "temporary"  # Codex warns of a home within the folder for temporary files
    temporary.mkdir()

    def files(key: str) -> Files:
        return {name: UNCONFINED * name.endswith(".toml") + text for name, text in case.files(key).items()}

    used = dataclasses.replace(case, files=files, env=lambda key: {"TMPDIR": str(temporary)})
    with stage(used, folder, accounts=4) as made:
        for ident in made.fakes.accounts:
            made.fakes.always(ident, GOOD)
        yield made


def ready(screen: Terminal) -> None:
    """Waits for the composer; takes note of a missing sandbox helper on this machine, the one warning that is not
    about the pool."""
    screen.wait(PROMPT)
    screen.settle()
    if re.search(r"1 warning\b", screen.text):
        screen.type(_F2)
        screen.wait("Warnings · 1 of 1")
        assert "bubblewrap" in screen.text, screen.text
        screen.type(_ESCAPE)
        screen.settle()
        screen.seen.clear()


def ask(screen: Terminal, text: str) -> None:
    """One message and its answer."""
    screen.enter(text)
    screen.wait(rf"› {text}\n(.|\n)*• Hello from the fake\.\n(.|\n)*Worked for")
    screen.settle()


def leave(screen: Terminal) -> None:
    """Nothing on the screen spoke of trouble up to here; then the program is ended."""
    lines = [line for line in screen.seen if "Tip:" not in line]
    trouble = [line for line in lines if TROUBLE.search(line)]
    assert not trouble, "\n".join([*trouble, "-- all that was seen", *lines])
    screen.enter("/quit")
    assert screen.ended()


def conversations(scene: Stage) -> dict[str, list[UsageRecord]]:
    """The answers by conversation, those that Codex has about a title of its own left out."""
    titles = {text for call in scene.fakes.calls for text in _threads(call) if '"thread_title"' in text}
    sessions: dict[str, list[UsageRecord]] = {}
    for record in scene.answers():
        sessions.setdefault(record.session, []).append(record)
    assert len(sessions) >= len({json.loads(text)["session_id"] for text in titles})
    return sessions


def _threads(call: Call) -> list[str]:
    """What Codex says of the thread each of the call's turns belongs to."""
    said = [frame.get("client_metadata", {}).get("x-codex-turn-metadata", "") for frame in call.frames]
    return [*said, call.header("x-codex-turn-metadata") or ""]


def _about_title(call: Call) -> bool:
    return '"thread_title"' in _threads(call)[-2 if call.frames else -1]


def test_fresh_resumed_and_forked(scene: Stage) -> None:
    with scene.terminal(["codex"]) as screen:
        ready(screen)
        ask(screen, "say one")
        ask(screen, "say two")
        screen.enter("/status")
        screen.wait(r"5h limit: +\[.*\] \d+% left")
        screen.wait(r"Weekly limit: +\[.*\] \d+% left")
        leave(screen)
    with scene.terminal(["codex", "resume", "--last"]) as screen:
        screen.wait("say two")
        ready(screen)
        ask(screen, "say three")
        leave(screen)
    with scene.terminal(["codex", "fork", "--last"]) as screen:
        screen.wait("say three")
        ready(screen)
        ask(screen, "say four")
        ask(screen, "say five")
        leave(screen)
    kept = sorted((len(records), {one.account for one in records}) for records in conversations(scene).values())
    assert [count for count, _ in kept if count > 1] == [2, 3], "the fork is a conversation of its own"
    assert all(len(accounts) == 1 for _, accounts in kept)
    records = scene.answers()
    over = Transport.WEBSOCKET if scene.case.name == BY_SOCKET.name else Transport.SSE
    assert {(one.outcome, one.transport) for one in records} == {(Outcome.OK, over)}
    assert all(one.usage == USAGE for one in records)
    assert scene.upstream_answers() == len(records), "every model call is recorded once"


def test_all_its_features_find_an_answer(tmp_path: Path) -> None:
    """Apps, plugins, analytics: switched on as they are by default."""
    files = BY_SOCKET.files
    loud = dataclasses.replace(
        BY_SOCKET,
        files=lambda key: {name: text.replace(QUIET, "") for name, text in files(key).items()},
    )
    for scene in _scene(loud, tmp_path):
        with scene.terminal(["codex"]) as screen:
            ready(screen)
            ask(screen, "say one")
            leave(screen)


def _dying(scene: Stage, name: str) -> Callable[[FakeAccount, Call], Play | None]:
    """The account that is asked next, or that has asked for a tool, dies; thoughts about a title do not count."""
    kill, _, when = name.partition(", ")
    killer = Killer(scene, KILLS[kill], after_tool=when == "within a turn")

    def direct(account: FakeAccount, call: Call) -> Play | None:
        return None if _about_title(call) else killer(account, call)

    return direct


def _once(play: Play) -> Callable[[FakeAccount, Call], Play | None]:
    left = iter([play])
    return lambda account, call: None if _about_title(call) else next(left, None)


def _survive(scene: Stage, name: str) -> None:
    with scene.terminal(["codex"]) as screen:
        ready(screen)
        ask(screen, "say one")
        (first,) = {one.account for one in scene.answers()[:1]}
        scene.fakes.director = _dying(scene, name)
        ask(screen, "say two")
        good = [one for one in _longest(scene) if one.outcome == Outcome.OK]
        assert (good[0].account, good[-1].account == first) == (first, False), scene.records
        scene.fakes.director = None
        ask(screen, "say three")
        leave(screen)
    assert all(one.usage.known for one in _longest(scene) if one.outcome == Outcome.OK)


def _longest(scene: Stage) -> list[UsageRecord]:
    return max(conversations(scene).values(), key=len)


@pytest.mark.parametrize("scene", [BY_SOCKET], indirect=True, ids=["socket"])
@pytest.mark.parametrize(
    "name", ["429, between turns", "401, between turns", "429, within a turn", "cut, within a turn"]
)
def test_an_account_that_dies_is_not_noticed(scene: Stage, name: str) -> None:
    _survive(scene, name)


@pytest.mark.parametrize("scene", [BY_HTTP], indirect=True, ids=["http"])
def test_an_account_that_dies_over_http_is_not_noticed(scene: Stage) -> None:
    _survive(scene, "429, within a turn")


def test_an_answer_that_breaks_off_is_begun_again(tmp_path: Path) -> None:
    """Over a socket, when some of it is on the screen already: the rest comes from the second try."""
    for scene in _scene(BY_SOCKET, tmp_path):
        with scene.terminal(["codex"]) as screen:
            ready(screen)
            ask(screen, "say one")
            scene.fakes.director = _once(faults.in_stream(faults.responses_failed(), at=6).but(pieces=ANSWER))
            ask(screen, "say two")
            leave(screen)
        assert Outcome.CUT in {one.outcome for one in scene.records}
