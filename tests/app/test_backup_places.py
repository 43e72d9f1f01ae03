"""Copies that are encrypted, hold credentials, and are kept in another place too."""

from __future__ import annotations

import base64
import calendar
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pool_server.app.backup_schedule import BackupSchedule, list_backups, made_before
from pool_server.cli import cli
from pool_server.core.settings import Backup
from pool_server.storage import StoreError, backup_folder, prove, restore
from pool_server.storage.lmdb.store import Store
from pool_server.storage.object_store import open_place
from tests.fakes.object_store import s3_server

KEY = "k1:" + base64.b64encode(b"1" * 32).decode()
SECRET = "sk-ant-a-secret-of-an-account"
NOW = 1_800_000_000.0


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POOL_STORE_KEY", KEY)
    folder = tmp_path / "data"
    store = Store.open(folder / "ledger", tables=("t",), durable=True)
    store.write(lambda txn: txn.put("t", b"k", b"of that day"))
    store.close()
    pool = tmp_path / "pool"
    (pool / "claude").mkdir(parents=True)
    (pool / "claude_work.json").write_text(json.dumps({"api_key": SECRET}))
    (pool / "claude" / "home.json").write_text("{}")
    (pool / ".removed").mkdir()
    (pool / ".removed" / "old.json").write_text("{}")
    return folder


@pytest.fixture
def stores(data_dir: Path) -> Iterator[dict[str, Store]]:
    opened = {"ledger": Store.open(data_dir / "ledger", tables=("t",), durable=True)}
    yield opened
    opened["ledger"].close()


def pool_dir(data_dir: Path) -> Path:
    return data_dir.parent / "pool"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["copy.tar.enc", "copy.tar.zst.enc"])
def test_an_encrypted_copy_comes_back_with_its_credentials(data_dir: Path, tmp_path: Path, name: str) -> None:
    backup_folder(data_dir, tmp_path / name, now=NOW, pool_dir=pool_dir(data_dir))
    data = (tmp_path / name).read_bytes()
    assert SECRET.encode() not in data and b"of that day" not in data and b"manifest" not in data
    assert prove(tmp_path / name).keys["ledger"] > 0
    done = restore(tmp_path / name, tmp_path / "other")
    assert done.credentials == 2
    assert json.loads((tmp_path / "other/pool/claude_work.json").read_text()) == {"api_key": SECRET}
    assert (tmp_path / "other/pool/claude/home.json").exists() and not (tmp_path / "other/pool/.removed").exists()
    assert (tmp_path / "other/pool/claude_work.json").stat().st_mode & 0o777 == 0o600


def test_credentials_are_only_put_into_an_encrypted_copy(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="encrypted copy"):
        backup_folder(data_dir, tmp_path / "copy.tar.zst", now=NOW, pool_dir=pool_dir(data_dir))
    assert not (tmp_path / "copy.tar.zst").exists()


@pytest.mark.parametrize(
    ("key", "words"), [("", "needs a key"), ("k1:short", "32 bytes"), ("k2:" + KEY[3:], "not here")]
)
def test_without_the_key_nothing_is_made_or_opened(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, words: str
) -> None:
    backup_folder(data_dir, tmp_path / "copy.enc", now=NOW)
    monkeypatch.setenv("POOL_STORE_KEY", key)
    with pytest.raises(StoreError, match=words):
        prove(tmp_path / "copy.enc")
    if words != "not here":
        with pytest.raises(StoreError, match=words):
            backup_folder(data_dir, tmp_path / "new.enc", now=NOW)
    assert not (tmp_path / "new.enc").exists()


@pytest.mark.parametrize("cut", [0, 3, 50, 500])
def test_an_encrypted_copy_that_was_cut_is_none(data_dir: Path, tmp_path: Path, cut: int) -> None:
    copy = tmp_path / "copy.tar.zst.enc"
    backup_folder(data_dir, copy, now=NOW)
    whole = copy.read_bytes()
    for data in (whole[:cut], whole[: -cut or None][:-1], whole[:200] + b"x" + whole[201:]):
        copy.write_bytes(data)
        with pytest.raises(StoreError):
            prove(copy)


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server("copies") as options:
        yield options


