"""`pool-server doctor`: finds what is wrong, names the fix, changes nothing, tells no secret."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pool_server.cli.doctor import WARNING, WRONG, Finding, examine
from pool_server.core import disk
from tests.cli.conftest import Shell
from tests.fakes import FakeProviders, account, fake_settings, key_account, write_pool
from tests.process import PoolProcess


@pytest.fixture(autouse=True)
def any_port(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_LISTEN_ADDR", "127.0.0.1:0")


def findings(sh: Shell, code: int) -> dict[str, dict[str, Any]]:
    done = sh("doctor", "--json")
    assert done.code == code, done
    assert done.json["ok"] is (code == 0)
    return {row["check"]: row for row in done.json["checks"]}


def look(env: dict[str, str] | None = None, path: Path | None = None, now: float | None = None) -> dict[str, Finding]:
    env = {"PROXY_LISTEN_ADDR": "127.0.0.1:0"} | (env or {})
    found = examine(path, env, time.time() if now is None else now)
    return {finding.check: finding for finding in found}


def test_a_sound_pool(sh: Shell, folder: Path) -> None:
    write_pool(folder / "pool", [account("claude:a"), account("codex:b", plan="pro"), key_account("openai:c")])
    found = findings(sh, 0)
    assert {row["state"] for row in found.values()} == {"ok"}
    assert {"settings", "clock", "port", "store", "claude:a", "codex:b", "openai:c"} == set(found)
    assert "refreshable" in found["claude:a"]["message"]
    assert not (folder / "data").exists()


def test_every_broken_file_is_named_with_its_fix(sh: Shell, folder: Path) -> None:
    write_pool(folder / "pool", [account("claude:good"), account("claude:old", life_s=-100.0)])
    old = folder / "pool/claude_old.json"
    data = json.loads(old.read_text())
    del data["claudeAiOauth"]["refreshToken"]
    old.write_text(json.dumps(data))
    (folder / "pool/claude_text.json").write_text("SENTINEL not json")
    (folder / "pool/claude_empty.json").write_text("{}")
    (folder / "pool/qwen_big.json").write_text(" " * (2 << 20))
    found = findings(sh, 1)
    assert found["claude:good"]["state"] == "ok"
    for check in ("claude:old", "claude:text", "claude:empty", "qwen:big"):
        assert found[check]["state"] == WRONG
        assert found[check]["fix"]
    assert "ended at" in found["claude:old"]["message"]
    assert "SENTINEL" not in json.dumps(found)


def test_mistaken_settings(sh: Shell, folder: Path) -> None:
    (folder / "config.toml").write_text("max_attemps = 3\n")
    found = findings(sh, 1)
    assert list(found) == ["settings"]
    assert "did you mean" in found["settings"]["message"]


def test_files_others_can_read(folder: Path) -> None:
    write_pool(folder / "pool", [key_account("openai:c")])
    os.chmod(folder / "pool/openai_c.json", 0o644)
    config = folder / "config.toml"
    config.write_text('friend_code = "SENTINEL"\n')
    os.chmod(config, 0o644)
    found = look(path=config)
    for path in (str(config), "pool/openai_c.json"):
        assert found[path].state == WARNING
        assert found[path].fix == f"chmod 600 {path}"
    assert "SENTINEL" not in repr(found)


def test_a_google_sign_in_needs_the_client(folder: Path) -> None:
    write_pool(folder / "pool", [account("gemini:g"), account("gemini:h", life_s=-100.0)])
    found = look()
    assert (found["gemini:g"].state, found["gemini:h"].state) == (WARNING, WRONG)
    assert "GEMINI_OAUTH_CLIENT_ID" in found["gemini:g"].fix
    env = {"GEMINI_OAUTH_CLIENT_ID": "x", "GEMINI_OAUTH_CLIENT_SECRET": "y"}
    assert {look(env)[check].state for check in ("gemini:g", "gemini:h")} == {"ok"}


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"PROXY_LISTEN_ADDR": "0.0.0.0:0"}, "loopback"),
        ({"PROXY_LISTEN_ADDR": "203.0.113.9:0", "FRIEND_CODE": "x"}, "cannot listen"),
    ],
)
def test_an_address_that_cannot_be(folder: Path, env: dict[str, str], words: str) -> None:
    found = look(env)["port"]
    assert found.state == WRONG
    assert words in found.message
    assert found.fix


def test_a_clock_that_is_wrong(folder: Path) -> None:
    assert look(now=1_000_000.0)["clock"].state == WRONG
    assert look(now=time.time() - 86_400)["clock"].state == WARNING


def test_a_damaged_ledger(folder: Path) -> None:
    (folder / "data/ledger").mkdir(parents=True)
    (folder / "data/ledger/data.mdb").write_bytes(b"x" * 100_000)
    found = look()["store"]
    assert found.state == WRONG
    assert "restore" in found.fix


def test_what_cannot_be_read_is_named_beside_the_rest(folder: Path) -> None:
    write_pool(folder / "pool", [key_account("openai:c")])
    (folder / "pool" / "claude_a.json").symlink_to("claude_a.json")
    (folder / "pool" / "gemini").symlink_to("gemini")
    found = look()
    assert found["openai:c"].state == "ok"
    for name in ("claude:a", "pool/gemini/"):
        assert found[name].state == WRONG and "symbolic links" in found[name].message and "read it" in found[name].fix


def test_a_sign_in_in_two_files_is_named(folder: Path) -> None:
    one = account("claude:a")
    write_pool(folder / "pool", [one])
    (folder / "pool" / "claude_b.json").write_bytes(one.write(folder / "pool").read_bytes())
    found = look()
    assert found["claude:a"].state == "ok"
    assert (found["claude:b"].state, found["claude:b"].message) == (
        WRONG, "claude_b.json: the same sign-in as claude_a.json",
    )  # fmt: skip


def test_each_account_says_where_its_secret_goes(folder: Path) -> None:
    write_pool(
        folder / "pool",
        [
            account("claude:a"),
            key_account("gemini:b", base_url="http://ai.example.com/v1beta", dialects=["gemini"]),
            key_account("openai:c", base_url="http://192.168.0.7:8000", proxy_url="http://u:secret@proxy.example:3128"),
        ],
    )
    env = {"PROXY_LISTEN_ADDR": "127.0.0.1:0"}
    found = [finding for finding in examine(None, env, time.time()) if ":" in finding.check]
    told = {finding.check: finding.message for finding in found if finding.state == "ok"}
    assert told["claude:a"].endswith("goes to api.anthropic.com, platform.claude.com")
    assert told["openai:c"] == "API key; goes to http://192.168.0.7:8000 through proxy.example:3128"
    clear = [finding for finding in found if finding.state == WARNING]
    assert [finding.check for finding in clear] == ["gemini:b"] and "in the clear" in clear[0].message


def test_what_the_running_server_knows_to_be_lost_is_not_called_ok(folder: Path, sh: Shell) -> None:
    fakes = FakeProviders([account("claude:a"), account("claude:b")])
    with fakes, PoolProcess(folder, fake_settings(folder, fakes)) as pool:
        assert look(path=folder / "config.toml")["claude:a"].state == "ok"
        fakes.accounts["claude:a"].refresh = "another"  # the one in the file is worth nothing now
        pool.call("POST", "/admin/accounts/claude:a/refresh", {})
        found = look(path=folder / "config.toml")
        assert (found["claude:a"].state, found["claude:b"].state) == (WRONG, "ok")
        assert "needs a new sign-in" in found["claude:a"].message


@pytest.mark.parametrize(("name", "words"), [("gemini:a", "2026-06-18"), ("qwen:a", "2026-04-15")])
def test_a_sign_in_that_its_vendor_has_ended_is_told(folder: Path, name: str, words: str) -> None:
    write_pool(folder / "pool", [account(name), key_account(name.replace(":a", ":b"))])
    told = [finding for finding in look().values() if finding.check.endswith(" sign-ins")]
    assert len(told) == 1 and told[0].state == WARNING and words in told[0].message


def test_an_empty_and_a_missing_pool(folder: Path) -> None:
    assert look()["accounts"].state == WARNING
    (folder / "pool").rmdir()
    assert look()["accounts"].state == WRONG


def test_a_folder_in_which_new_tokens_cannot_be_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pool(folder / "pool", [key_account("openai:c")])
    pool = {Path("pool")}
    monkeypatch.setattr(disk, "unwritable", lambda place: "Read-only file system" if place in pool else "")
    assert "pool/" not in look(), "keys stay as they are"
    write_pool(folder / "pool", [account("claude:a")])
    found = look()["pool/"]
    assert found.state == WARNING and "new tokens of a sign-in are kept in data/escrow/" in found.message
    assert ":ro" in found.fix


def test_an_owner_who_is_nobody_is_named(sh: Shell, folder: Path) -> None:
    write_pool(folder / "pool", [key_account("claude:a", owner="Anna"), key_account("claude:b", owner="Nobody")])
    made = sh("user", "add", "Anna", "--json").json
    assert [finding for finding in look().values() if "owner" in finding.message] == [look()["claude:b"]]
    assert look()["claude:b"].state == WARNING and "nobody" in look()["claude:b"].message
    write_pool(folder / "pool", [key_account("claude:b", owner=made["id"])])
    assert not [finding for finding in look().values() if "owner" in finding.message]
