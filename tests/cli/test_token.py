"""`pool-server token`: made, listed, revoked, also beside nothing that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Shell


def test_a_token_is_shown_once_listed_without_itself_and_revoked(sh: Shell, folder: Path) -> None:
    made = sh("token", "add", "a script", "--scope", "read", "--scope", "people", "--days", "2")
    assert made.code == 0 and made.out.strip().startswith("pst_")
    rows = sh("token", "list", "--json").json
    assert [(row["label"], row["scopes"], row["expired"]) for row in rows] == [("a script", ["read", "people"], False)]
    shown = sh("token", "list")
    assert "a script" in shown.out and made.out.strip() not in shown.out + json.dumps(rows)
    assert sh("token", "revoke", rows[0]["id"]).code == 0
    assert sh("token", "list").out.strip() == "No tokens."
    assert "there is no such token" in sh("token", "revoke", rows[0]["id"]).refused(1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["x"], "Missing option '--scope'"),
        (["x", "--scope", "all"], "'all' is not one of"),
        (["", "--scope", "read"], "label must be"),
        (["x", "--scope", "read", "--days", "-1"], "expired"),
    ],
)
def test_a_token_that_cannot_be_is_one_line(sh: Shell, folder: Path, args: list[str], words: str) -> None:
    done = sh("token", "add", *args)
    assert done.code in (1, 2) and words in done.err
    assert len(done.err.strip().splitlines()) == 1
