"""An upgrade hands the sockets and the data folder on: nothing is refused or cut, and what fails changes nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server import ledger
from pool_server.accounts.replication import Replication
from pool_server.app import run_file
from pool_server.app.lifecycle import service_manager
from pool_server.app.lifecycle.successor import VARIABLE, handed_over
from pool_server.app.server import can_stand_beside, open_durable, open_stores
from pool_server.core.enums import AccountState
from pool_server.core.settings import ConfigError, PoolUsers, Settings
from pool_server.storage import StoreError, StoreVersionError, adopt_lock, lock_folder
from pool_server.storage.write_behind import WriteBehind
from tests.accounts.kit import entry
from tests.fakes import FakeProviders, Gate, Play, account, fake_settings, faults, key_account
from tests.process import PATIENCE_S, PoolProcess, command, environment, until
from tests.test_server import MESSAGE, Stream, alive

LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


class Upgraded:
    """A pool and whoever has taken over from it."""

    def __init__(self, pool: PoolProcess) -> None:
        self.pool = pool
        self.data = Path(pool.settings.data_dir)

    @property
    def pid(self) -> int:
        return int(run_file.read(self.data).get("pid", 0))

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        argv = command("upgrade", "--config", str(self.pool.config), *args)
        env = environment()
        return subprocess.run(argv, cwd=self.pool.folder, env=env, capture_output=True, text=True, check=False)

    def end(self) -> None:
        pid = self.pid
        if pid and alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            until(lambda: not alive(pid), "the last server has ended")


@contextlib.contextmanager
def served(folder: Path, fakes: FakeProviders, workers: str, **changes: Any) -> Iterator[Upgraded]:
    with PoolProcess(folder, fake_settings(folder, fakes, **changes), "--workers", workers) as pool:
        upgraded = Upgraded(pool)
        try:
            yield upgraded
        finally:
            upgraded.end()


def message(line: http.client.HTTPConnection) -> http.client.HTTPResponse:
    line.request("POST", "/v1/messages", json.dumps(MESSAGE), {"Content-Type": "application/json"})
    return line.getresponse()


@LINUX
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_new_server_takes_what_is_new_and_the_old_one_ends_what_it_began(tmp_path: Path, workers: str) -> None:
    gate = Gate()
    with FakeProviders([key_account("claude:a")]) as fakes, served(tmp_path, fakes, workers) as up:
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        old, stream = up.pid, Stream(up.pool)
        assert gate.wait_reached()
        kept = http.client.HTTPConnection(up.pool.url.removeprefix("http://"), timeout=PATIENCE_S)
        assert message(kept).read()
        done = up.command()
        assert done.returncode == 0, (done.stderr, up.pool.log())
        new = up.pid
        assert new != old and str(new) in done.stdout
        assert up.pool.call("POST", "/v1/messages", MESSAGE)[0] == 200
        last = message(kept)
        assert (last.status, last.headers["Connection"]) == (200, "close"), "one answer more, from the old server"
        last.read()
        assert up.pool.process.poll() is None, "the old one waits for its stream"
        gate.open()
        text = stream.started().rest()
        assert "message_stop" in text and "[cut]" not in text
        assert up.pool.wait() == 0
        assert up.pid == new and alive(new), "the note of the new one stays"
        assert up.pool.call("GET", "/healthz")[0] == 200

        def booked() -> int:
            status, told = up.pool.call("GET", "/admin/requests")
            assert status == 200
            return len(told["requests"])

        # Another worker than the one that answers may have the last exchange still to settle.
        until(lambda: booked() >= 4, "both servers' exchanges in one ledger")
        assert booked() == 4
        with pytest.raises(StoreError):
            lock_folder(up.data)


@LINUX
@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_the_new_server_learns_is_not_undone_by_the_end_of_the_old_one(tmp_path: Path, workers: str) -> None:
    gate = Gate()
    with FakeProviders([account("claude:a")]) as fakes, served(tmp_path, fakes, workers) as up:
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        stream = Stream(up.pool)
        assert gate.wait_reached()
        assert up.command().returncode == 0
        fakes.always("claude:a", faults.claude_limit(time.time() + 3600))
        assert up.pool.call("POST", "/v1/messages", MESSAGE)[0] == 429
        gate.open()
        assert "message_stop" in stream.started().rest()
        assert up.pool.wait() == 0
        up.end()
        state, durable = open_stores(up.data)
        known = entry("a")
        assert Replication(WriteBehind(state, time.time), many=False).load(known)
        state.close()
        durable.close()
        assert known.health.state is AccountState.EXHAUSTED


@LINUX
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_version_that_does_not_start_leaves_the_old_one_serving(tmp_path: Path, workers: str) -> None:
    with FakeProviders([key_account("claude:a")]) as fakes, served(tmp_path, fakes, workers) as up:
        old, good = up.pid, up.pool.config.read_text()
        up.pool.config.write_text("no_such_setting = 1\n" + good)
        done = subprocess.run(
            command("upgrade", "--data", str(up.data)), env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and "this server goes on" in done.stderr, done.stderr
        assert up.pid == old
        assert up.pool.call("POST", "/v1/messages", MESSAGE)[0] == 200
        up.pool.config.write_text(good)
        both = [threading.Thread(target=up.command) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert up.pid != old, "two at once are one upgrade"
        until(lambda: not alive(old), "the old one has ended")
        assert up.pool.call("POST", "/v1/messages", MESSAGE)[0] == 200


@LINUX
def test_a_server_told_to_stop_while_a_new_one_starts_takes_it_along(tmp_path: Path) -> None:
    with FakeProviders([key_account("claude:a")]) as fakes, served(tmp_path, fakes, "1") as up:
        os.kill(up.pid, signal.SIGUSR2)
        until(lambda: run_file.read(up.data)["upgrade"] == "starting", "a new one starts")
        up.pool.signal(signal.SIGTERM)
        assert up.pool.wait() == 0
        until(up.pool.refuses, "nobody listens")
        lock_folder(up.data).close()


def test_an_upgrade_without_a_server_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        command("upgrade", "--data", str(tmp_path)), env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


def test_a_store_of_another_format_is_not_brought_forward_beside_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for store in open_stores(tmp_path):
        store.close()
    can_stand_beside(tmp_path)
    monkeypatch.setattr(ledger, "FORMAT", ledger.FORMAT + 1)
    can_stand_beside(tmp_path)  # a release that only adds: the one before can go on, and come back
    monkeypatch.setattr(ledger, "USABLE_FROM", ledger.USABLE_FROM + 1)
    with pytest.raises(StoreVersionError, match="stop the running server"):
        can_stand_beside(tmp_path)
    monkeypatch.undo()
    open_durable(tmp_path).close()


def test_a_hold_is_taken_over_and_only_of_the_same_folder(tmp_path: Path) -> None:
    first = lock_folder(tmp_path / "a")
    second = adopt_lock(tmp_path / "a", os.dup(first.fileno()))
    first.close()
    with pytest.raises(StoreError, match="another pool-server"):
        lock_folder(tmp_path / "a")
    lock_folder(tmp_path / "b").close()
    with pytest.raises(StoreError, match="another data folder"):
        adopt_lock(tmp_path / "b", second.fileno())
    second.close()
    lock_folder(tmp_path / "a").close()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"lock":1,"ready":2,"sockets":["x"],"address":""}', "\x00"])
def test_a_hand_over_that_nobody_made_is_refused(text: str) -> None:
    env = {VARIABLE: text}
    with pytest.raises(ConfigError, match=VARIABLE):
        handed_over(env)
    assert env == {}
    assert handed_over({}) is None


def test_the_service_manager_is_told_over_its_socket(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        service_manager.notify("READY=1", "MAINPID=7", env={"NOTIFY_SOCKET": address})
        assert manager.recv(100) == b"READY=1\nMAINPID=7"
    for gone in ("", "relative", address + "-gone", "@nobody-there"):
        service_manager.notify("READY=1", env={"NOTIFY_SOCKET": gone})
    assert service_manager.watchdog_s({"WATCHDOG_USEC": "30000000"}) == 15
    assert [service_manager.watchdog_s({"WATCHDOG_USEC": odd}) for odd in ("", "0", "-5", "x")] == [None] * 4


def test_sockets_of_a_unit_are_used_and_others_refused() -> None:
    me = str(os.getpid())
    assert service_manager.activated({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert service_manager.activated({"LISTEN_PID": me, "LISTEN_FDS": "x"}) == []
    assert service_manager.activated({}) == []


ACTIVATED = """
import os, socket, sys
bound = socket.create_server(("127.0.0.1", 0))
print(bound.getsockname()[1], flush=True)
os.dup2(bound.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "pool_server", "serve", "--config", sys.argv[1]])
"""


def test_a_server_listens_on_a_socket_that_was_opened_for_it(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with FakeProviders([key_account("claude:a")]) as fakes, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(30)
        pool = PoolProcess(tmp_path, fake_settings(tmp_path, fakes))
        env = {**environment(), "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        argv = [sys.executable, "-c", ACTIVATED, str(pool.config)]
        with subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            heard = manager.recv(200).decode()
            assert f"MAINPID={process.pid}" in heard and "READY=1" in heard
            assert manager.recv(200) == b"WATCHDOG=1"
            pool.url = f"http://127.0.0.1:{port}"
            assert pool.call("GET", "/healthz")[0] == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
            until(lambda: manager.recv(200) == b"STOPPING=1", "the end is told")


def test_a_unit_s_socket_does_not_open_local_mode_to_others(tmp_path: Path) -> None:
    settings = Settings(listen_addr="0.0.0.0:0", data_dir=str(tmp_path / "data"), pool_users=PoolUsers())
    pool = PoolProcess(tmp_path, settings)
    script = ACTIVATED.replace('"127.0.0.1"', '"0.0.0.0"').replace("0.0.0.0:0", "127.0.0.1:0")
    pool.config.write_text(pool.config.read_text().replace("0.0.0.0:0", "127.0.0.1:0"))
    done = subprocess.run(
        [sys.executable, "-c", script, str(pool.config)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not a loopback address" in done.stderr
