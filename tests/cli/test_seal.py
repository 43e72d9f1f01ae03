"""`account seal`, `account import`, `account export`: as the shell runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pool_server.accounts.credentials.sealing import ENVIRONMENT
from tests.accounts.kit import claude
from tests.cli.conftest import Shell
from tests.fakes import FakeProviders, fake_settings, key_account
from tests.fakes import account as sign_in
from tests.process import PoolProcess, to_toml

SECRET = "sk-ant-oat01-first"


@pytest.fixture
def pool(folder: Path) -> Path:
    for name in "ab":
        (folder / "pool" / f"claude_{name}.json").write_text(json.dumps(claude(SECRET + name)))
    return folder / "pool"


def held(pool: Path) -> list[bool]:
    """Whether each file shows its secret."""
    return [SECRET in path.read_text() for path in sorted(pool.glob("*.json"))]


def test_files_are_sealed_with_a_new_key_sealed_anew_and_written_in_plain(
    sh: Shell, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--new-key" in sh("account", "seal").refused(1)
    first = sh("account", "seal", "--new-key").out.strip()
    assert held(pool) == [True, True]
    monkeypatch.setenv(ENVIRONMENT, first)
    assert sh("account", "seal", "claude:a").out == "claude:a is sealed with key k1\n"
    assert held(pool) == [False, True]
    assert "1 of 2 credential files are sealed" in sh("doctor").out
    assert sh("account", "seal").out.splitlines() == [
        "claude:a is sealed with key k1 already", "claude:b is sealed with key k1",
    ]  # fmt: skip
    assert json.loads(sh("account", "export", "claude:b").out)["claudeAiOauth"]["accessToken"] == SECRET + "b"
    second = sh("account", "seal", "--new-key").out.strip()
    monkeypatch.setenv(ENVIRONMENT, f"{second},{first}")
    assert sh("account", "seal").out.count("is sealed with key k2\n") == 2
    monkeypatch.setenv(ENVIRONMENT, first)
    done = sh("account", "seal", "--plain", "claude:a")
    assert done.code == 1 and "sealed with key k2" in done.err and first not in done.err
    assert "sealed with key k2, which" in sh("doctor").out
    monkeypatch.setenv(ENVIRONMENT, second)
    assert sh("account", "seal", "--plain").code == 0 and held(pool) == [True, True]


def test_what_cannot_be_sealed_is_refused_in_one_line(sh: Shell, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, "k1:short")
    for command in (("account", "seal"), ("serve",)):
        assert ENVIRONMENT in sh(*command).refused(1)
    monkeypatch.setenv(ENVIRONMENT, _key(sh, monkeypatch))
    assert "claude:z" in sh("account", "seal", "claude:a", "claude:z").refused(1)
    assert held(pool) == [True, True]
    (pool / "claude_b.json").write_text("{")
    done = sh("account", "seal")
    assert done.code == 1 and "claude:b: not JSON" in done.err and "left as they are: claude:b" in done.err
    assert held(pool)[0] is False


def _key(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv(ENVIRONMENT)
    return sh("account", "seal", "--new-key").out.strip()


@pytest.mark.slow
def test_a_running_server_must_hold_the_key(sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeProviders([key_account("claude:a")]) as fakes:
        made = sh("account", "seal", "--new-key").out.strip()
        with PoolProcess(folder, fake_settings(folder, fakes)) as pool:
            monkeypatch.setenv(ENVIRONMENT, made)
            assert "start it anew" in sh("account", "seal").refused(1)
            assert pool.call("POST", "/admin/reload")[0] == 200
        with PoolProcess(folder, fake_settings(folder, fakes), env={ENVIRONMENT: made}) as pool:
            assert "is sealed with key k1" in sh("account", "seal").out
            assert pool.call("POST", "/admin/reload")[1]["rejected"] == []
            assert sh("account", "test", "claude:a").code == 0


def test_a_file_of_a_cli_is_brought_in_and_given_back(sh: Shell, folder: Path) -> None:
    with FakeProviders([sign_in("claude:mine")]) as fakes:
        (folder / "config.toml").write_text(to_toml(fake_settings(folder, fakes)))
        file = (folder / "pool" / "claude_mine.json").rename(folder / "auth.json")
        secret = json.loads(file.read_text())["claudeAiOauth"]["accessToken"]
        asked = sh("account", "import", "auth.json", "--name", "mine", stdin="n\n")
        assert asked.code == 1 and "do not allow it" in asked.out and not list((folder / "pool").glob("*.json"))
        done = sh("account", "import", "auth.json", "--name", "mine", "--yes")
        assert done.code == 0 and "claude:mine is in the pool" in done.out and secret not in done.out
        again = sh("account", "import", "-", "--yes", stdin=file.read_text())
        assert again.code == 1 and "claude:mine" in again.err
    given = json.loads(sh("account", "export", "claude:mine").out)["claudeAiOauth"]["accessToken"]
    assert given.startswith("sk-ant-oat")
    assert sh("account", "export", "claude:mine", "-o", "out.json").out == "claude:mine is in out.json\n"
    assert (folder / "out.json").stat().st_mode & 0o777 == 0o600 and given in (folder / "out.json").read_text()
    assert "there already" in sh("account", "export", "claude:mine", "-o", "out.json").refused(1)
    assert "no such account" in sh("account", "export", "claude:z").refused(1)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b'{"a": 1}', b"{" * 2000, b"123456"])
def test_what_is_no_credential_is_refused_in_one_line(sh: Shell, folder: Path, content: bytes) -> None:
    (folder / "auth.json").write_bytes(content)
    sh("account", "import", "auth.json", "--yes").refused(1)
    assert not list((folder / "pool").glob("*.json"))
