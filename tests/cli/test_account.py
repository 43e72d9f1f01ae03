"""`pool-server account …`, on the files and through a running server."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pool_server.app.server import open_services
from pool_server.cli.account import reconcile
from pool_server.core.models import HttpAnswer, HttpRequest, Usage, UsageRecord
from pool_server.core.settings import PoolUsers, Settings
from pool_server.gateway import Upstream
from tests.cli.conftest import Shell
from tests.fakes import FakeProviders, fake_settings, key_account, write_pool
from tests.fakes import account as sign_in
from tests.process import PoolProcess, to_toml, until

KEY = "sk-fake-0123456789abcdef"


def test_add_key_writes_a_private_file_and_shows_nothing(sh: Shell, folder: Path) -> None:
    done = sh("account", "add-key", "openai", "--base-url", "http://127.0.0.1:9/v1", stdin=f"{KEY}\n")
    assert done.code == 0
    assert KEY not in done.out + done.err
    path = folder / "pool/openai_key.json"
    assert json.loads(path.read_text()) == {"api_key": KEY, "base_url": "http://127.0.0.1:9/v1"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert sh("account", "add-key", "openai", stdin=KEY).code == 0
    assert (folder / "pool/openai_key-2.json").exists()
    assert [row["id"] for row in sh("account", "list", "--json").json] == ["openai:key", "openai:key-2"]


def test_add_key_takes_an_endpoint_of_its_own(sh: Shell, folder: Path) -> None:
    endpoint = (
        "--base-url",
        "https://ai.example.com",
        "--dialect",
        "messages",
        "--dialect",
        "chat",
        "--auth",
        "bearer",
    )
    assert sh("account", "add-key", "claude", "--name", "glm", *endpoint, "--model", "glm-*", stdin=KEY).code == 0
    assert json.loads((folder / "pool/claude_glm.json").read_text()) == {
        "api_key": KEY, "base_url": "https://ai.example.com", "dialects": ["messages", "chat"], "auth": "bearer",
        "models": ["glm-*"],
    }  # fmt: skip


@pytest.mark.parametrize("provider", ["codex", "claude", "gemini", "qwen", "openai"])
def test_add_key_serves_every_provider(sh: Shell, provider: str) -> None:
    assert sh("account", "add-key", provider, "--name", "work", stdin=KEY).code == 0
    (row,) = sh("account", "list", "--json").json
    assert (row["id"], row["provider"], row["state"]) == (f"{provider}:work", provider, "ready")


def test_add_key_refuses_in_one_line(sh: Shell, folder: Path) -> None:
    assert "no key" in sh("account", "add-key", "claude", stdin="\n").refused(2)
    assert "base_url" in sh("account", "add-key", "claude", "--base-url", "ftp://x", stdin=KEY).refused(1)
    assert "auth" in sh("account", "add-key", "claude", "--auth", "basic", stdin=KEY).refused(1)
    assert "dialects" in sh("account", "add-key", "claude", "--dialect", "smoke", stdin=KEY).refused(1)
    assert "Anthropic" in sh("account", "add-key", "openai", stdin="sk-ant-api03-abcdefgh").refused(1)
    sh("account", "add-key", "claude", "--name", "a", stdin=KEY)
    assert "there already" in sh("account", "add-key", "claude", "--name", "a", stdin="other").refused(1)
    assert json.loads((folder / "pool/claude_a.json").read_text())["api_key"] == KEY
    for name in ("../x", "a/b", ""):
        done = sh("account", "add-key", "claude", "--name", name, stdin=KEY)
        assert name == "" or done.code != 0
    assert sorted(path.name for path in folder.rglob("*.json")) == ["claude_a.json", "claude_key.json"]


def test_without_a_server_the_files_are_the_pool(sh: Shell, folder: Path) -> None:
    write_pool(folder / "pool", [key_account("claude:a"), sign_in("codex:b", plan="pro")])
    listed = sh("account", "list").out
    assert "claude:a" in listed
    assert "codex:b" in listed
    assert sh("account", "disable", "claude:a").code == 0
    assert json.loads((folder / "pool/claude_a.json").read_text())["disabled"] is True
    assert {row["id"]: row["state"] for row in sh("account", "list", "--json").json} == {
        "claude:a": "disabled",
        "codex:b": "ready",
    }
    assert sh("account", "enable", "claude:a").code == 0
    assert "no such account" in sh("account", "disable", "claude:nobody").refused(1)


def test_a_list_tells_each_host_and_the_files_that_cannot_be_used(sh: Shell, folder: Path) -> None:
    write_pool(
        folder / "pool", [key_account("claude:a"), key_account("openai:b", base_url="https://ai.example.com/v1")]
    )
    (folder / "pool/mystery_work.json").write_text('{"api_key": "sk-0123456789"}')
    listed = sh("account", "list").out
    assert "api.anthropic.com" in listed and "ai.example.com" in listed
    assert "mystery_work.json" in listed and "its name says no provider" in listed
    assert [row["hosts"] for row in sh("account", "list", "--json").json] == [["api.anthropic.com"], ["ai.example.com"]]


def test_an_empty_pool_is_said(sh: Shell) -> None:
    assert "put their files" in sh("account", "list").out
    assert sh("account", "list", "--json").json == []


def test_a_test_is_one_real_call(sh: Shell, folder: Path) -> None:
    with FakeProviders([sign_in("claude:a", used_5h=10)]) as fakes:
        (folder / "config.toml").write_text(to_toml(fake_settings(folder, fakes)))
        done = sh("account", "test", "claude:a", "--json")
        assert (done.code, done.json["ok"]) == (0, True)
        assert [call.account for call in fakes.calls] == ["claude:a"]
        told = sh("account", "test", "claude:a")
        assert told.code == 0 and told.out.startswith("claude:a works: http://127.0.0.1:") and "{" not in told.out
        fakes.accounts["claude:a"].revoke()
        told = sh("account", "test", "claude:a")
        assert told.code == 1 and "claude:a does not work: " in told.out and "→ sign in again" in told.out
        assert "{" not in told.out
        assert "no such account" in sh("account", "test", "claude:z").refused(1)


SET: list[tuple[str, str, Any]] = [
    ("label", "Ours", "Ours"), ("plan", "max", "max"), ("priority", "-7", -7), ("weight", "2.5", 2.5),
    ("models", "claude-a, claude-b*", ["claude-a", "claude-b*"]), ("reserve", "0.25", 0.25),
    ("proxy", "socks5://u:p@proxy.example:1080", "socks5://u:p@proxy.example:1080"), ("groups", "family", ["family"]),
]  # fmt: skip
WRONG = [
    ("priority", "first", "whole number"), ("priority", "1e9", "whole number"), ("weight", "heavy", "number"),
    ("weight", "nan", "number"), ("weight", "0", "0.01"), ("reserve", "2", "0 to 1"), ("proxy", "ftp://x", "socks5"),
    ("owner", "Nobody", "no person"), ("people", "Ada,Nobody", "Nobody"), ("groups", "strangers", "strangers"),
]  # fmt: skip


@pytest.mark.parametrize("served", [False, True])
def test_each_option_is_set_changed_and_taken_away(sh: Shell, folder: Path, served: bool) -> None:
    with FakeProviders([key_account("claude:a")]) as fakes, ExitStack() as stack:
        settings = fake_settings(folder, fakes, **({"pool_users": PoolUsers(admin_password="pw")} if served else {}))
        (folder / "config.toml").write_text(to_toml(settings))
        sh("user", "add", "Ada")
        sh("user", "set", "Ada", "--groups", "family")
        ada = sh("user", "show", "Ada", "--json").json["id"]
        if served:
            stack.enter_context(PoolProcess(folder, settings))

        def file() -> dict[str, Any]:
            found: dict[str, Any] = json.loads((folder / "pool/claude_a.json").read_text())
            return {name: value for name, value in found.items() if value is not None}

        before = file()
        for name, text, wanted in [*SET, ("owner", "Ada", ada), ("people", "Ada", [ada])]:
            done = sh("account", "set", "claude:a", f"--{name}", text)
            assert done.code == 0 and "u:p" not in done.out, done.err
            assert file() == {**before, FIELDS.get(name, name): wanted}
            assert sh("account", "set", "claude:a", f"--{name}", "").code == 0 and file() == before, name
        for name, text, why in WRONG:
            assert why in sh("account", "set", "claude:a", "--label", "x", f"--{name}", text).err, name
        assert file() == before, "nothing is set of what is refused"
        assert sh("account", "set", "claude:a").code == 2
        assert "no" in sh("account", "set", "claude:z", "--label", "x").refused(1)
        assert sh("account", "remove", "claude:a", "--yes").code == 0 and not (folder / "pool/claude_a.json").exists()
        assert "no" in sh("account", "remove", "claude:a", "--yes").refused(1)
        assert sh("account", "restore", "claude:a").code == 0 and file() == before
        assert "no removed account" in sh("account", "restore", "claude:a").refused(1)


FIELDS = {"plan": "plan_type", "proxy": "proxy_url"}


@pytest.mark.parametrize("password", ["", "the-password"])
def test_a_running_server_is_asked(sh: Shell, folder: Path, password: str) -> None:
    with FakeProviders([sign_in("claude:a"), key_account("claude:b")]) as fakes:
        changes: dict[str, Any] = {"pool_users": PoolUsers(admin_password=password)} if password else {}
        with PoolProcess(folder, fake_settings(folder, fakes, **changes)) as pool:
            headers = {"Authorization": f"Bearer {password}"} if password else {}

            def states() -> dict[str, str]:
                rows = pool.call("GET", "/admin/accounts", **headers)[1]["accounts"]
                return {row["id"]: row["state"] for row in rows}

            assert sh("account", "disable", "claude:a").code == 0
            until(lambda: states() == {"claude:a": "disabled", "claude:b": "ready"}, "it is disabled")
            assert {row["id"]: row["state"] for row in sh("account", "list", "--json").json} == states()
            assert sh("account", "enable", "claude:a").code == 0
            done = sh("account", "test", "claude:a", "--json")
            assert (done.code, done.json["ok"]) == (0, True)
            assert "no account claude:z" in sh("account", "test", "claude:z").refused(1)
            assert "They agree." in sh("account", "reconcile", "claude:b", "--input", "0").out
            assert "no such account" in sh("account", "reconcile", "claude:z", "--input", "0").refused(1)


def test_a_hash_opens_nothing_and_a_wrong_password_is_told(
    sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = "$2b$04$abcdefghijklmnopqrstuuY3VzGzX1aT4hZQWm3r0n1i8c2dXcVq2"
    with FakeProviders([key_account("claude:a")]) as fakes:
        users = PoolUsers(admin_password=hashed)
        with PoolProcess(folder, fake_settings(folder, fakes, pool_users=users)):
            assert "a hash only" in sh("account", "list").refused(1)
            (folder / "elsewhere.toml").write_text('friend_code = "known to the server"\n', "utf-8")
            for command in (("account", "list"), ("status",), ("top", "--once")):  # the server's environment has one
                assert "no admin password is known here" in sh(*command, "--config", "elsewhere.toml").refused(1)
            monkeypatch.setenv("POOL_ADMIN_PASSWORD", "wrong")
            assert "401" in sh("account", "list").refused(1)


def _day_of_use(folder: Path) -> None:
    """One exchange of that day (1,000 in, 200 out) in the ledger of a pool with one account."""
    (folder / "pool/openai_a.json").write_text(json.dumps({"api_key": KEY}))
    services = open_services(Settings(), Upstream().send)
    record = UsageRecord(
        "r1", DAY + 3600.0, "local", provider="openai", account="openai:a", model="m",
        usage=Usage(input=1000, output=200, known=True),
    )  # fmt: skip
    services.ledger.load([record])
    services.close_stores()


DAY = int(time.time()) // 86_400 * 86_400 - 86_400  # named in each call: midnight may pass before a test
ON_DAY = ("--day", datetime.fromtimestamp(DAY, UTC).strftime("%Y-%m-%d"))


def test_the_day_that_is_not_named_is_yesterday() -> None:
    before, told, after = time.time(), reconcile._day(None), time.time()
    assert before - 2 * 86_400 < told <= after - 86_400 and told % 86_400 == 0


def test_reconcile_compares_a_day_with_the_vendors_page(sh: Shell, folder: Path) -> None:
    _day_of_use(folder)
    agreed = sh("account", "reconcile", "openai:a", *ON_DAY, "--input", "1000", "--output", "200")
    assert (agreed.code, agreed.err) == (0, "") and "They agree." in agreed.out
    more = sh("account", "reconcile", "openai:a", *ON_DAY, "--input", "5000", "--output", "200", "--json")
    assert more.code == 1 and not more.json["agrees"]
    assert more.json["kinds"][0] == {"kind": "input", "ours": 1000, "theirs": 5000, "difference": 4000}
    assert "beside the pool" in more.json["reasons"][0]
    day = datetime.fromtimestamp(DAY - 5 * 86_400, UTC).strftime("%Y-%m-%d")
    assert sh("account", "reconcile", "openai:a", "--day", day, "--input", "0").code == 0


def test_reconcile_refuses_in_one_line(sh: Shell, folder: Path) -> None:
    _day_of_use(folder)
    assert "POOL_VENDOR_ADMIN_KEY" in sh("account", "reconcile", "openai:a", *ON_DAY).refused(2)
    assert "--day" in sh("account", "reconcile", "openai:a", "--day", "soon").refused(2)
    assert "no such account" in sh("account", "reconcile", "openai:b", *ON_DAY, "--input", "1").refused(1)


def test_reconcile_asks_the_vendor_with_a_key_it_does_not_keep(
    sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _day_of_use(folder)
    pages = [
        {"data": [{"start_time": DAY,
                   "results": [{"input_tokens": 400, "output_tokens": 200, "num_model_requests": 1}]}],
         "has_more": True, "next_page": "p2"},
        {"data": [{"start_time": DAY,
                   "results": [{"input_tokens": 600, "output_tokens": 0, "num_model_requests": 0}]}]},
    ]  # fmt: skip
    asked: list[HttpRequest] = []

    async def send(self: Upstream, request: HttpRequest) -> HttpAnswer:
        asked.append(request)
        return HttpAnswer(200, {}, json.dumps(pages[len(asked) - 1]).encode())

    monkeypatch.setattr(Upstream, "send", send)
    monkeypatch.setenv("POOL_VENDOR_ADMIN_KEY", "sk-admin-secret")
    done = sh("account", "reconcile", "openai:a", *ON_DAY, "--key-id", "key_1")
    assert done.code == 0 and "They agree." in done.out and "sk-admin-secret" not in done.out
    assert "page=p2" in asked[1].url and "api_key_ids=key_1" in asked[0].url
    kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"sk-admin-secret" not in kept

    parts: list[dict[str, Any]] = [
        {"data": []},
        {"data": [], "has_more": True, "next_page": "p"},
        {"data": [{"start_time": 86_400, "results": []}]},
    ]
    for part in parts:
        pages[:] = [part] * 60
        asked.clear()
        assert "the vendor's report" in sh("account", "reconcile", "openai:a", *ON_DAY).refused(1)

    async def refused(self: Upstream, request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(401, {}, b"no sk-admin-secret")

    monkeypatch.setattr(Upstream, "send", refused)
    assert "answered 401" in sh("account", "reconcile", "openai:a", *ON_DAY).refused(1)
