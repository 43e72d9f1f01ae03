"""The server as a process: start, refusals, reload, workers, leaving."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest

from pool_server import ledger, users
from pool_server.app.listening import listen
from pool_server.app.server import Server, open_durable
from pool_server.core.models import UsageRecord
from pool_server.core.settings import PoolUsers, Settings
from pool_server.ledger import Ledger
from pool_server.storage import LEDGER, Store, StoreVersionError
from tests.fakes import FakeProviders, Gate, Play, account, fake_settings, key_account, write_pool
from tests.process import PATIENCE_S, PoolProcess, command, environment, to_toml, until

MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def plain(tmp_path: Path) -> Settings:
    return Settings(listen_addr="127.0.0.1:0", pool_dir=str(tmp_path / "pool"), data_dir=str(tmp_path / "data"))


def refused(folder: Path, settings: Settings, *args: str) -> tuple[int, str]:
    """Exit code and the one line of a server that does not start."""
    (folder / "other.toml").write_text(to_toml(settings))
    done = subprocess.run(
        command("serve", "--config", str(folder / "other.toml"), *args),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return done.returncode, lines[0]


class Stream:
    """A streamed message under way, read as it comes."""

    def __init__(self, pool: PoolProcess) -> None:
        host, port = pool.url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        body = json.dumps({**MESSAGE, "stream": True})
        self.connection.request("POST", "/v1/messages", body, {"Content-Type": "application/json"})

    def started(self) -> Stream:
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        return self

    def rest(self) -> str:
        try:
            return self.answer.read().decode()
        except (http.client.IncompleteRead, ConnectionError) as error:
            return getattr(error, "partial", b"").decode() + "[cut]"
        finally:
            self.connection.close()


def test_starts_says_so_in_one_line_and_leaves(tmp_path: Path, plain: Settings) -> None:
    write_pool(tmp_path / "pool", [key_account("claude:a")])
    with PoolProcess(tmp_path, plain) as pool:
        assert "local mode" in pool.banner
        assert "1 of 1 accounts ready" in pool.banner
        status, health = pool.call("GET", "/healthz")
        assert (status, health["status"], health["accounts"]) == (200, "ok", {"total": 1, "ready": 1})
        pool.signal(signal.SIGTERM)
        assert pool.wait() == 0
        assert pool.process.stdout is not None
        assert pool.process.stdout.read() == ""
    assert not (tmp_path / "data/.server.json").exists()


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path, plain: Settings) -> None:
    with PoolProcess(tmp_path, plain) as pool:
        code, line = refused(tmp_path, plain)
        assert code == 1
        assert f"pid {pool.process.pid}" in line
        assert pool.call("GET", "/healthz")[0] == 200


def test_a_taken_port_is_one_line(tmp_path: Path, plain: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = refused(tmp_path, plain, "--listen", address)
    assert code == 1
    assert f"cannot listen on {address}" in line


def test_local_mode_listens_on_loopback_only(tmp_path: Path, plain: Settings) -> None:
    code, line = refused(tmp_path, plain, "--listen", "0.0.0.0:0")
    assert code == 2
    assert "listen_addr" in line
    assert "loopback" in line


def test_a_damaged_ledger_is_one_line(tmp_path: Path, plain: Settings) -> None:
    (tmp_path / "data/ledger").mkdir(parents=True)
    (tmp_path / "data/ledger/data.mdb").write_bytes(b"not a store" * 1000)
    code, line = refused(tmp_path, plain)
    assert code == 1
    assert "ledger" in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_running_answer_finishes_while_the_server_leaves(tmp_path: Path, workers: str) -> None:
    gate = Gate()
    with FakeProviders([key_account("claude:a")]) as fakes:
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        with PoolProcess(tmp_path, fake_settings(tmp_path, fakes), "--workers", workers) as pool:
            stream = Stream(pool)
            assert gate.wait_reached()
            pool.signal(signal.SIGTERM)
            until(pool.refuses, "the listener is closed")
            assert pool.process.poll() is None
            gate.open()
            text = stream.started().rest()
            assert "message_stop" in text
            assert "[cut]" not in text
            assert pool.wait() == 0


def test_what_does_not_finish_in_time_is_ended_with_its_own_error(tmp_path: Path) -> None:
    gate = Gate()
    with FakeProviders([key_account("claude:a")]) as fakes:
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        with PoolProcess(tmp_path, fake_settings(tmp_path, fakes, drain_s=0.2)) as pool:
            stream = Stream(pool).started()
            assert gate.wait_reached()
            pool.signal(signal.SIGTERM)
            text = stream.rest()
            assert "event: error" in text
            assert "message_stop" not in text
            assert pool.wait() == 0
        gate.open()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    gate = Gate()
    with FakeProviders([key_account("claude:a")]) as fakes:
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        with PoolProcess(tmp_path, fake_settings(tmp_path, fakes, drain_s=600)) as pool:
            stream = Stream(pool)
            assert gate.wait_reached()
            pool.signal(signal.SIGTERM)
            until(pool.refuses, "the listener is closed")
            pool.signal(signal.SIGTERM)
            assert pool.wait(5) == 1
            stream.connection.close()
        gate.open()


def test_requests_on_their_way_when_it_leaves_are_served(tmp_path: Path) -> None:
    with FakeProviders([account("claude:a")]) as fakes, PoolProcess(tmp_path, fake_settings(tmp_path, fakes)) as pool:
        host, port = pool.url.removeprefix("http://").split(":")
        asking = [http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S) for _ in range(4)]
        kept = asking[0]
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
        pool.signal(signal.SIGSTOP)
        for one in asking:
            one.request("POST", "/v1/messages", json.dumps(MESSAGE), {"Content-Type": "application/json"})
        pool.signal(signal.SIGTERM)
        pool.signal(signal.SIGCONT)
        answers = [one.getresponse() for one in asking]
        assert [(answer.status, json.loads(answer.read())["type"]) for answer in answers] == [(200, "message")] * 4
        assert pool.wait() == 0


def test_health_says_that_the_server_leaves(tmp_path: Path) -> None:
    gate = Gate()
    with FakeProviders([key_account("claude:a")]) as fakes:
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        with PoolProcess(tmp_path, fake_settings(tmp_path, fakes)) as pool:
            host, port = pool.url.removeprefix("http://").split(":")
            kept = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
            kept.request("GET", "/healthz")
            assert kept.getresponse().read()
            stream = Stream(pool)
            assert gate.wait_reached()
            pool.signal(signal.SIGTERM)
            until(pool.refuses, "the listener is closed")
            kept.request("GET", "/healthz")
            answer = kept.getresponse()
            assert (answer.status, json.loads(answer.read())["status"]) == (503, "draining")
            kept.close()
            gate.open()
            stream.started().rest()


def test_hangup_rereads_settings_and_accounts(tmp_path: Path, plain: Settings) -> None:
    with PoolProcess(tmp_path, plain) as pool:
        write_pool(tmp_path / "pool", [key_account("claude:new")])
        changed = msgspec.structs.replace(plain, friend_name="Anna's pool", workers=3)
        pool.config.write_text(to_toml(changed), encoding="utf-8")
        pool.signal(signal.SIGHUP)
        until(lambda: "Anna" in pool.call("GET", "/", Accept="text/html")[1], "the page shows the new name")
        assert pool.call("GET", "/admin/accounts")[1]["accounts"][0]["id"] == "claude:new"
        report = pool.call("POST", "/admin/reload", {})[1]
        assert (report["settings_error"], report["restart_needed"]) == ("", ["workers"])
        assert report["unchanged"] == 1


def test_debug_tells_each_exchange_in_one_line_without_secrets(tmp_path: Path) -> None:
    with FakeProviders([key_account("claude:a")]) as fakes:
        secret = fakes.accounts["claude:a"].access
        settings = fake_settings(tmp_path, fakes)
        with PoolProcess(tmp_path, settings) as pool:
            pool.call("POST", "/v1/messages", MESSAGE)
            assert "exchanges" not in pool.log()
            pool.config.write_text(to_toml(msgspec.structs.replace(settings, debug=True)), encoding="utf-8")
            pool.call("POST", "/admin/reload", {})
            pool.call("POST", "/v1/messages", MESSAGE)
            lines = [line for line in pool.log().splitlines() if "exchanges" in line]
            assert len(lines) == 1
            assert "messages claude-sonnet-4-5 on claude:a: 200 ok, 1 attempts" in lines[0]
            assert secret not in pool.log()


def test_a_mistake_at_reload_changes_nothing(tmp_path: Path, plain: Settings) -> None:
    with PoolProcess(tmp_path, plain) as pool:
        pool.config.write_text(to_toml(plain) + "max_attempts = 'x'\n", encoding="utf-8")
        status, report = pool.call("POST", "/admin/reload", {})
        assert status == 200
        assert 'max_attempts = "x": must be a whole number' in report["settings_error"]
        assert pool.call("GET", "/healthz")[0] == 200


def test_reload_cannot_open_an_unlocked_pool_to_the_world(tmp_path: Path, plain: Settings) -> None:
    door = msgspec.structs.replace(plain, listen_addr="0.0.0.0:0", pool_users=PoolUsers(admin_password="secret"))
    with PoolProcess(tmp_path, door) as pool:
        pool.url = pool.url.replace("0.0.0.0", "127.0.0.1")
        pool.config.write_text(to_toml(msgspec.structs.replace(door, pool_users=PoolUsers())), encoding="utf-8")
        report = pool.call("POST", "/admin/reload", {}, Authorization="Bearer secret")[1]
        assert "loopback" in report["settings_error"]
        assert pool.call("GET", "/admin/accounts")[0] == 401


def alive(pid: int) -> bool:
    try:
        return not Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].startswith(" Z")
    except OSError:
        return False


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


@linux
def test_a_dead_worker_is_started_again(tmp_path: Path, plain: Settings) -> None:
    with PoolProcess(tmp_path, plain, "--workers", "2") as pool:
        first, second = until(lambda: len(found := pool.children()) == 2 and found, "two workers")
        os.kill(first, signal.SIGKILL)
        fresh = until(lambda: len(found := pool.children()) == 2 and first not in found and found, "a new worker")
        assert second in fresh
        until(lambda: pool.call("GET", "/healthz")[0] == 200, "it serves")
        pool.signal(signal.SIGTERM)
        assert pool.wait() == 0
        assert not any(alive(pid) for pid in fresh)


@linux
def test_workers_do_not_outlive_their_supervisor(tmp_path: Path, plain: Settings) -> None:
    with PoolProcess(tmp_path, plain, "--workers", "2") as pool:
        workers = until(lambda: len(found := pool.children()) == 2 and found, "two workers")
        pool.signal(signal.SIGKILL)
        pool.wait()
        until(lambda: not any(alive(pid) for pid in workers), "the workers have left")


@linux
@pytest.mark.parametrize("workers_first", [True, False])
def test_workers_that_are_told_several_times_let_answers_finish(tmp_path: Path, workers_first: bool) -> None:
    """A service manager tells every process of the service, and the supervisor tells its workers too."""
    gate = Gate()
    with FakeProviders([key_account("claude:a")]) as fakes:
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        with PoolProcess(tmp_path, fake_settings(tmp_path, fakes), "--workers", "2") as pool:
            workers = until(lambda: len(found := pool.children()) == 2 and found, "two workers")
            stream = Stream(pool).started()
            assert gate.wait_reached()
            for pid in [*workers, pool.process.pid] if workers_first else [pool.process.pid, *workers]:
                os.kill(pid, signal.SIGTERM)
            until(pool.refuses, "the listener is closed")
            gate.open()
            assert "message_stop" in stream.rest()
            assert pool.wait() == 0


@linux
def test_a_reload_reaches_every_worker(tmp_path: Path, plain: Settings) -> None:
    with PoolProcess(tmp_path, plain, "--workers", "2") as pool:
        until(lambda: len(pool.children()) == 2, "two workers")
        pool.config.write_text(to_toml(msgspec.structs.replace(plain, friend_name="Anna")), encoding="utf-8")
        pool.call("POST", "/admin/reload", {})

        def everywhere() -> bool:
            return all("Anna" in pool.call("GET", "/", Accept="text/html")[1] for _ in range(20))

        until(everywhere, "both workers show the new name")


def test_two_workers_serve_one_pool(tmp_path: Path) -> None:
    with FakeProviders([account("claude:a"), account("claude:b")]) as fakes:
        with PoolProcess(tmp_path, fake_settings(tmp_path, fakes), "--workers", "2") as pool:
            for _ in range(8):
                status, answer = pool.call("POST", "/v1/messages", MESSAGE)
                assert (status, answer["type"]) == (200, "message")
        assert len(fakes.made()) == 8


def test_a_server_in_this_process_leaves_nothing_behind(tmp_path: Path) -> None:
    async def once() -> set[str]:
        async with FakeProviders([account("claude:a")]) as fakes:
            settings = fake_settings(tmp_path, fakes)
            before = {task.get_name() for task in asyncio.all_tasks()}
            server = Server(settings)
            await server.start(listen("127.0.0.1", 0, friends_mode=False))
            assert server.accounts.ready() == (1, 1)
            assert server.ledger.on_hours == [server.accounts.learn_demand]
            await server.drain()
            return {task.get_name() for task in asyncio.all_tasks()} - before

    assert asyncio.run(once()) == set()


def test_a_ledger_of_the_format_before_is_taken_over_and_not_given_back(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    tables = (*ledger.TABLES, *users.LEDGER_TABLES)
    old = Store.open(folder / LEDGER, tables=tables, durable=True, version=1)
    Ledger(old, Settings()).load([usage_record("r1"), usage_record("r2")])
    old.close()
    durable = open_durable(folder)
    assert Ledger(durable, Settings()).queries.summary(0, 2e9).total.requests == 2
    durable.close()
    with pytest.raises(StoreVersionError):
        Store.open(folder / LEDGER, tables=tables, durable=True, version=1)


def usage_record(ident: str) -> UsageRecord:
    return UsageRecord(
        id=ident, at=1.79e9, user="u", provider="claude", account="claude:a", model="m", dialect="messages",
        transport="sse", operation="messages", status=200, outcome="ok",
    )  # fmt: skip
