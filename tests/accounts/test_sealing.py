"""Sealed credential files: unreadable without the key, and used like plain ones with it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.accounts import NewAccount, RefreshError
from pool_server.accounts.credentials import escrow, files, sealing
from pool_server.accounts.credentials.escrow import Escrow
from pool_server.accounts.credentials.sealing import ENVIRONMENT, SealError, parse_keys
from pool_server.core.enums import Provider
from pool_server.providers import CredentialRejectedError
from tests.accounts.kit import Line, Pool, ask, claude, key, token_answer

OLD, NEW = "sk-ant-oat01-first", "sk-ant-oat01-second"
KEYS = {name: base64.b64encode(hashlib.sha256(name.encode()).digest()).decode() for name in ("k1", "k2")}
ONE, BOTH = f"k1:{KEYS['k1']}", f"k2:{KEYS['k2']}, k1:{KEYS['k1']}"


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool whose one file is sealed with k1."""
    monkeypatch.setenv(ENVIRONMENT, ONE)
    pool = Pool(tmp_path, {"claude_a.json": claude(OLD)}, line=Line(lambda _: token_answer(NEW)))
    files.reseal(pool.folder / "claude_a.json", sealed=True)
    pool.again()
    return pool


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_sealed_file_serves_and_its_new_token_is_sealed(sealed: Pool, tmp_path: Path) -> None:
    assert sealed.serve(ask()) == "claude:a"
    assert asyncio.run(sealed.accounts.refresh("claude:a", OLD)).secret == NEW
    assert b"sk-ant" not in everything(tmp_path / "pool")
    assert (sealed.folder / "claude_a.json").stat().st_mode & 0o777 == 0o600
    assert files.sealed_with(sealed.folder / "claude_a.json") == "k1"
    assert sealed.again().credential("claude:a").secret == NEW
    assert sealed.reload().changed == []


