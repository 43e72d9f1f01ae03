"""Rows of accounts and of use for tests that look at a few fields of them."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.accounts import StateActor
from pool_server.accounts.describe import AccountBrief, AccountRow, SharingRow
from pool_server.core.enums import AccountState, CredentialKind, Provider
from pool_server.ledger.rollups.sums import Sums
from pool_server.ledger.rollups.usage_sums import UsageSums

_NOTHING = Sums().describe()
_BRIEF = AccountBrief(
    id="claude:work",
    provider=Provider.CLAUDE,
    kind=CredentialKind.OAUTH,
    plan=None,
    label="",
    state=AccountState.READY,
    message="",
    expires_at=None,
    can_refresh=True,
    priority=100,
    owner="",
    disabled=False,
    locked=False,
)
_ROW = AccountRow(
    **msgspec.structs.asdict(_BRIEF),
    reason=None,
    set_by=StateActor.FILE,
    since=None,
    windows=[],
    cooldown_until=None,
    unreachable_until=None,
    rests=[],
    in_flight=0,
    admin_key=False,
    sign_in_ends=None,
    served_at=None,
    last_fault=None,
    latency_ms=None,
    weight=1.0,
    reserve=0.0,
    score=None,
    terms={},
    refusal=None,
    until=None,
    proxy="",
    hosts=[],
    owner_id="",
    file="claude_work.json",
    models=[],
    people=None,
    groups=None,
    sharing=SharingRow(True, None, [], {}),
    unsaved=False,
    next_poll=None,
    next_refresh=None,
)


def account_row(**more: Any) -> AccountRow:
    """A subscription that is well, but for what is given."""
    return msgspec.structs.replace(_ROW, **more)


def account_brief(**more: Any) -> AccountBrief:
    return msgspec.structs.replace(_BRIEF, **more)


def usage_sums(**more: Any) -> UsageSums:
    """No use at all, but for what is given."""
    return msgspec.structs.replace(_NOTHING, **more)
