"""`pool-server import` from a program whose store, people or keys cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_import import codex_pool, put, rows


def test_no_store_of_tokens_is_told_by_its_name(sh: Shell, folder: Path) -> None:
    path = put(folder / "home/tokens.db", "not a database " * 9)
    assert f"{path} is no token store of oauthrouter" in sh("import", "oauthrouter", str(folder / "home")).refused(1)


@pytest.mark.parametrize(("raw", "told"), [(b"{", "JSON"), (b"[{]", "JSON"), (b"\xff\xfe", ""), (b"7", "")])
def test_accounts_come_over_though_the_people_cannot_be_read(sh: Shell, folder: Path, raw: bytes, told: str) -> None:
    home = codex_pool(folder)
    (home / "data/pool_users.json").write_bytes(raw)
    found = rows(sh, "codex-pool", str(home))
    taken, note = found["pool_users.json"]
    assert (taken, len(note.splitlines())) == ("", 1) and told in note
    assert [where for where, row in found.items() if row[0]]


def test_sign_ins_come_over_though_the_keys_cannot_be_read(sh: Shell, folder: Path) -> None:
    qwen = {"type": "qwen", "access_token": "a", "refresh_token": "refresh-of-q", "expired": "2030-01-01T00:00:00Z"}
    put(folder / "home/auths/qwen-q.json", qwen)
    (folder / "home/config.yaml").write_bytes(b"api-keys:\n  - \xff\xfe\n")
    found = rows(sh, "cliproxyapi", str(folder / "home"))
    assert found["config.yaml"] == ("", "it cannot be read: no key comes over")
    (taken,) = [row[0] for row in found.values() if row[0]]
    assert taken.startswith("qwen:")
