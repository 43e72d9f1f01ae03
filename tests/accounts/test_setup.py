"""An account's one-time set-up: before its first request, once, in nobody's way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import OnboardingError, onboarding
from pool_server.accounts.onboarding import RETRY_S
from pool_server.core.enums import FaultKind
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import UsagePolling
from tests.accounts.kit import HOUR, NOW, Line, Pool

FILE = {"access_token": "ya29.x", "refresh_token": "1//r", "expiry_date": int((NOW + HOUR) * 1000)}
LOADED = HttpAnswer(
    200, {}, json.dumps({"currentTier": {"id": "free-tier"}, "cloudaicompanionProject": "great-oak-7"}).encode()
)


def pool(tmp_path: Path, answer: Any = LOADED, **more: Any) -> Pool:
    line = Line(lambda _: answer) if isinstance(answer, HttpAnswer) else Line(answer)
    return Pool(tmp_path, {"gemini_g.json": {**FILE, "extra": 1}}, line=line, usage_polling=UsagePolling(0), **more)


def refusal(status: int, **error: Any) -> HttpAnswer:
    return HttpAnswer(status, {}, json.dumps({"error": {"code": status, "message": "no", **error}}).encode())


def gated() -> tuple[asyncio.Event, Any]:
    gate = asyncio.Event()

    async def slow(_: HttpRequest) -> HttpAnswer:
        await gate.wait()
        return LOADED

    return gate, slow


def test_the_background_sets_an_account_up_once(tmp_path: Path) -> None:
    p = pool(tmp_path)

    async def run() -> None:
        await p.accounts.start()
        while not p.accounts.credential("gemini:g").project:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)
        await p.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert len(p.line.sent) == 1 and "loadCodeAssist" in p.line.sent[0].url
    data = json.loads((p.folder / "gemini_g.json").read_text())
    assert (data["extra"], data["project_id"]) == (1, "great-oak-7")
    assert p.reload().unchanged == 1
    assert p.again().credential("gemini:g").project == "great-oak-7"


def test_requests_wait_for_one_set_up_together(tmp_path: Path) -> None:
    p = pool(tmp_path)

    async def run() -> set[str]:
        found = await asyncio.gather(*(p.accounts.complete("gemini:g") for _ in range(10)))
        assert (await p.accounts.complete("gemini:g")).project == "great-oak-7"
        return {credential.project for credential in found}

    assert asyncio.run(run()) == {"great-oak-7"}
    assert len(p.line.sent) == 1


def test_a_request_joins_the_set_up_of_the_background(tmp_path: Path) -> None:
    async def run() -> None:
        gate, slow = gated()
        p = pool(tmp_path, slow)
        await p.accounts.start()
        while not p.line.sent:
            await asyncio.sleep(0.002)
        waiting = asyncio.create_task(p.accounts.complete("gemini:g"))
        await asyncio.sleep(0)
        gate.set()
        assert (await waiting).project == "great-oak-7"
        await p.accounts.close()
        assert len(p.line.sent) == 1

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_client_that_leaves_stops_no_set_up(tmp_path: Path) -> None:
    async def run() -> None:
        gate, slow = gated()
        p = pool(tmp_path, slow)
        caller = asyncio.create_task(p.accounts.complete("gemini:g"))
        while not p.line.sent:
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        gate.set()
        assert (await p.accounts.complete("gemini:g")).project == "great-oak-7"
        assert len(p.line.sent) == 1
        await p.accounts.close()

    asyncio.run(run())


def test_an_ended_set_up_of_another_worker_is_found_in_the_file(tmp_path: Path) -> None:
    p = pool(tmp_path, workers=2)
    p.write("gemini_g.json", {**FILE, "project_id": "tall-elm-1"})
    assert asyncio.run(p.accounts.complete("gemini:g")).project == "tall-elm-1"
    assert not p.line.sent


def test_an_account_that_needs_none_is_not_asked(tmp_path: Path) -> None:
    p = Pool(tmp_path, {"gemini_k.json": {"api_key": "AIza-1"}})
    assert asyncio.run(p.accounts.complete("gemini:k")).api_key == "AIza-1"
    with pytest.raises(KeyError):
        asyncio.run(p.accounts.complete("gemini:nobody"))


@pytest.mark.parametrize(
    ("answer", "kind", "state"),
    [
        (refusal(503), FaultKind.TRANSIENT, "cooling"),
        (HttpAnswer(0, {}, b"", "connection refused"), FaultKind.NETWORK, "ready"),
        (refusal(403, details=[{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TOS_VIOLATION"}]),
         FaultKind.SUSPENDED, "suspended"),
        (HttpAnswer(200, {}, b'{"currentTier": {"id": "standard-tier"}}'), FaultKind.NEEDS_USER, "needs_login"),
    ],
)  # fmt: skip
def test_a_failed_set_up_is_the_accounts_fault(tmp_path: Path, answer: HttpAnswer, kind: FaultKind, state: str) -> None:
    p = pool(tmp_path, answer)
    with pytest.raises(OnboardingError) as failed:
        asyncio.run(p.accounts.complete("gemini:g"))
    assert failed.value.fault.kind is kind
    assert p.state("gemini:g") == state
    fault = p.accounts.describe("gemini:g").last_fault
    assert fault is not None and fault.kind is kind


def test_a_failed_set_up_is_tried_again_by_the_background(tmp_path: Path) -> None:
    p = pool(tmp_path, refusal(503))
    again = asyncio.run(p.accounts._background.setter.timed("gemini:g"))
    assert again is not None and again >= NOW + RETRY_S


def test_no_request_waits_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onboarding, "PATIENCE_S", 0.01)

    async def run() -> None:
        gate, slow = gated()
        p = pool(tmp_path, slow)
        with pytest.raises(OnboardingError) as failed:
            await p.accounts.complete("gemini:g")
        assert failed.value.fault.kind is FaultKind.TRANSIENT and p.state("gemini:g") == "cooling"
        gate.set()
        while not p.accounts.credential("gemini:g").project:
            await asyncio.sleep(0.002)
        await p.accounts.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_closing_ends_a_set_up_under_way(tmp_path: Path) -> None:
    async def run() -> None:
        _, slow = gated()
        p = pool(tmp_path, slow)
        caller = asyncio.create_task(p.accounts.complete("gemini:g"))
        while not p.line.sent:
            await asyncio.sleep(0)
        await p.accounts.close()
        with pytest.raises(OnboardingError):
            await caller

    asyncio.run(asyncio.wait_for(run(), 60))
