"""Two workers are one pool: what one of them learns, decides or counts holds for the other, and for none twice."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.models import Usage
from pool_server.core.settings import Choosing, PoolUsers
from tests.fakes import FakeProviders, Gate, account, fake_settings, faults, key_account, plays
from tests.gateway.stack import messages
from tests.process import PATIENCE_S, PoolProcess, until

ADMIN = "deep end"
HEARD_S = 1.0  # within which every worker is promised to know what another one changed
COUNTED = Usage(input=7, cache_read=30, output=5, known=True)

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="tells workers apart by what /proc says of their sockets"
)


class Line:
    """A connection that stays with the worker that accepted it."""

    def __init__(self, port: int) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self.http.connect()
        assert isinstance(self.http.sock, socket.socket)
        self.local_port = self.http.sock.getsockname()[1]
        self.port = port

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        self.begin(method, path, body, token)
        return self.end()

    def begin(self, method: str, path: str, body: Any = None, token: str = "") -> None:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        self.http.request(method, path, None if body is None else json.dumps(body), headers)

    def end(self) -> tuple[int, Any]:
        answer = self.http.getresponse()
        raw = answer.read()
        try:
            return answer.status, json.loads(raw)
        except ValueError:
            return answer.status, raw.decode()

    def worker(self, pids: list[int]) -> int:
        """The process that holds the other end; 0 while it is in nobody's hands."""
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            here, there = (int(end.partition(":")[2], 16) for end in fields[1:3])
            if (here, there) == (self.port, self.local_port):
                return next((pid for pid in pids if _holds(pid, f"socket:[{fields[9]}]")), 0)
        return 0


