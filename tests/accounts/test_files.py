"""Credential files: which are found, which are rejected and why, and that a write leaves the old or the new one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pool_server.accounts import ReloadReport
from pool_server.accounts.credentials import files
from pool_server.accounts.credentials.scan import ROOT, scan
from pool_server.accounts.registry import gently
from pool_server.providers import CredentialRejectedError
from pool_server.providers.json_fields import named_twice
from pool_server.providers.keys.pasted import recognise
from tests.accounts.kit import NOW, Pool, ask, claude, key


def put(folder: Path, name: str, text: str = "{}") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_prefixes_and_folders_name_the_provider(tmp_path: Path) -> None:
    for name in (
        "claude_work.json", "gemini_a.json", "qwen_b.json", "openai_c.json", "personal.json", "codex_team.json",
        "claude/home.json", "gemini/claude_odd.json", "codex/me@example.com.json",
        "README.md", ".hidden.json", ".claude_x.json.1234.pool-tmp", "notes.json.bak",
    ):  # fmt: skip
        put(tmp_path, name)
    seen = scan(tmp_path)
    assert not seen.rejected and not seen.unread
    assert {f.account for f in seen.found} == {
        "claude:work", "gemini:a", "qwen:b", "openai:c", "codex:personal", "codex:team",
        "claude:home", "gemini:claude_odd", "codex:me@example.com",
    }  # fmt: skip


def test_what_cannot_be_an_account_says_why(tmp_path: Path) -> None:
    for name in ("claude_.json", "a:b.json", "what#.json", f"{'x' * 121}.json", "elsewhere/x.json"):
        put(tmp_path, name)
    put(tmp_path, "claude_work.json")
    put(tmp_path, "claude/work.json")
    seen = scan(tmp_path)
    assert [f.account for f in seen.found] == ["claude:work"]
    reasons = {r.file: r.reason for r in seen.rejected}
    assert reasons["claude_work.json"] == "the same account as claude/work.json"
    assert "not named after a provider" in reasons["elsewhere/x.json"]
    assert len(reasons) == 6


@pytest.mark.parametrize("name", ["claude_a.JSON", "claude_a.Json", "claude_a.json.txt", "claude/a.JSON.TXT"])
def test_a_file_whose_name_ends_otherwise_is_told(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    for silent in ("claude_a.json~", "claude_a.json.bak", "notes.txt", ".claude_a.JSON"):
        put(tmp_path, silent)
    seen = scan(tmp_path)
    assert [(one.file, str(one.reason)) for one in seen.rejected] == [(name, "its name must end in .json")]


def test_a_missing_folder_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    seen = scan(tmp_path / "nowhere")
    assert not seen.found and "cannot be read" in str(seen.unread[ROOT]) and not seen.folders


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^empty$"),
        (b" \n", "^empty$"),
        (b"{", "not JSON"),
        ('{"label": "ä"}'.encode("latin-1"), "no UTF-8 text"),
        (b'{"api_key": "one", "api_key": "two"}', "api_key is in it twice"),
        (b'{"api_key": "one", "more": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}", "^nested too deeply$"),
        (b'{"claudeAiOauth": {"accessToken": "a", "expiresAt": 1, "accessToken": "b"}}', "accessToken is in it twice"),
        (b"\xff\xfe{}", "not JSON: it is UTF-16 text"),
        ('{"api_key":"k"}'.encode("utf-16-le"), "not JSON: it is UTF-16 text"),
        ('{"api_key":"k"}'.encode("utf-16-be"), "not JSON: it is UTF-16 text"),
        (b"\xef\xbb\xbf{", "not JSON"),
        (b"[" * 200_000, "^nested too deeply$"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b" " * (files.MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_broken_content_is_rejected(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(CredentialRejectedError, match=reason):
        files.read(path)


@pytest.mark.parametrize("text", ['{"a":' * 20_000 + "1" + "}" * 20_000, "[" * 20_000])
def test_what_is_nested_too_deeply_is_told_so_wherever_it_comes_from(text: str) -> None:
    with pytest.raises(CredentialRejectedError, match=r"^nested too deeply$"):
        recognise(text, now=NOW)
    assert str(named_twice(text)) == "nested too deeply"


def test_a_file_with_a_byte_order_mark_is_read_and_stays_readable(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {})
    (pool.folder / "claude_a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(claude()).encode())
    assert pool.reload().added == ["claude:a"]
    files.write_back(pool.folder / "claude_a.json", {"label": "mine"})
    assert json.loads((pool.folder / "claude_a.json").read_bytes())["label"] == "mine"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("mystery_work.json", {"api_key": "sk-1234567890"}, "its name says no provider"),
        ("router.json", {"api_key": "sk-or-v1-1234567890"}, "openrouter_router.json"),
        ("work.json", claude(), "name the file claude_work.json"),
        ("anything.json", {"api_key": "k" * 30, "base_url": "https://ai.example.com"}, "its name says no provider"),
    ],
)
def test_a_file_without_a_provider_in_its_name_is_nobodys_account(
    tmp_path: Path, name: str, data: dict[str, Any], words: str
) -> None:
    pool = Pool(tmp_path, {name: data, "codex_key.json": {"api_key": "sk-1234567890"}})
    assert [row.id for row in pool.accounts.describe_all()] == ["codex:key"]
    (row,) = pool.accounts.rejected()
    assert row["file"] == name and words in row["reason"]
    (pool.folder / name).unlink()
    pool.write("codex/" + name, {"api_key": "sk-1234567890"})
    assert pool.reload().rejected == [] and len(pool.accounts.describe_all()) == 2


@pytest.mark.parametrize(
    ("name", "data", "taken"),
    [
        ("gemini/openai_a.json", {"api_key": "sk-1234567890"}, False),
        ("claude/kimi_a.json", {"api_key": "sk-1234567890"}, False),
        ("qwen/claude_a.json", {"api_key": "sk-1234567890"}, False),
        ("openai/deepseek_a.json", {"api_key": "sk-1234567890", "base_url": "https://ai.example.com"}, False),
        ("codex/openai_a.json", {"OPENAI_API_KEY": "sk-1234567890"}, True),  # names its vendor
        ("claude/claude_openai_a.json", {"api_key": "sk-1234567890"}, True),
        ("claude_openai_a.json", {"api_key": "sk-1234567890"}, True),
        ("claude/gemini_a.json", {"claudeAiOauth": {"accessToken": "tok-1234567890"}}, True),  # its shape says whose
    ],
)
def test_a_key_whose_folder_and_name_say_two_vendors_goes_to_neither(
    tmp_path: Path, name: str, data: dict[str, Any], taken: bool
) -> None:
    pool = Pool(tmp_path, {name: data})
    assert (len(pool.accounts.describe_all()), len(pool.accounts.rejected())) == ((1, 0) if taken else (0, 1))
    assert taken or "rename it" in pool.accounts.rejected()[0]["reason"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(CredentialRejectedError, match="not a regular file"):
        files.read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("disabled", "yes", "disabled must be true or false"),
        ("priority", 1.5, "priority must be a whole number"),
        ("priority", True, "priority must be a whole number"),
        ("weight", 0, "weight must be a number from 0.01 to 1000"),
        ("weight", "2", "weight must be a number"),
        ("reserve", 1.5, "reserve must be a number from 0 to 1"),
        ("proxy_url", "socks4://x:1", "proxy_url must be an http"),
        ("proxy_url", "socks5://:1", "proxy_url must be an http"),
        ("proxy_url", "http://x:99999", "proxy_url must be an http"),
        ("owner", 7, "owner must be a text"),
    ],
)
def test_options_are_checked(field: str, value: Any, reason: str) -> None:
    with pytest.raises(CredentialRejectedError, match=reason):
        files.options({field: value})


def test_options_are_optional() -> None:
    assert files.options({"disabled": None}) == files.Options()
    given = {"disabled": True, "priority": -3, "weight": 2, "reserve": 0.5, "owner": "ann", "proxy_url": "http://p:1"}
    assert files.options({**given, "api_key": "x"}) == files.Options(**given)  # type: ignore[arg-type]


def test_a_write_changes_its_fields_alone(tmp_path: Path) -> None:
    before = {**claude(), "note": {"of": ["mine", 1.5, None]}, "Ünïcode": "é"}
    path = put(tmp_path, "claude_a.json", json.dumps(before))
    path.chmod(0o644)
    digest = files.write_back(path, {"claudeAiOauth": {"accessToken": "new"}, "disabled": True})
    after = json.loads(path.read_text())
    assert after.pop("disabled") is True
    assert after["claudeAiOauth"].pop("accessToken") == "new"
    del before["claudeAiOauth"]["accessToken"]
    assert after == before and list(after) == list(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files.read(path)[1] == digest
    assert os.listdir(tmp_path) == ["claude_a.json"]


def test_a_write_through_a_link_changes_the_file_behind_it(tmp_path: Path) -> None:
    real = put(tmp_path / "elsewhere", "secret.json")
    link = tmp_path / "claude_a.json"
    link.symlink_to(real)
    files.write_back(link, {"disabled": True})
    assert link.is_symlink() and json.loads(real.read_text()) == {"disabled": True}


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.json", '{"api_key": "old"}')

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        files.write_back(path, {"api_key": "new"})
    assert json.loads(path.read_text()) == {"api_key": "old"} and os.listdir(tmp_path) == ["a.json"]


def test_a_new_file_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "openai_x.json"
    files.create(path, {"api_key": "k"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        files.create(path, {"api_key": "other"})


WRITER = """
import sys
from pathlib import Path
from pool_server.accounts.credentials import files
n = 0
print("ready", flush=True)
while True:
    n += 1
    files.write_back(Path(sys.argv[1]), {"tokens": {"access_token": str(n) * 4000, "n": n}})
