"""A sign-in over the end of the whole server: kill -9 of the supervisor and all workers while its code is exchanged,
while its first request is under way, and while it waits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_server.core.settings import PoolUsers, Settings
from tests.fakes import Call, FakeAccount, FakeProviders, fake_settings, plays
from tests.fakes.openai_auth import FakeSignInService
from tests.process import PoolProcess, until
from tests.web.test_sign_ins import person

ADMIN = {"Authorization": "Bearer deep end"}

pytestmark = pytest.mark.slow


@pytest.fixture
def vendor() -> Iterator[FakeSignInService]:
    with FakeSignInService() as made:
        yield made


@pytest.fixture
def fakes() -> Iterator[FakeProviders]:
    with FakeProviders() as made:
        yield made


def of(folder: Path, fakes: FakeProviders, vendor: FakeSignInService, workers: int) -> Settings:
    settings = fake_settings(folder, fakes, workers=workers, sign_in=vendor.urls())
    urls = msgspec.structs.replace(settings.token_urls, codex=f"{vendor.origin}/oauth/token")
    return msgspec.structs.replace(settings, pool_users=PoolUsers(admin_password="deep end"), token_urls=urls)


def kill_all(pool: PoolProcess) -> None:
    for pid in [*pool.children(), pool.process.pid]:
        os.kill(pid, signal.SIGKILL)
    pool.process.wait()


def begun(pool: PoolProcess, flow: str = "browser") -> dict[str, Any]:
    status, made = pool.call("POST", "/admin/sign-ins", {"provider": "codex", "flow": flow, "name": "ada"}, **ADMIN)
    assert status == 201, made
    found: dict[str, Any] = made
    return found


def row(pool: PoolProcess, made: dict[str, Any]) -> dict[str, Any]:
    status, found = pool.call("GET", f"/admin/sign-ins/{made['id']}", **ADMIN)
    assert status == 200, found
    shown: dict[str, Any] = found
    return shown


def pasted_aside(pool: PoolProcess, made: dict[str, Any], address: str) -> threading.Thread:
    """The address is pasted, in a thread: the server that is to answer dies."""

    def paste() -> None:
        try:
            pool.call("POST", f"/admin/sign-ins/{made['id']}", {"code": address}, **ADMIN)
        except OSError:
            pass

    thread = threading.Thread(target=paste)
    thread.start()
    return thread


def exchanges(vendor: FakeSignInService) -> int:
    return [path for path, _ in vendor.calls].count("/oauth/token")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_while_the_code_is_exchanged(
    tmp_path: Path, fakes: FakeProviders, vendor: FakeSignInService, workers: int
) -> None:
    """The vendor has the code and nobody has the tokens: it is told at once, the code is not sent again, and a new
    sign-in takes its place."""
    settings = of(tmp_path, fakes, vendor, workers)
    ada = fakes.add(person("ada"))
    vendor.gate = threading.Event()
    with PoolProcess(tmp_path, settings) as pool:
        made = begun(pool)
        address = vendor.consent(made["url"], ada)
        thread = pasted_aside(pool, made, address)
        until(lambda: exchanges(vendor), "the code is at the vendor's")
        kill_all(pool)
        thread.join()
    vendor.gate.set()
    vendor.gate = None
    with PoolProcess(tmp_path, settings) as pool:
        after = until(lambda: (one := row(pool, made))["state"] != "waiting" and one, "it is taken up")
        assert (after["state"], after["code"]) == ("failed", "lost") and "start again" in after["message"]
        status, again = pool.call("POST", f"/admin/sign-ins/{made['id']}", {"code": address}, **ADMIN)
        assert status == 200 and again["code"] == "lost", "the same code has the same result"
        assert exchanges(vendor) == 1 and list((tmp_path / "pool").glob("*.json")) == []
        anew = begun(pool)
        status, done = pool.call(
            "POST", f"/admin/sign-ins/{anew['id']}", {"code": vendor.consent(anew["url"], ada)}, **ADMIN
        )
        assert status == 200 and done["state"] == "done" and done["account"] == "codex:ada", done


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_with_the_tokens_in_hand(
    tmp_path: Path, fakes: FakeProviders, vendor: FakeSignInService, workers: int
) -> None:
    """The tokens have come and the first request is under way: the next server makes the account of them."""
    settings = of(tmp_path, fakes, vendor, workers)
    ada = fakes.add(person("ada"))
    asked, go_on = threading.Event(), threading.Event()

    def waits(account: FakeAccount, call: Call) -> plays.Play | None:
        if not go_on.is_set():
            asked.set()
            return plays.never()
        return None

    fakes.director = waits
    with PoolProcess(tmp_path, settings) as pool:
        made = begun(pool)
        thread = pasted_aside(pool, made, vendor.consent(made["url"], ada))
        until(asked.is_set, "the first request is under way")
        kill_all(pool)
        thread.join()
    go_on.set()
    with PoolProcess(tmp_path, settings) as pool:
        after = until(lambda: (one := row(pool, made))["state"] != "waiting" and one, "it is taken up")
        assert after["state"] == "done" and after["account"] == "codex:ada", after
        assert exchanges(vendor) == 1 and (tmp_path / "pool" / "codex_ada.json").stat().st_mode & 0o777 == 0o600
        told = until(
            lambda: pool.call("GET", "/admin/accounts", **ADMIN)[1]["accounts"], "any worker knows the account"
        )
        assert [one["id"] for one in told] == ["codex:ada"] and told[0]["state"] == "ready"
    assert ada.access not in (tmp_path / "server.log").read_text()


def test_killed_while_a_device_code_is_typed(tmp_path: Path, fakes: FakeProviders, vendor: FakeSignInService) -> None:
    """The next server asks on for the same code."""
    settings = of(tmp_path, fakes, vendor, 2)
    ada = fakes.add(person("ada"))
    with PoolProcess(tmp_path, settings) as pool:
        made = begun(pool, "device")
        until(lambda: "/api/accounts/deviceauth/token" in [path for path, _ in vendor.calls], "it is asked for")
        kill_all(pool)
    vendor.person = ada
    with PoolProcess(tmp_path, settings) as pool:
        after = until(lambda: (one := row(pool, made))["state"] != "waiting" and one, "it is allowed")
        assert after["state"] == "done" and after["account"] == "codex:ada", after
    assert [path for path, _ in vendor.calls].count("/api/accounts/deviceauth/usercode") == 1
