"""Claude Code's own calls around the model traffic, answered by the pool. Pure.

Most of them go to a fixed host of the vendor's and come here only where somebody redirected that host; the shapes
are those the CLI (2.1) reads.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from pool_server.gateway.emulation.quota_windows import FIVE_HOURS, WEEK, QuotaWindow
from pool_server.gateway.emulation.types import Json, LocalAnswer, answer
from pool_server.users import Principal

_NAMESPACE = uuid.UUID("6f6d1c8e-4b8a-5f0e-9d0f-0a5f2c1f7b11")  # names of the pool's own, not of any vendor
_WINDOWS = {"five_hour": FIVE_HOURS, "seven_day": WEEK}


def usage(room: Sequence[QuotaWindow]) -> LocalAnswer:
    """`/api/oauth/usage`: the friend's view, percent used 0-100 and RFC 3339 resets; unknown windows are null."""
    known = {one.seconds: one for one in room}
    said: Json = {name: _window(known.get(seconds)) for name, seconds in _WINDOWS.items()}
    return answer({**said, "seven_day_opus": None, "seven_day_sonnet": None, "extra_usage": None})


def _window(room: QuotaWindow | None) -> Json | None:
    if room is None:
        return None
    resets = None if room.resets_at is None else datetime.fromtimestamp(room.resets_at, UTC).isoformat()
    return {"utilization": round(min(100.0, room.used_percent), 1), "resets_at": resets}


def profile(principal: Principal) -> LocalAnswer:
    """`/api/oauth/profile`: the pool user, never an account's owner. Ids are stable for each user."""
    person = str(uuid.uuid5(_NAMESPACE, principal.user))
    account = {
        "uuid": person,
        "email": f"{person[:8]}@pool.invalid",
        "full_name": principal.name,
        "display_name": principal.name,
        "has_claude_max": True,
        "has_claude_pro": False,
    }
    organization = {
        "uuid": str(uuid.uuid5(_NAMESPACE, "pool")),
        "name": "Pool",
        "organization_type": "claude_max",
        "rate_limit_tier": "default_claude_max_20x",
        "billing_type": "none",
    }
    return answer({"account": account, "organization": organization})


def roles() -> LocalAnswer:
    return answer({"organization_role": "user", "workspace_role": None, "organization_name": "Pool"})
