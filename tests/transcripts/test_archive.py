"""The folder of transcripts: found, read, removed, and never left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.disk import DRAFT
from pool_server.transcripts import archive

DAY = 86_400.0
NOW = 1_800_000_000.0


def put(folder: Path, user: str, exchange: str, *, age_days: float = 0.0, size: int = 100, talk: str = "c1") -> Path:
    path = archive.place(folder, user, "Claude Code/2.1", talk, exchange)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    os.utime(path, (NOW - age_days * DAY,) * 2)
    return path


@given(*[st.text(max_size=40)] * 4)
def test_no_name_leads_out_of_the_folder(user: str, agent: str, talk: str, exchange: str) -> None:
    folder = Path("/srv/transcripts")
    path = archive.place(folder, user, agent, talk, exchange)
    parts = path.relative_to(folder).parts
    assert len(parts) == 4 and not {".", ".."} & set(parts)
    assert all(part and not part.startswith(".") and "\0" not in part for part in parts)


@pytest.mark.parametrize(
    "bad", ["", ".", "..", "a.", ".b", "../x.y", "claude-code.c1/../../..", "a.b.c", "A.b\0", "é.x"]
)
def test_an_id_from_outside_finds_only_what_is_there(tmp_path: Path, bad: str) -> None:
    put(tmp_path, "u_1", "e1")
    assert archive.find(tmp_path, "u_1", bad) is None
    assert archive.find(tmp_path, "../u_1", "claude-code.c1") is None
    assert archive.find(tmp_path, "u_1", "claude-code.c1") is not None
    assert archive.remove_person(tmp_path, bad) == 0


def test_what_is_old_or_too_much_goes_the_oldest_of_whoever_has_most(tmp_path: Path) -> None:
    old = put(tmp_path, "u_1", "old", age_days=31, talk="c0")
    much = [put(tmp_path, "u_1", f"e{day}", age_days=day, size=1000) for day in (3, 2, 1)]
    little = put(tmp_path, "u_2", "e", age_days=9, size=900)
    assert archive.prune(tmp_path, NOW, keep_days=30, most_bytes=3000) == 2
    assert not old.exists() and not old.parent.exists()
    assert [path.exists() for path in (*much, little)] == [False, True, True, True]
    assert archive.prune(tmp_path, NOW, keep_days=30, most_bytes=0) == 3
    assert not list(tmp_path.iterdir())


def test_a_crash_leaves_no_draft(tmp_path: Path) -> None:
    kept = put(tmp_path, "u_2", "e")
    drafts = [kept.with_name(f".{name}{DRAFT}") for name in ("stale", "growing")]
    for draft, age in zip(drafts, (archive.STALE_DRAFT_S + 1, 60), strict=True):
        draft.touch()
        os.utime(draft, (NOW - age,) * 2)
    assert archive.prune(tmp_path, NOW, keep_days=30, most_bytes=1 << 30) == 0
    assert kept.exists() and archive.people(tmp_path) == ["u_2"]
    assert [draft.exists() for draft in drafts] == [False, True]


def test_a_damaged_file_is_told_and_the_list_goes_on(tmp_path: Path) -> None:
    path = put(tmp_path, "u_1", "e1")
    [one] = archive.conversations(tmp_path, "u_1")
    assert (one.agent, one.session, one.exchanges) == ("claude-code", "", 1)
    with pytest.raises(ValueError, match="damaged"):
        b"".join(archive.read(path.parent))
    path.write_bytes(zstandard.compress(b"[1]\n") + zstandard.compress(b"{}\n"))
    assert b"".join(archive.read(path.parent)) == b"[1]\n{}\n"
    assert archive.conversations(tmp_path, "u_1")[0].agent == "claude-code"


def test_the_operator_sees_that_there_are_some(tmp_path: Path) -> None:
    assert archive.everybody(tmp_path / "none") == []
    for number in range(3):
        put(tmp_path, "u_1", f"e{number}", age_days=number, talk=f"c{number % 2}")
    archive.share(tmp_path / "u_1" / "claude-code" / "c1", True)
    [kept] = archive.everybody(tmp_path)
    assert (kept.user, kept.conversations, kept.exchanges, kept.bytes, kept.shared) == ("u_1", 2, 3, 300, 1)
    assert (kept.first, kept.last) == (NOW - 2 * DAY, NOW)
