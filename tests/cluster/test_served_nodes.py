"""`pool-server serve` as its operator runs it on several machines: two processes behind a balancer, killed in turn."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.models import Usage
from tests.cluster.conftest import Database
from tests.cluster.nodes import ADMIN, node_settings
from tests.fakes import FakeProviders, account, plays
from tests.postgres import free_port
from tests.process import PoolProcess, command, environment, until

SECRET = {"POOL_STORE_KEY": "k1:" + base64.b64encode(b"1" * 32).decode()}
USED = 123  # tokens of an answer
ASK = {"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
BALANCER = """
defaults
  mode http
  timeout connect 1s
  timeout client 120s
  timeout server 120s
  retries 3
  option redispatch
  option httpchk GET /readyz
frontend door
  bind 127.0.0.1:{port}
  default_backend nodes
backend nodes
  balance roundrobin
{servers}
"""


class Caller(threading.Thread):
    """A client that asks again and again, and again where a connection was cut."""

    def __init__(self, url: str, key: str, enough: int) -> None:
        super().__init__(daemon=True)
        self._url, self._key, self.enough = url, key, enough
        self.answered = 0
        self.refused: list[tuple[int, str]] = []

    def run(self) -> None:
        while self.answered < self.enough:
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            request = urllib.request.Request(self._url + "/v1/messages", json.dumps(ASK).encode(), headers)
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    self.answered += json.loads(answer.read())["type"] == "message"
            except urllib.error.HTTPError as error:
                with error:
                    told = error.read().decode("utf-8", "replace")
                if "<html>" not in told:  # the balancer's own word: the node it had chosen died
                    self.refused.append((error.code, told))
                time.sleep(0.1)
            except (OSError, ValueError):
                time.sleep(0.1)


@contextlib.contextmanager
def balanced(folder: Path, urls: list[str]) -> Iterator[str]:
    """The address of a balancer over the nodes."""
    port = free_port()
    servers = "\n".join(f"  server n{n} {url.removeprefix('http://')} check inter 200ms" for n, url in enumerate(urls))
    config = folder / "haproxy.cfg"
    config.write_text(BALANCER.format(port=port, servers=servers))
    process = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def made(node: PoolProcess, name: str, *more: str) -> dict[str, Any]:
    """A person, by the command of a machine that runs."""
    told = subprocess.run(
        command("user", "add", name, "--json", "--config", str(node.config), *more),
        capture_output=True, text=True, env=environment() | SECRET, cwd=node.folder,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


@contextlib.contextmanager
def fake_providers() -> Iterator[FakeProviders]:
    """They answer in a thread of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    fakes = FakeProviders([account("claude:one")])
    asyncio.run_coroutine_threadsafe(fakes.__aenter__(), loop).result()
    try:
        fakes.always("claude:one", plays.ok(Usage(input=100, output=23)))
        yield fakes
    finally:
        asyncio.run_coroutine_threadsafe(fakes.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no HAProxy here")
def test_what_clients_saw_is_in_the_books_whoever_is_killed(database: Database, tmp_path: Path) -> None:
    each, callers = 60, 4
    with fake_providers() as fakes, contextlib.ExitStack() as stack:
        nodes = []
        for name in ("m0", "m1"):
            port = free_port()
            settings = node_settings(
                tmp_path / name, fakes, database.url(), name, store_wait_s=60.0, listen_addr=f"127.0.0.1:{port}"
            )
            nodes.append(stack.enter_context(PoolProcess(tmp_path / name, settings, env=SECRET)))
        person = made(nodes[0], "Ada", "--limit", "tokens_day=1000000000")
        door = stack.enter_context(balanced(tmp_path, [node.url for node in nodes]))
        clients = [Caller(door, person["key"], each) for _ in range(callers)]
        for client in clients:
            client.start()
        until(lambda: sum(client.answered for client in clients) > each, "a part of the answers")
        nodes[1].process.kill()
        nodes[1].process.wait()
        until(lambda: sum(client.answered for client in clients) > 2 * each, "answers without the node")
        stack.enter_context(again := PoolProcess(nodes[1].folder, nodes[1].settings, env=SECRET))
        database.server.stop(signal.SIGKILL)
        (database.server.data / "postmaster.pid").unlink(missing_ok=True)
        database.server.start()
        for client in clients:
            client.join(300)
            assert not client.is_alive() and client.refused == []
        seen = sum(client.answered for client in clients)
        assert seen >= each * callers
        entered = again.call("POST", "/admin", {"password": ADMIN})[0]
        assert entered == 200

        def told() -> int:
            return int(database.sql("select count(*) from pool.record where outcome = 'ok'"))

        until(lambda: told() >= seen, "every answer in the books")
        assert database.sql("select sum(tok) from pool.record where outcome = 'ok'") == str(USED * told())
        assert told() <= len(fakes.made())
        used = f"select day_tok from pool.use where usr = '{person['id']}' and jti = ''"
        whole = f"select sum(tok) from pool.record where usr = '{person['id']}'"
        until(lambda: database.sql(used) == database.sql(whole), "counters that say what the records do")
        until(lambda: database.sql("select coalesce(sum(held_n), 0) from pool.use") == "0", "nothing held any more")
