"""`pool-server backup` and `restore`, as an operator uses them."""

from __future__ import annotations

import os
from pathlib import Path

from pool_server.core.settings import Settings
from tests.cli.conftest import Shell
from tests.process import PoolProcess


def names(sh: Shell) -> list[str]:
    return [row["name"] for row in sh("user", "list", "--json").json]


def test_a_copy_beside_a_running_server_comes_back_when_it_is_stopped(sh: Shell, folder: Path) -> None:
    with PoolProcess(folder, Settings(listen_addr="127.0.0.1:0", friend_code="door")) as pool:
        key = sh("user", "add", "Ann").out.strip()
        assert sh("backup", "copy.tar.zst").code == 0
        sh("user", "add", "Ben")
        assert f"pid {pool.process.pid}" in sh("restore", "copy.tar.zst").refused(1)
    assert (folder / "copy.tar.zst").stat().st_mode & 0o777 == 0o600
    done = sh("restore", "copy.tar.zst")
    assert done.code == 0
    assert "before-restore-" in done.out
    assert names(sh) == ["Ann"]
    with PoolProcess(folder, Settings(listen_addr="127.0.0.1:0", friend_code="door")) as pool:
        assert pool.call("GET", "/status", Authorization=f"Bearer {key}")[0] == 200


def test_what_cannot_be_copied_or_put_back_is_one_line(sh: Shell, folder: Path) -> None:
    assert "nothing to back up" in sh("backup", "copy").refused(1)
    sh("user", "add", "Ann")
    assert "does not exist" in sh("backup", "nowhere/copy").refused(1)
    os.mkfifo(folder / "pipe")  # as a device: a file in its place would be one nobody wanted there
    (folder / "to-a-device").symlink_to("/dev/null")
    for name in ("pipe", "to-a-device", "pool"):
        assert "is not a file" in sh("backup", name).refused(1)
    assert (folder / "pipe").is_fifo() and (folder / "to-a-device").is_symlink()
    assert "no backup" in sh("restore", "copy").refused(1)
    (folder / "copy").write_bytes(b"no copy at all")
    assert "is not a whole backup" in sh("restore", "copy").refused(1)
    for when in ("soon", "0001-01-01", "2026-13-01"):
        assert "is no time; write it as" in sh("restore", "--at", when).refused(2)
    sh("backup", "whole.zst")
    whole = (folder / "whole.zst").read_bytes()
    for most in (0, 100, len(whole) // 2, len(whole) - 1):
        (folder / "cut.zst").write_bytes(whole[:most])
        assert "is not a whole backup: it ends too soon" in sh("restore", "--check", "cut.zst").refused(1)
    assert names(sh) == ["Ann"]
