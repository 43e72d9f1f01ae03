"""The server speaks TLS itself: pages, streams and sockets within it, certificates renewed under it, upgrades."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pool_server.app import run_file
from pool_server.core.settings import Budgets, PoolUsers, Settings
from tests.certificates import DAY_S, Authority
from tests.fakes import FakeProviders, Gate, Play, account, fake_settings, key_account
from tests.gateway.sockets import Client, create, final_id
from tests.process import PATIENCE_S, PoolProcess, command, environment, until
from tests.test_server import MESSAGE, alive, refused

ADMIN = "deep end"


class Site:
    """A pool within TLS, what signed its certificate, and where that lies."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.authority.issue(self.cert, self.key)
        self.trust = ssl.create_default_context(cafile=str(self.authority.file))

    def pool(self, folder: Path, fakes: FakeProviders, *args: str, **changes: Any) -> PoolProcess:
        tls = {"tls_cert": str(self.cert), "tls_key": str(self.key)}
        return PoolProcess(folder, fake_settings(folder, fakes, **tls, **changes), *args, trusts=self.authority.file)

    def line(self, pool: PoolProcess) -> http.client.HTTPSConnection:
        host, port = pool.url.removeprefix("https://").split(":")
        return http.client.HTTPSConnection(host, int(port), timeout=PATIENCE_S, context=self.trust)

    def serial(self, pool: PoolProcess) -> str:
        """That of the certificate a new connection is shown."""
        line = self.line(pool)
        line.connect()
        assert isinstance(line.sock, ssl.SSLSocket)
        shown = line.sock.getpeercert()
        line.close()
        assert shown is not None
        return str(shown["serialNumber"])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def fakes() -> Iterator[FakeProviders]:
    with FakeProviders([key_account("claude:a"), account("codex:b")]) as started:
        yield started


def send(line: http.client.HTTPConnection, **more: Any) -> http.client.HTTPResponse:
    line.request("POST", "/v1/messages", json.dumps(MESSAGE | more), {"Content-Type": "application/json"})
    return line.getresponse()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_messages_streams_and_sockets_pass(tmp_path: Path, site: Site, fakes: FakeProviders, workers: str) -> None:
    with site.pool(tmp_path, fakes, "--workers", workers) as pool:
        assert pool.url.startswith("https://127.0.0.1:")
        assert run_file.find(Path(pool.settings.data_dir)) == pool.url
        line = site.line(pool)
        for more in ({}, {"stream": True}, {}):
            answer = send(line, **more)
            assert answer.status == 200
            assert (b"message_stop" in answer.read()) is bool(more)
        line.close()

        async def talk() -> None:
            async with aiohttp.ClientSession() as session:
                url = pool.url.replace("https", "wss") + "/backend-api/codex/responses"
                async with session.ws_connect(url, headers={"session-id": "s-1"}, ssl=site.trust) as connection:
                    beneath = connection.get_extra_info("socket")
                    client = Client(connection)
                    first = final_id(await client.turn(create()))
                    assert final_id(await client.turn(create(previous_response_id=first)))
            async with asyncio.timeout(PATIENCE_S):
                while beneath.fileno() != -1:  # a session does not wait for the end of TLS
                    await asyncio.sleep(0.01)

        asyncio.run(talk())


def test_the_pages_know_that_they_are_reached_over_tls(tmp_path: Path, site: Site, fakes: FakeProviders) -> None:
    users = PoolUsers(admin_password=ADMIN)
    with site.pool(tmp_path, fakes, pool_users=users, friend_code="open up", friend_name="Cove") as pool:
        line = site.line(pool)
        body = json.dumps({"code": "open up", "name": "Ada", "passphrase": "a long passphrase"})
        line.request("POST", "/api/friend/login", body, {"Content-Type": "application/json", "Host": "pool.example"})
        answer = line.getresponse()
        made = json.loads(answer.read())
        assert answer.status == 200, made
        cookies = answer.headers.get_all("Set-Cookie") or []
        session = next(one for one in cookies if one.startswith("__Host-"))
        assert all("secure" in one.lower() for one in cookies)
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        line.request("GET", "/", headers={"Cookie": session.partition(";")[0], "Host": "pool.example"})
        page = line.getresponse().read().decode()
        assert "https://pool.example" in page and "http://pool.example" not in page
        for host in ("pool.example:8443", "localhost", "127.0.0.1", "[::1]"):
            line.request("GET", "/healthz", headers={"Host": host})
            other = line.getresponse()
            other.read()
            assert "Strict-Transport-Security" not in other.headers, "it would bind every port of that host"
        line.close()


def test_plain_http_is_told_where_to_go_and_silence_ends(tmp_path: Path, site: Site, fakes: FakeProviders) -> None:
    with site.pool(tmp_path, fakes, budgets=Budgets(first_byte_s=1.0)) as pool:
        host, port = pool.url.removeprefix("https://").split(":")
        plain = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        plain.request("GET", "/")
        answer = plain.getresponse()
        assert (answer.status, answer.read()) == (400, b"This server speaks TLS: use its https:// address.\n")
        plain.close()
        silent = [socket.create_connection((host, int(port)), timeout=PATIENCE_S) for _ in range(3)]
        silent[1].sendall(b"\x16\x03\x01")
        for one in silent:
            try:
                assert one.recv(100) == b""
            except ConnectionResetError:
                pass
            one.close()

        def counted() -> bool:
            told = pool.call("GET", "/metrics")[1]
            lines = re.findall(r'pool_connections_ended_total\{what="(\w+)",why=""\} (\S+)', told)
            return {("plain", "1.0"), ("silent", "3.0")} <= set(lines)

        until(counted, "all of them in the metrics")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("broken", ["no key", "foreign key", "one alone"])