def _holds(pid: int, name: str) -> bool:
    try:
        return any(os.readlink(fd) == name for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


class Pair:
    """A pool of two workers; `a` and `b` are lines to one each, `key` is a friend's."""

    def __init__(self, pool: PoolProcess, fakes: FakeProviders) -> None:
        self.pool, self.fakes = pool, fakes
        self.port = int(pool.url.rpartition(":")[2])
        self.pids = until(lambda: len(found := self.pool.children()) == 2 and found, "two workers")
        self.a, self.b = until(self._lines, "a line to each worker")
        self.admin("POST", "/admin/pool-users", {"name": "Ada"})
        _, users = self.admin("GET", "/admin/pool-users")
        self.user = users["users"][0]["id"]
        self.key = self.new_key()

    def _lines(self) -> tuple[Line, Line] | None:
        found: dict[int, Line] = {}
        for line in [Line(self.port) for _ in range(8)]:
            line.call("GET", "/healthz")
            if found.setdefault(line.worker(self.pids), line) is not line:
                line.http.close()
        if 0 not in found and len(found) == 2:
            return found[self.pids[0]], found[self.pids[1]]
        for line in found.values():
            line.http.close()
        return None

    def admin(self, method: str, path: str, body: Any = None, *, by: Line | None = None) -> tuple[int, Any]:
        return (by or self.a).call(method, path, body, ADMIN)

    def new_key(self) -> str:
        return str(self.admin("POST", f"/admin/pool-users/{self.user}/rotate", {})[1]["key"])

    def limit(self, **limits: Any) -> None:
        self.admin("PATCH", f"/admin/pool-users/{self.user}", {"limits": limits})
        time.sleep(HEARD_S)

    def ask(self, line: Line, *, session: str = "s-1", key: str = "") -> tuple[int, Any]:
        return line.call("POST", "/v1/messages", messages(stream=False, session=session), key or self.key)

    def close(self) -> None:
        for line in (self.a, self.b):
            line.http.close()

    def redial(self) -> None:
        self.close()
        self.a, self.b = until(self._lines, "a line to each worker")

    def reset(self) -> None:
        self.redial()
        for one in self.fakes.accounts:
            self.admin("POST", f"/admin/accounts/{one}/reset", {})
            self.admin("POST", f"/admin/accounts/{one}/enable", {})
            self.fakes.scripts[one] = type(self.fakes.scripts[one])()
            self.fakes.always(one, plays.ok(COUNTED))
        self.admin("POST", f"/admin/pool-users/{self.user}/enable", {})
        self.admin("PATCH", f"/admin/pool-users/{self.user}", {"limits": {}})
        self.key = self.new_key()
        until(lambda: self.ask(self.a)[0] == self.ask(self.b)[0] == 200, "both know the key", within_s=HEARD_S)
        self.fakes.calls.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("workers")
    users, choosing = PoolUsers(admin_password=ADMIN), Choosing(wait_s=0)
    with FakeProviders([account("claude:one"), account("claude:two"), key_account("openai:k")]) as fakes:
        settings = fake_settings(folder, fakes, friend_code="swim", pool_users=users, choosing=choosing)
        with PoolProcess(folder, settings, "--workers", "2") as pool:
            pair = Pair(pool, fakes)
            yield pair
            pair.close()


@pytest.fixture
def pair(running: Pair) -> Pair:
    running.reset()
    return running


def test_a_conversation_stays_on_its_account_in_both(pair: Pair) -> None:
    for number in range(6):
        session = f"pin-{number}"
        for line in (pair.a, pair.b, pair.a):
            assert pair.ask(line, session=session)[0] == 200
        assert len({call.account for call in pair.fakes.made()}) == 1, session
        pair.fakes.calls.clear()


def test_an_account_that_rests_for_one_rests_for_the_other(pair: Pair) -> None:
    pair.fakes.then("claude:one", faults.claude_limit(time.time() + 3600))
    pair.admin("POST", "/admin/accounts/claude:two/disable", {})
    assert pair.ask(pair.a)[0] in (400, 429)
    pair.fakes.calls.clear()
    assert pair.ask(pair.b)[0] in (400, 429)
    assert pair.fakes.made() == [], "nobody asked the account that rests"
    rows = pair.admin("GET", "/admin/accounts", by=pair.b)[1]["accounts"]
    states = {row["id"]: row["state"] for row in rows}
    assert states["claude:one"] in ("cooling", "exhausted")
    assert states["claude:two"] == "disabled"


def test_limits_are_one_sum(pair: Pair) -> None:
    bob = pair.admin("POST", "/admin/pool-users", {"name": "Bob", "limits": {"requests_per_minute": 5}})[1]
    told = [pair.ask(line, key=bob["key"])[0] for _ in range(4) for line in (pair.a, pair.b)]
    assert told.count(200) == 5, told


def test_a_stream_in_one_fills_the_place_in_the_other(pair: Pair) -> None:
    pair.limit(concurrent=1)
    gate = Gate()
    for name in ("claude:one", "claude:two"):
        pair.fakes.then(name, plays.stall(gate))
    pair.a.begin("POST", "/v1/messages", messages(), pair.key)
    assert gate.wait_reached()
    status, told = pair.ask(pair.b)
    gate.open()
    assert status != 200, told
    assert "message_stop" in pair.a.end()[1]
    assert pair.ask(pair.b)[0] == 200, "the place is free again"


@pytest.mark.parametrize("how", ["disable", "rotate"])
def test_who_is_locked_out_by_one_is_out_of_the_other_within_a_second(pair: Pair, how: str) -> None:
    key = pair.key
    assert [pair.ask(line, key=key)[0] for line in (pair.a, pair.b)] == [200, 200]
    gate = Gate()
    for name in ("claude:one", "claude:two"):
        pair.fakes.then(name, plays.stall(gate))
    pair.a.begin("POST", "/v1/messages", messages(), key)
    assert gate.wait_reached()
    pair.admin("POST", f"/admin/pool-users/{pair.user}/{how}", {}, by=pair.b)
    began = time.monotonic()
    try:
        text = pair.a.end()[1]
    except (http.client.IncompleteRead, ConnectionError) as cut:
        text = getattr(cut, "partial", b"").decode()
    assert time.monotonic() - began < 1.0
    assert "message_stop" not in text
    gate.open()
    pair.redial()
    refused = 403 if how == "disable" else 401
    until(lambda: [pair.ask(line, key=key)[0] for line in (pair.a, pair.b)] == [refused] * 2, "refused by both")


def test_a_reload_by_one_is_a_reload_of_both(pair: Pair) -> None:
    new = pair.fakes.add(key_account("claude:new", priority=1))
    pair.fakes.always(new.id, plays.ok(COUNTED))
    new.write(pair.pool.folder / "pool")
    pair.admin("POST", "/admin/reload", {}, by=pair.b)

    def known() -> bool:
        rows = [pair.admin("GET", "/admin/accounts", by=line)[1]["accounts"] for line in (pair.a, pair.b)]
        return all("claude:new" in {row["id"] for row in found} for found in rows)

    until(known, "both know the new account", within_s=5)


def flood(pair: Pair, each: int, done: list[int]) -> None:
    """Requests on connections of their own until `each` were answered; `done` counts the whole answers."""
    for number in range(each):
        try:
            line = Line(pair.port)
            status, answer = pair.ask(line, session=f"flood-{number % 7}")
            if status == 200 and answer["type"] == "message":
                done.append(1)
            line.http.close()
        except (OSError, http.client.HTTPException):
            continue


KINDS = {"input": 7, "cache_read": 30, "output": 5}


def sums(pair: Pair) -> tuple[int, dict[str, int]]:
    """How many exchanges were answered, and their tokens, by the raw records, after a look whether the rollups say the
    same of all, those that were cut and estimated too. Each worker is asked, since each brings what it promised to the
    store before it answers."""
    pair.admin("GET", "/admin/requests?limit=1", by=pair.b)
    total = pair.admin("GET", f"/api/usage/summary?from={int(time.time()) - 86400}")[1]["total"]
    rows, cursor = [], ""
    while cursor is not None:
        told = pair.admin("GET", f"/admin/requests?limit=200&cursor={cursor}")[1]
        rows += told["requests"]
        cursor = told["cursor"]
    assert {name: total[name] for name in KINDS} == tokens(rows)
    ok = [row for row in rows if row["outcome"] == "ok"]
    return len(ok), tokens(ok)


def tokens(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row["usage"][name] for row in rows) for name in KINDS}


