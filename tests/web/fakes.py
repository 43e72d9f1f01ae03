"""Stand-ins for the rooms below, with just what the pages ask of them."""

from __future__ import annotations

from typing import Any

from pool_server.users.model import LOCAL_USER, Principal


def account(now: float, **changes: Any) -> dict[str, Any]:
    row = {
        "id": "claude:work",
        "provider": "claude",
        "plan": "max",
        "state": "ready",
        "reason": "",
        "windows": [
            {
                "window": "5h",
                "seconds": 18000,
                "used_percent": 42.0,
                "resets_at": now + 7200,
                "source": "headers",
                "observed_at": now - 60,
            }
        ],
        "cooldown_until": None,
        "in_flight": 1,
        "expires_at": now + 3600,
        "last_fault": None,
        "priority": 100,
        "weight": 1.0,
        "owner": "",
    }
    return row | changes


class FakeAccounts:
    def __init__(self, now: float) -> None:
        rows = [account(now), account(now, id="codex:home", provider="codex", state="cooling", in_flight=0)]
        self.rows = {row["id"]: row for row in rows}
        self.calls: list[tuple[Any, ...]] = []
        self.now = now

    def ready(self) -> tuple[int, int]:
        return len(self.rows), sum(row["state"] == "ready" for row in self.rows.values())

    def describe(self, account_id: str) -> dict[str, Any]:
        return self.rows[account_id]

    def describe_all(self) -> list[dict[str, Any]]:
        return list(self.rows.values())

    def summary(self) -> list[dict[str, Any]]:
        return [
            {
                "provider": row["provider"],
                "accounts": {row["state"]: 1},
                "ready": int(row["state"] == "ready"),
                "total": 1,
                "room_percent": 58.0,
                "windows": row["windows"],
                "next_return": self.now + 6600 if row["state"] != "ready" else None,
                "in_flight": row["in_flight"],
            }
            for row in self.rows.values()
        ]

    def set_disabled(self, account_id: str, disabled: bool) -> None:
        self.rows[account_id]["state"] = "disabled" if disabled else "ready"

    async def refresh_now(self, account_id: str) -> None:
        self.calls.append(("refresh", self.rows[account_id]["id"]))

    async def test(self, account_id: str) -> dict[str, Any]:
        return {"ok": True, "status": 200, "account": self.rows[account_id]["id"]}

    def reset(self, account_id: str) -> None:
        self.calls.append(("reset", self.rows[account_id]["id"]))

    def set_priority(self, account_id: str, priority: int) -> None:
        self.rows[account_id]["priority"] = priority

    def lock(self, account_id: str | None) -> None:
        self.calls.append(("lock", account_id))


class FakeLedger:
    healthy = True


class FakeUsers:
    def local_principal(self) -> Principal:
        return Principal(LOCAL_USER, "you", admin=True, local=True)


async def reload_report() -> dict[str, Any]:
    return {"added": ["claude:new"], "changed": [], "removed": [], "unchanged": 2, "rejected": []}