def test_a_pair_that_cannot_be_served_is_one_line_at_the_start(
    tmp_path: Path, site: Site, workers: str, broken: str
) -> None:
    settings = Settings(
        listen_addr="127.0.0.1:0", pool_dir=str(tmp_path / "pool"), data_dir=str(tmp_path / "data"),
        tls_cert=str(site.cert), tls_key="" if broken == "one alone" else str(site.key),
    )  # fmt: skip
    if broken == "no key":
        site.key.unlink()
    elif broken == "foreign key":
        site.authority.issue(tmp_path / "other.pem", site.key)
    code, line = refused(tmp_path, settings, "--workers", workers)
    assert code == 2
    assert ("tls_key must be set too" if broken == "one alone" else "tls_key = ") in line
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").glob("ledger*"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_files_that_change_are_read_again_and_bad_ones_told(
    tmp_path: Path, site: Site, fakes: FakeProviders, workers: str
) -> None:
    users = PoolUsers(admin_password=ADMIN)
    bearer = {"Authorization": f"Bearer {ADMIN}"}
    with site.pool(tmp_path, fakes, "--workers", workers, pool_users=users) as pool:
        before, kept = site.serial(pool), site.line(pool)
        kept.connect()
        site.authority.issue(site.cert, site.key, ends=10 * DAY_S)
        pool.signal(signal.SIGHUP)
        until(lambda: before not in {site.serial(pool) for _ in range(8)}, "the new certificate in every worker")
        new = site.serial(pool)
        kept.request("GET", "/healthz")
        assert kept.getresponse().status == 200, "a connection that was open goes on"
        kept.close()
        site.key.write_text("half a key")
        pool.signal(signal.SIGHUP)
        until(lambda: "stays the one before" in pool.log(), "the log says so")
        assert {site.serial(pool) for _ in range(4)} == {new}
        until(
            lambda: "pool_tls_certificate_refused 1.0" in pool.call("GET", "/metrics", **bearer)[1], "the metrics too"
        )
        told = re.findall(
            r"^pool_tls_certificate_end_timestamp_seconds (\S+)",
            pool.call("GET", "/metrics", **bearer)[1],
            re.MULTILINE,
        )
        assert float(told[0]) == pytest.approx(time.time() + 10 * DAY_S, abs=3600)
        doctor = subprocess.run(
            command("doctor", "--config", str(pool.config), "--json"),
            cwd=tmp_path, env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        found = [one for one in json.loads(doctor.stdout)["checks"] if one["check"] == "tls"]
        assert found[0]["state"] == "wrong" and "holds no private key" in found[0]["message"]
        listed = subprocess.run(
            command("account", "list", "--config", str(pool.config), "--json"),
            cwd=tmp_path, env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        assert listed.returncode == 0, listed.stderr
        assert "claude:a" in listed.stdout


def test_an_operator_sees_on_a_page_that_the_certificate_has_ended(
    tmp_path: Path, site: Site, fakes: FakeProviders
) -> None:
    site.authority.issue(site.cert, site.key, ends=-60.0)
    users = PoolUsers(admin_password=ADMIN)
    with site.pool(tmp_path, fakes, pool_users=users) as pool:
        assert pool.tls is not None
        pool.tls.check_hostname, pool.tls.verify_mode = False, ssl.CERT_NONE
        headers = {"Authorization": f"Bearer {ADMIN}", "Accept": "text/html"}

        def shown() -> bool:
            return "The TLS certificate ended at" in pool.call("GET", "/analytics", **headers)[1]

        until(shown, "a banner")
        assert "the TLS certificate ended at" in pool.log()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_upgrade_cuts_nothing(tmp_path: Path, site: Site, fakes: FakeProviders, workers: str) -> None:
    gate = Gate()
    with site.pool(tmp_path, fakes, "--workers", workers) as pool:
        data = Path(pool.settings.data_dir)
        fakes.then("claude:a", Play(gate=gate, gate_at=4))
        old, stream, kept = run_file.read(data)["pid"], site.line(pool), site.line(pool)
        stream.request(
            "POST", "/v1/messages", json.dumps(MESSAGE | {"stream": True}), {"Content-Type": "application/json"}
        )
        assert gate.wait_reached()
        assert send(kept).read()
        os.kill(old, signal.SIGUSR2)
        new = until(lambda: (pid := run_file.read(data).get("pid")) != old and pid, "a new server")
        try:
            assert run_file.read(data)["url"] == pool.url
            assert pool.call("POST", "/v1/messages", MESSAGE)[0] == 200
            last = send(kept)
            assert (last.status, last.headers["Connection"]) == (200, "close")
            last.read()
            gate.open()
            assert b"message_stop" in stream.getresponse().read()
            stream.close()
            assert pool.wait() == 0
            assert pool.call("GET", "/healthz")[0] == 200
        finally:
            os.kill(new, signal.SIGTERM)
            until(lambda: not alive(new), "the new server has ended")
