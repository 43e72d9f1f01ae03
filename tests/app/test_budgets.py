"""What a server holds at once: from settings and system to limits, and a whole server without descriptors to spare."""

from __future__ import annotations

import json
import re
import resource
import socket
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.app import budgets
from pool_server.core.settings import Budgets, PoolUsers, Settings
from pool_server.http1 import TooMany
from tests.fakes import FakeProviders, account, fake_settings
from tests.process import PoolProcess

MESSAGE = {"model": "claude-sonnet-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def test_the_default_fits_1024_descriptors() -> None:
    limits = budgets.connection_limits(Settings(), 1024)
    assert limits == (448, 256, 896, 10.0)
    assert budgets.connection_limits(Settings(), 1 << 19).total == 8192


@given(st.integers(64, 1 << 20), st.integers(16, 1_000_000), st.integers(32, 65536))
def test_files_always_have_descriptors_left(descriptors: int, connections: int, reserved: int) -> None:
    settings = Settings(budgets=Budgets(connections=connections, reserved_files=reserved))
    limits = budgets.connection_limits(settings, descriptors)
    assert 0 < limits.total <= connections
    assert limits.total * 2 <= limits.descriptor <= descriptors - min(reserved, descriptors // 2)


def test_the_soft_limit_of_open_files_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        assert budgets.raise_descriptor_limit() == min(hard, 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_proxies_and_loopback_are_many_people() -> None:
    settings = Settings(trusted_proxies=["192.0.2.0/24"], budgets=Budgets(connections_per_address=4))
    for address, capped in (
        ("127.0.0.1", False), ("::1", False), ("192.0.2.9", False), ("::ffff:192.0.2.9", False),
        ("198.51.100.1", True), ("2001:db8::1", True), ("", True), ("no address", True),
    ):  # fmt: skip
        table = budgets.connection_table(lambda: settings)
        for number in range(4):
            table.opened(number, address)  # type: ignore[arg-type]
            table.works(number)  # type: ignore[arg-type]
        assert (table.judge(address, 9).refused is TooMany.ADDRESS) is capped, address


def test_an_ipv6_household_is_one_address() -> None:
    table = budgets.connection_table(lambda: Settings(budgets=Budgets(connections_per_address=4)))
    for number in range(4):
        table.opened(number, f"2001:db8:0:1::{number}")  # type: ignore[arg-type]
    assert table.judge("2001:db8:0:1:ffff::1", 9).why is TooMany.ADDRESS
    assert table.judge("2001:db8:0:2::1", 9).why is None


@pytest.mark.parametrize("why", TooMany)
def test_the_refusal_can_be_read_by_any_client(why: TooMany) -> None:
    head, _, body = budgets.refusal(why).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    error = json.loads(body)
    assert error["type"] == "error"
    assert error["error"]["message"].endswith(".")


def test_silent_strangers_take_no_account_and_no_friend_away(tmp_path: Path) -> None:
    """More connections than there are descriptors, which say nothing; the pool folder is read meanwhile."""
    with FakeProviders([account("claude:a"), account("claude:b")]) as fakes:
        settings = fake_settings(tmp_path, fakes, friend_code="swim", pool_users=PoolUsers(admin_password="deep end"))
        settings = msgspec.structs.replace(settings, budgets=Budgets(reserved_files=64))
        with PoolProcess(tmp_path, settings, descriptors=200) as pool:
            admin = {"Authorization": "Bearer deep end"}
            _, made = pool.call("POST", "/admin/pool-users", {"name": "Ada"}, **admin)
            port = int(pool.url.rpartition(":")[2])
            silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(400)]
            for _ in range(3):
                assert pool.call("POST", "/admin/reload", {}, **admin)[1]["unchanged"] == 2
                status, _ = pool.call("POST", "/v1/messages", MESSAGE, x_api_key=made["key"])
                assert status == 200
            assert pool.call("GET", "/healthz")[1]["accounts"]["total"] == 2
            _, metrics = pool.call("GET", "/metrics", **admin)
            assert re.search(r'pool_connections_ended_total\{.*what="ended",why="total"\} [1-9]', metrics)
            silent[-1].settimeout(30)
            assert silent[-1].recv(1) == b"", "the silent are ended"
            for one in silent:
                one.close()
        assert "Traceback" not in pool.log()
