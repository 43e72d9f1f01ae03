"""A request to an account whose one-time set-up is still wanted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pool_server.core.enums import Outcome
from tests.fakes import Gate, account, plays
from tests.gateway.stack import Stack, run

ASSIST: dict[str, Any] = {"model": "gemini-2.5-pro", "project": "mine", "request": {}}


def test_a_request_waits_for_the_set_up_of_its_account(tmp_path: Path) -> None:
    async def test() -> None:
        one, gate = account("gemini:one"), Gate()
        async with Stack(tmp_path, []) as stack:
            stack.fakes.add(one)
            stack.fakes.then(one.id, plays.slow_headers(gate), on="code_assist")
            one.write(Path(stack.settings.pool_dir))
            await stack.accounts.reload()
            asked = asyncio.create_task(stack.post("/v1internal:generateContent", ASSIST))
            await gate.reached()
            assert not stack.fakes.made()
            gate.open()
            assert (await asked)[0] == 200
            (call,) = stack.fakes.made()
            assert call.json["project"] == one.project
            (record,) = stack.records()
            assert record.outcome == Outcome.OK and len(record.attempts) == 1

    run(test)


def test_an_account_that_cannot_be_set_up_is_a_fault_and_another_serves(tmp_path: Path) -> None:
    async def test() -> None:
        one = account("gemini:one", priority=1)
        two = account("gemini:two", project_id="project-of-two")
        async with Stack(tmp_path, []) as stack:
            for each in (one, two):
                stack.fakes.add(each)
                each.write(Path(stack.settings.pool_dir))
            stack.fakes.always(one.id, plays.status(500, {"error": {"code": 500, "message": "no"}}), on="code_assist")
            await stack.accounts.reload()
            assert (await stack.post("/v1internal:generateContent", ASSIST))[0] == 200
            (call,) = stack.fakes.made()
            assert (call.account, call.json["project"]) == (two.id, "project-of-two")
            (record,) = stack.records()
            assert [attempt.account for attempt in record.attempts] == [one.id, two.id]
            assert record.attempts[0].fault

    run(test)