"""


def test_kill_9_in_a_write_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = put(tmp_path, "personal.json", json.dumps({"tokens": {"access_token": "x", "n": 0}, "keep": "me"}))
    for round_ in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            before = path.stat().st_mtime_ns
            while path.stat().st_mtime_ns == before:
                time.sleep(0.001)
            time.sleep(0.003 * round_)
            writer.send_signal(signal.SIGKILL)
        data, _ = files.read(path)
        assert data["keep"] == "me"
        assert data["tokens"]["access_token"] == str(data["tokens"]["n"]) * 4000
    files.sweep(tmp_path, time.time() - 3600)
    left = set(os.listdir(tmp_path)) - {"personal.json"}
    files.sweep(tmp_path, time.time() + 1)
    assert os.listdir(tmp_path) == ["personal.json"]
    assert all(name.endswith(".pool-tmp") for name in left)


def test_a_thousand_files_of_which_a_hundred_are_broken(tmp_path: Path) -> None:
    made = {f"claude_{n}.json": "{" if n % 10 == 0 else claude(f"sk-ant-oat01-{n}") for n in range(1000)}
    pool = Pool(tmp_path, made)
    report = pool.reload()
    assert report.unchanged == 900 and len(report.rejected) == 100
    assert {r.reason for r in report.rejected} == {"not JSON"}
    assert pool.accounts.ready() == (900, 900)


def test_reload_is_a_diff(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude(), "claude_b.json": key(), "claude_c.json": key()})
    pool.write("claude_b.json", key(priority=7))
    pool.write("claude_d.json", key())
    pool.write("claude_e.json", {"nothing": 1})
    (pool.folder / "claude_c.json").unlink()
    report = pool.reload()
    assert (report.added, report.changed, report.removed, report.unchanged) == (
        ["claude:d"], ["claude:b"], ["claude:c"], 1,
    )  # fmt: skip
    assert [r.file for r in report.rejected] == ["claude_e.json"]
    assert pool.accounts.describe("claude:b").priority == 7
    assert pool.reload().unchanged == 3


def test_reading_many_files_holds_the_event_loop_for_moments_only(tmp_path: Path) -> None:
    many = range(1500)
    pool = Pool(tmp_path, {f"claude_{n}.json": claude(f"sk-ant-oat01-{n}") for n in many})
    for n in many:
        pool.write(f"claude_{n}.json", claude(f"sk-ant-oat01-new-{n}"))

    async def run() -> tuple[int, int]:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1
                assert pool.accounts.select(ask()).account is not None

        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        look = pool.accounts._registry.credentials.look(NOW)
        before, report = turns, ReloadReport()
        await gently(pool.accounts._registry._taking(look, report))
        task.cancel()
        return turns - before, len(report.changed)

    turns, changed = asyncio.run(run())
    assert changed == 1500 and turns >= 3


def test_two_reloads_at_once_find_each_change_once(tmp_path: Path) -> None:
    pool = Pool(tmp_path, {"claude_a.json": claude()})
    pool.write("claude_b.json", key())

    async def run() -> list[str]:
        reports = await asyncio.gather(*(pool.accounts.reload() for _ in range(3)))
        return [account for report in reports for account in report.added]

    assert asyncio.run(run()) == ["claude:b"]


def test_no_secret_in_reprs_and_rejections(tmp_path: Path) -> None:
    secret = "sk-ant-oat01-SENTINEL"
    pool = Pool(
        tmp_path, {"claude_a.json": claude(secret), "claude_b.json": {"claudeAiOauth": {"accessToken": [secret]}}}
    )
    report = pool.reload()
    told = repr([report, pool.accounts.describe_all(), pool.accounts.credential("claude:a")])
    assert "SENTINEL" not in told and len(report.rejected) == 1
    assert pool.accounts.credential("claude:a").secret == secret
    assert pool.clock() == NOW
