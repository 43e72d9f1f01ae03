"""An owner's terms and withdrawal in a pool of two workers: they hold for both, and through `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from pool_server.core.settings import Choosing, PoolUsers
from tests.fakes import FakeProviders, fake_settings, key_account, plays
from tests.process import PoolProcess, until
from tests.test_workers import ADMIN, COUNTED, Pair

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/task").exists(), reason="tells workers apart by what /proc says of their sockets"
    ),
]


def served_by(pair: Pair, key: str) -> list[str]:
    """The account that serves a new conversation, by each worker; the status where none does."""
    found = []
    for number, line in enumerate((pair.a, pair.b)):
        pair.fakes.calls.clear()
        status, _ = pair.ask(line, session=f"{number}-{os.urandom(4).hex()}", key=key)
        made = pair.fakes.made()
        found.append(str(made[0].account) if status == 200 else str(status))
    return found


def withdraw(pool: PoolProcess, key: str, account: str) -> None:
    """As its owner does in a browser."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar := CookieJar()))
    body = json.dumps({"key": key}).encode()
    browser.open(urllib.request.Request(f"{pool.url}/api/friend/login", body, {"Content-Type": "application/json"}))
    browser.open(f"{pool.url}/api/me").read()
    token = {one.name: one.value or "" for one in jar}["_xsrf"]
    asked = urllib.request.Request(f"{pool.url}/api/accounts/{account}", method="DELETE")
    asked.add_header("X-XSRFToken", token)
    assert browser.open(asked).status == 200


def kill_one(pair: Pair) -> None:
    """Kill a worker as the kernel would; another one takes its place."""
    os.kill(pair.pids[1], signal.SIGKILL)
    pair.pids = until(
        lambda: len(found := pair.pool.children()) == 2 and found != pair.pids and found, "another worker"
    )
    pair.redial()


def test_terms_hold_in_both_workers_and_through_a_kill(tmp_path: Path) -> None:
    settings_of = {"friend_code": "swim", "pool_users": PoolUsers(admin_password=ADMIN), "choosing": Choosing(wait_s=0)}
    with FakeProviders([key_account("claude:ada"), key_account("claude:pool")]) as fakes:
        settings = fake_settings(tmp_path, fakes, **settings_of)
        for name in fakes.accounts:
            fakes.always(name, plays.ok(COUNTED))
        with PoolProcess(tmp_path, settings, "--workers", "2") as pool:
            pair = Pair(pool, fakes)
            ada = pair.key
            bob = str(pair.admin("POST", "/admin/pool-users", {"name": "Bob"})[1]["key"])
            terms = {"owner": pair.user, "people": [], "terms": {"hours": ["00:00-24:00"]}}
            assert pair.admin("PATCH", "/admin/accounts/claude:ada", terms)[0] == 200
            until(lambda: served_by(pair, ada) == ["claude:ada"] * 2, "one's own comes first in both")
            until(lambda: served_by(pair, bob) == ["claude:pool"] * 2, "what is not shared serves nobody else")
            kill_one(pair)
            assert served_by(pair, bob) == ["claude:pool"] * 2
            assert served_by(pair, ada) == ["claude:ada"] * 2
            pair.admin("POST", "/admin/accounts/claude:pool/disable", {})
            until(lambda: "claude:pool" not in served_by(pair, bob), "the pool's own is off")
            assert not {"claude:ada", "claude:pool"} & set(served_by(pair, bob)), "rather nobody than a broken term"
            secret = fakes.accounts["claude:ada"].access
            assert secret in (tmp_path / "pool/claude_ada.json").read_text()
            withdraw(pool, ada, "claude:ada")
            assert "claude:ada" not in served_by(pair, ada), "from that moment on, in both"
            os.kill(pool.process.pid, signal.SIGKILL)
            pool.wait()
            pair.close()
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert kept == [], "its credential is nowhere"
        with PoolProcess(tmp_path, settings, "--workers", "2") as pool:
            status, _ = pool.call("POST", "/v1/messages", {"model": "x"}, Authorization=f"Bearer {ada}")
            assert status != 200
            fakes.calls.clear()
            rows = pool.call("GET", "/admin/accounts", Authorization=f"Bearer {ADMIN}")[1]["accounts"]
            assert [row["id"] for row in rows] == ["claude:pool"]
