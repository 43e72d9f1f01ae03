"""A refusal is the request's own once a second account has refused alike; one account is no second one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pool_server.accounts import Accounts
from pool_server.core.enums import FaultKind, Operation
from pool_server.core.models import OF_ACCOUNT, Fault
from pool_server.gateway.attempts.refusals import Refusals
from pool_server.providers.evidence.table import EVIDENCE, NextStep

KINDS = [kind for kind in FaultKind if EVIDENCE[kind].next is NextStep.SECOND_OPINION]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_account_twice_is_no_second_opinion(kind: FaultKind) -> None:
    acquitted: list[str] = []
    doubts = SimpleNamespace(doubt=lambda *_: None)
    told: Any = SimpleNamespace(
        acquit=lambda account, *_: acquitted.append(account), own_calls=doubts, fail=lambda *_: None
    )
    met = Refusals(cast(Accounts, told), Operation.MESSAGES)
    fault = Fault(kind, OF_ACCOUNT, message="no", status=403, code="x")
    assert not met.passes_on("claude:one", fault)
    met.weigh("claude:one", "t", fault, "m")
    assert not met.passes_on("claude:one", fault) and acquitted == []
    if met._doubts:  # what proves something at once waits for nobody
        assert met.passes_on("claude:two", fault) and acquitted == ["claude:one"]
