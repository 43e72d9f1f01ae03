"""What an owner gives is kept to the percent by two worker processes that are ended by kill -9 in between, and the
owner is served first and beyond it."""

from __future__ import annotations

import http.client
import json
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.settings import PoolUsers
from tests.fakes import FIVE_HOURS, Call, FakeAccount, FakeProviders, account, fake_settings, plays
from tests.process import PATIENCE_S, PoolProcess

ADMIN, STEP, SHARE = "deep end", 5.0, 50.0
BODY = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def ask(pool: PoolProcess, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
    """One call over a connection of its own, which either worker may take."""
    host, port = pool.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
        connection.request(method, path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_share_is_kept_exactly_over_kill_9(tmp_path: Path, workers: int) -> None:
    ada, own = account("claude:ada", used_5h=0.0, used_7d=0.0), account("claude:pool", used_5h=0.0, used_7d=0.0)
    with FakeProviders([ada, own]) as fakes:
        spent: list[str] = []

        def rises(asked: FakeAccount, call: Call) -> plays.Play | None:
            if asked is ada:
                spent.append(call.path)
                asked.windows[FIVE_HOURS].used_percent += STEP
            return None

        fakes.director = rises
        settings = fake_settings(tmp_path, fakes, workers=workers, friend_code="swim")
        settings = msgspec.structs.replace(settings, pool_users=PoolUsers(admin_password=ADMIN))
        keys, served = {}, {"ada": 0, "bob": 0}
        with PoolProcess(tmp_path, settings) as pool:
            for name in served:
                made = ask(pool, "POST", "/admin/pool-users", {"name": name}, ADMIN)[1]
                keys[name] = made["key"]
                if name == "ada":
                    terms = {"owner": made["id"], "terms": {"share": {"5h": SHARE}}}
                    assert ask(pool, "PATCH", "/admin/accounts/claude:ada", terms, ADMIN)[0] == 200
            assert ask(pool, "POST", "/admin/accounts/claude:pool/disable", {}, ADMIN)[0] == 200
            assert ask(pool, "POST", "/v1/messages", BODY, keys["bob"])[0] != 200, "nobody knows the window yet"
            assert ask(pool, "POST", "/v1/messages", BODY, keys["ada"])[0] == 200
            for _ in range(4):
                assert ask(pool, "POST", "/v1/messages", BODY, keys["bob"])[0] == 200
            pool.process.send_signal(signal.SIGKILL)
            pool.process.wait()
        with PoolProcess(tmp_path, settings) as pool:
            while ask(pool, "POST", "/v1/messages", BODY, keys["bob"])[0] == 200:
                served["bob"] += 1
                assert served["bob"] < 20
            assert ada.windows[FIVE_HOURS].used_percent == SHARE and len(spent) == SHARE / STEP
            pool.process.send_signal(signal.SIGKILL)
            pool.process.wait()
        with PoolProcess(tmp_path, settings) as pool:
            for _ in range(3):
                assert ask(pool, "POST", "/v1/messages", BODY, keys["bob"])[0] != 200
            assert ada.windows[FIVE_HOURS].used_percent == SHARE, "not one request more"
            assert ask(pool, "POST", "/admin/accounts/claude:pool/enable", {}, ADMIN)[0] == 200
            before = len(spent)
            for _ in range(4):
                assert ask(pool, "POST", "/v1/messages", BODY, keys["ada"])[0] == 200
                assert ask(pool, "POST", "/v1/messages", BODY, keys["bob"])[0] == 200
            assert len(spent) == before + 4, "her own account first, though the pool's has more; others on the pool's"