def test_a_rotated_token_is_sealed_where_it_waits_for_its_file(sealed: Pool, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_replace", full)
        asyncio.run(sealed.accounts.refresh("claude:a", OLD))
    kept = list((tmp_path / escrow.FOLDER).iterdir())
    assert len(kept) == 1 and b"sk-ant" not in kept[0].read_bytes()
    assert sealed.again().credential("claude:a").secret == NEW


@pytest.mark.parametrize("without", ["", f"k2:{KEYS['k2']}", f"k1:{KEYS['k2']}", "nonsense"])
def test_without_its_key_nothing_is_known_and_nothing_is_lost(
    sealed: Pool, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    before = (sealed.folder / "claude_a.json").read_bytes()
    monkeypatch.setenv(ENVIRONMENT, without)
    os.utime(sealed.folder / "claude_a.json", ns=(1, 1))  # as if it had been sealed by somebody else just now
    report = sealed.reload()
    assert not report.removed and sealed.serve(ask()) == "claude:a", "the running server knows it as it was"
    with pytest.raises(RefreshError, match="went away") as caught:
        asyncio.run(sealed.accounts.refresh("claude:a", OLD))
    assert not caught.value.permanent and not sealed.line.sent
    sealed.again()
    rejected = sealed.accounts.rejected()
    assert len(rejected) == 1 and rejected[0]["file"] == "claude_a.json" and ENVIRONMENT in rejected[0]["reason"]
    assert not any(key in rejected[0]["reason"] for key in KEYS.values())
    assert (sealed.folder / "claude_a.json").read_bytes() == before
    monkeypatch.setenv(ENVIRONMENT, BOTH)
    assert sealed.again().select(ask()).account == "claude:a"


def test_what_the_pool_makes_is_sealed_and_what_is_plain_stays_plain(sealed: Pool) -> None:
    sealed.write("claude_b.json", claude(OLD + "b"))
    sealed.reload()

    async def add() -> None:
        await sealed.accounts.add(NewAccount(Provider.CLAUDE, key(), "c"), test=False)

    asyncio.run(add())
    asyncio.run(sealed.accounts.set_disabled("claude:b", True))
    assert [files.sealed_with(sealed.folder / f"claude_{name}.json") for name in "abc"] == ["k1", None, "k1"]


def test_a_new_key_takes_over_and_the_old_one_still_opens(sealed: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, BOTH)
    path = sealed.folder / "claude_a.json"
    assert sealed.again().credential("claude:a").secret == OLD
    files.reseal(path, sealed=True)
    assert files.sealed_with(path) == "k2"
    monkeypatch.setenv(ENVIRONMENT, BOTH.split(",")[0])
    assert sealed.again().credential("claude:a").secret == OLD
    files.reseal(path, sealed=False)
    monkeypatch.delenv(ENVIRONMENT)
    assert files.sealed_with(path) is None and sealed.again().credential("claude:a").secret == OLD


@given(st.binary(max_size=400))
def test_what_is_sealed_opens_and_a_changed_bit_does_not(plain: bytes) -> None:
    keys = parse_keys(BOTH)
    file = json.loads(json.dumps(keys.seal(plain)))
    assert keys.open(file) == plain and keys.seal(plain) != file
    inner = file[sealing.FIELD]
    for field in ("nonce", "data"):
        raw = bytearray(base64.b64decode(inner[field]))
        raw[len(raw) // 2] ^= 1
        with pytest.raises(SealError, match="damaged"):
            keys.open({sealing.FIELD: inner | {field: base64.b64encode(bytes(raw)).decode()}})
    with pytest.raises(SealError, match="damaged"):
        keys.open({sealing.FIELD: inner | {"key": "k1"}})


@pytest.mark.parametrize(
    "inner",
    [None, [], {}, "x", {"key": "k1"}, {"key": 1, "nonce": "", "data": ""}, {"key": "k1\nsk", "nonce": "", "data": ""},
     {"key": "k1", "nonce": "é", "data": "AAAA"}, {"key": "k1", "nonce": "AAAA", "data": 7}],
)  # fmt: skip
def test_a_damaged_file_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: Any) -> None:
    monkeypatch.setenv(ENVIRONMENT, ONE)
    path = tmp_path / "claude_a.json"
    path.write_text(json.dumps({sealing.FIELD: inner}))
    with pytest.raises(CredentialRejectedError, match=r"^sealed, and damaged$"):
        files.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "k1",
        "k1:",
        ":AAAA",
        f"k1:{KEYS['k1'][:-4]}",
        f"{ONE},{ONE}",
        f"k 1:{KEYS['k1']}",
        f"k1:{KEYS['k1']}é",
        f"{ONE};k2",
    ],
)
def test_keys_that_cannot_be_read_are_refused_without_a_secret(text: str) -> None:
    with pytest.raises(SealError, match=ENVIRONMENT) as caught:
        parse_keys(text)
    assert KEYS["k1"] not in str(caught.value) and "\n" not in str(caught.value)


def test_with_keys_that_cannot_be_read_nothing_is_kept_in_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file that is plain gets its new token as ever; the copy beside it is what nobody could open or seal."""
    pool = Pool(tmp_path, {"claude_a.json": claude(OLD)}, line=Line(lambda _: token_answer(NEW)))
    monkeypatch.setenv(ENVIRONMENT, f"k1:{KEYS['k1'][:-4]}")
    with pytest.raises(SealError):
        Escrow(tmp_path).keep(pool.accounts.credential("claude:a"), {"claudeAiOauth": {"accessToken": NEW}})
    assert asyncio.run(pool.accounts.refresh("claude:a", OLD)).secret == NEW
    assert NEW in (pool.folder / "claude_a.json").read_text()
    assert list((tmp_path / escrow.FOLDER).glob("*")) == []
    assert "could not be kept" in caplog.text and KEYS["k1"][:-4] not in caplog.text and NEW not in caplog.text


def test_a_new_key_has_a_free_name() -> None:
    made = sealing.new_key(parse_keys(BOTH).names)
    assert made.startswith("k3:") and parse_keys(f"{made},{BOTH}").names == ("k3", "k2", "k1")
    assert sealing.new_key(()).startswith("k1:") and KEYS["k1"] not in repr(parse_keys(ONE))


def test_a_file_too_large_to_be_sealed_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, ONE)
    path = tmp_path / "claude_a.json"
    path.write_text(json.dumps(claude(OLD) | {"note": "x" * 900_000}))
    before = path.read_bytes()
    with pytest.raises(CredentialRejectedError, match="1 MiB"):
        files.reseal(path, sealed=True)
    assert path.read_bytes() == before