@pytest.mark.slow
@pytest.mark.parametrize("bucket", [False, True])
def test_the_mirror_gets_each_copy_and_keeps_as_many(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store], s3: dict[str, str], bucket: bool
) -> None:
    place = f"s3://copies/{tmp_path.name}" if bucket else str(tmp_path / "mirror")
    wanted = Backup(
        str(tmp_path / "copies"),
        keep=2,
        encrypt=True,
        credentials=True,
        mirror=place,
        mirror_options=s3 if bucket else {},
    )
    clock = [NOW]
    plan = BackupSchedule(wanted, stores, data_dir, pool_dir=pool_dir(data_dir), clock=lambda: clock[0])
    made = []
    for _ in range(3):
        found = plan.run()
        assert found is not None
        made.append(found.name)
        assert plan.run() is None
        clock[0] += 25 * 3600
    there = open_place(place, wanted.mirror_options).list("")
    assert (
        [one.name for one in there] == made[1:] == [path.name for path in reversed(list_backups(tmp_path / "copies"))]
    )
    open_place(place, wanted.mirror_options).fetch(made[-1], tmp_path / "back.enc")
    assert prove(tmp_path / "back.enc").created == NOW + 50 * 3600


def test_a_mirror_that_refuses_is_told_and_tried_again(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store]
) -> None:
    (tmp_path / "mirror").write_text("in the way")
    plan = BackupSchedule(
        Backup(str(tmp_path / "copies"), mirror=str(tmp_path / "mirror")), stores, data_dir, clock=lambda: NOW
    )
    with pytest.raises(StoreError, match="mirror"):
        plan.run()
    assert len(list_backups(tmp_path / "copies")) == 1
    (tmp_path / "mirror").unlink()
    assert plan.run() is None
    assert len(list((tmp_path / "mirror").iterdir())) == 1


def test_copies_before_a_time_are_found_newest_first() -> None:
    names = [f"pool-server-2026112{day}-060000.tar.zst{end}" for day, end in ((7, ""), (8, ".enc"), (9, ""))]
    at = calendar.timegm((2026, 11, 28, 12, 0, 0, 0, 0, 0))
    assert made_before([*names, "other"], at) == [names[1], names[0]]
    assert made_before(names, 0.0) == []


class Shell:
    def __init__(self, folder: Path, options: dict[str, str]) -> None:
        self.config = folder / "config.toml"
        told = "".join(f'{name} = "{value}"\n' for name, value in options.items())
        self.config.write_text(
            f'data_dir = "{folder / "data"}"\npool_dir = "{folder / "pool"}"\n[backup]\nfolder = "{folder / "none"}"\n'
            f'mirror = "s3://copies/{folder.name}"\n[backup.mirror_options]\n{told}'
        )

    def __call__(self, *args: str) -> Result:
        return CliRunner().invoke(cli, [*args, "--config", str(self.config)])


@pytest.mark.slow
def test_a_machine_that_is_gone_comes_back_from_the_bucket(
    data_dir: Path, tmp_path: Path, stores: dict[str, Store], s3: dict[str, str]
) -> None:
    shell = Shell(tmp_path, s3)
    copies = Backup(
        str(tmp_path / "copies"),
        encrypt=True,
        credentials=True,
        mirror=f"s3://copies/{tmp_path.name}",
        mirror_options=s3,
    )
    BackupSchedule(copies, stores, data_dir, pool_dir=pool_dir(data_dir), clock=lambda: NOW).run()
    stores["ledger"].close()
    for folder in (data_dir, pool_dir(data_dir)):
        folder.rename(folder.with_name(f"gone-{folder.name}"))
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(NOW + 60))
    early = shell("restore", "--at", "2001-01-01")
    assert early.exit_code == 1 and "no scheduled copy" in early.output
    assert "is whole" in shell("restore", "--at", at, "--check").output
    told = shell("restore", "--at", at)
    assert told.exit_code == 0, told.output
    assert json.loads((pool_dir(data_dir) / "claude_work.json").read_text()) == {"api_key": SECRET}
    assert not (data_dir / "pool").exists()
    with_pool = shell("restore", "--at", at)
    assert "is not empty" in with_pool.output and (data_dir / "pool" / "claude_work.json").exists()
    assert shell("restore").exit_code == 2 and shell("restore", "--at", "yesterday").exit_code == 2
