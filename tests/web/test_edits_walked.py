"""Each edit of an account, made at one worker: the other has it, and so has the next start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import PoolUsers, Settings
from tests.fakes import FakeProviders, fake_settings, key_account
from tests.process import PoolProcess, until
from tests.test_workers import ADMIN, Pair

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/task").exists(), reason="tells workers apart by what /proc says of their sockets"
    ),
]

ID = "claude:work"


def _proxy(row: dict[str, Any]) -> object:
    return row["proxy"].partition(":")[0]


EDITS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], object], object]] = {
    "label": ({"label": "Ours"}, lambda row: row["label"], "Ours"),
    "priority": ({"priority": 7}, lambda row: row["priority"], 7),
    "weight": ({"weight": 2.5}, lambda row: row["weight"], 2.5),
    "models": ({"models": ["claude-haiku-*"]}, lambda row: row["models"], ["claude-haiku-*"]),
    "models as text": ({"models": "claude-a, claude-b*"}, lambda row: row["models"], ["claude-a", "claude-b*"]),
    "http proxy": ({"proxy_url": "http://u:p@proxy.example:3128"}, _proxy, "proxy.example"),
    "https proxy": ({"proxy_url": "https://proxy.example"}, _proxy, "proxy.example"),
    "socks proxy": ({"proxy_url": "socks5://u:p@proxy.example:1080"}, _proxy, "proxy.example"),
    "plan": ({"plan_type": "max"}, lambda row: row["plan"], "max"),
    "owner": ({"owner": "Ada"}, lambda row: bool(row["owner"]), True),
    "people": ({"people": ["Ada"]}, lambda row: len(row["people"] or ()), 1),
    "nobody but the owner": ({"people": []}, lambda row: row["people"], []),
    "groups": ({"groups": ["family"]}, lambda row: row["groups"], ["family"]),
    "reserve": ({"reserve": 0.25}, lambda row: row["reserve"], 0.25),
    "disabled": ({"disabled": True}, lambda row: row["state"], "disabled"),
    "terms": ({"terms": {"share": 50, "hours": "22:00-07:00"}}, lambda row: row["sharing"]["hours"], ["22:00-07:00"]),
}  # fmt: skip
TOGETHER = ("label", "priority", "weight", "models", "socks proxy", "plan", "owner", "people", "groups", "reserve",
            "disabled", "terms")  # fmt: skip


def settings_of(folder: Path, fakes: FakeProviders) -> Settings:
    return fake_settings(folder, fakes, friend_code="swim", pool_users=PoolUsers(admin_password=ADMIN))


@contextmanager
def pool(settings: Settings, fakes: FakeProviders) -> Iterator[Pair]:
    with PoolProcess(Path(settings.pool_dir).parent, settings, "--workers", "2") as process:
        pair = Pair(process, fakes)
        yield pair
        pair.close()


def told(pair: Pair, what: Callable[[dict[str, Any]], object]) -> list[object]:
    """What each worker says of the account, None where it has none."""
    rows = [pair.admin("GET", "/admin/accounts", by=line)[1]["accounts"] for line in (pair.a, pair.b)]
    return [next((what(row) for row in found if row["id"] == ID), None) for found in rows]


def change(pair: Pair, asked: dict[str, Any]) -> None:
    status, said = pair.admin("PATCH", f"/admin/accounts/{ID}", asked, by=pair.b)
    assert status == 200, (asked, said)


def both(pair: Pair, name: str, wanted: object) -> None:
    what = EDITS[name][1]
    until(lambda: told(pair, what) == [wanted, wanted], f"{name} at both workers, not {told(pair, what)}", within_s=20)


def test_every_edit_reaches_the_other_worker_and_the_next_start(tmp_path: Path) -> None:
    with FakeProviders([key_account(ID)]) as fakes:
        settings = settings_of(tmp_path, fakes)
        with pool(settings, fakes) as pair:
            pair.admin("PATCH", f"/admin/pool-users/{pair.user}", {"groups": ["family"]})
            before = {name: told(pair, what)[0] for name, (_asked, what, _wanted) in EDITS.items()}
            for name, (asked, _what, wanted) in EDITS.items():
                change(pair, asked)
                both(pair, name, wanted)
                change(pair, {"disabled": False} if "disabled" in asked else dict.fromkeys(asked))
                both(pair, name, before[name])
            for name in TOGETHER:
                change(pair, EDITS[name][0])
            shown = str([pair.admin("GET", one) for one in ("/admin/accounts", "/admin/audit")])
            assert "u:p" not in shown, "a proxy's password is told to nobody"
        with pool(settings, fakes) as pair:
            for name in TOGETHER:
                both(pair, name, EDITS[name][2])


def test_removed_at_one_worker_and_brought_back_after_a_restart(tmp_path: Path) -> None:
    with FakeProviders([key_account(ID)]) as fakes:
        settings = settings_of(tmp_path, fakes)
        with pool(settings, fakes) as pair:
            change(pair, {"label": "Ours"})
            assert pair.admin("DELETE", f"/admin/accounts/{ID}", by=pair.b)[0] == 200
            both(pair, "label", None)
        with pool(settings, fakes) as pair:
            both(pair, "label", None)
            assert pair.admin("POST", f"/admin/accounts/{ID}/restore", {}, by=pair.b)[0] == 200
            both(pair, "label", "Ours")