def test_sums_are_exact_under_load_and_after_a_kill(pair: Pair) -> None:
    pair.fakes.calls.clear()
    before, tokens_before = sums(pair)
    done: list[int] = []
    threads = [threading.Thread(target=flood, args=(pair, 40, done)) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(done) >= 60, "a good part is answered")
    os.kill(pair.b.worker(pair.pids), signal.SIGKILL)
    for thread in threads:
        thread.join()
    fresh = until(
        lambda: len(found := pair.pool.children()) == 2 and set(found) != set(pair.pids) and found, "two again"
    )
    pair.pids = fresh
    pair.redial()
    after, tokens_after = sums(pair)
    served, made = after - before, len([call for call in pair.fakes.made() if call.done])
    assert len(done) <= served <= made, "every whole answer is counted, and nothing that never was"
    assert served - len(done) <= 8, "only what died on its way back is counted and not seen"
    for name, each in KINDS.items():
        assert tokens_after[name] - tokens_before[name] == each * served, name


def counted(line: Line) -> float:
    """Exchanges that ended well, by what one worker says to Prometheus."""
    status, text = line.call("GET", "/metrics", token=ADMIN)
    assert status == 200 and "process=" not in text
    rows = [row for row in text.splitlines() if row.startswith("pool_exchanges_total{") and 'outcome="ok"' in row]
    return sum(float(row.split()[-1]) for row in rows)


def test_one_scrape_counts_for_both_and_for_a_worker_that_has_ended(pair: Pair) -> None:
    before = counted(pair.a)
    assert counted(pair.b) == before
    for line in (pair.a, pair.b, pair.b):
        assert pair.ask(line)[0] == 200
    until(lambda: counted(pair.a) == counted(pair.b) == before + 3, "both workers' exchanges in either scrape")
    os.kill(pair.b.worker(pair.pids), signal.SIGKILL)
    pair.pids = until(lambda: len(found := pair.pool.children()) == 2 and found != pair.pids and found, "a new worker")
    pair.redial()
    assert counted(pair.a) == counted(pair.b) == before + 3
