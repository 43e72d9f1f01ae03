from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.settings import PoolUsers
from pool_server.users.identity import importer

from .site import NOON, Site

# The shape codex-pool writes: a list, one object a user.
ENTRY: dict[str, Any] = {
    "id": "5f2b8c1d9e3a4f60",
    "token": "download-token-of-anna",
    "email": "anna@example.org",
    "plan_type": "pro",
    "created_at": "2026-01-02T03:04:05.123456789Z",
    "disabled": False,
}


def test_people_come_over_once(open_site: Callable[..., Site], tmp_path: Path) -> None:
    path = tmp_path / "pool_users.json"
    entries = [
        ENTRY,
        {**ENTRY, "id": "77", "email": "berta@example.org", "disabled": True, "created_at": "yesterday"},
        {**ENTRY, "email": "ANNA@example.org"},
        {**ENTRY, "email": ""},
        {**ENTRY, "email": "x" * 80},
        "nonsense",
    ]
    path.write_text(json.dumps(entries))
    site = open_site(pool_users=PoolUsers(storage_path=str(path)))
    site.users.load()
    rows = {row["name"]: row for row in site.users.people.list_users()[0]}
    assert set(rows) == {"anna@example.org", "berta@example.org"}
    born = datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC).timestamp()
    assert rows["anna@example.org"]["created"] == pytest.approx(born)
    assert (rows["berta@example.org"]["created"], rows["berta@example.org"]["state"]) == (NOON, "disabled")
    log = site.audit_log()
    assert [row.action for row in log] == ["import.users"] + ["import.skip"] * 4
    assert log[0].detail == {"taken": 2, "skipped": 4}
    assert "download-token" not in repr(log)

    path.write_text(json.dumps([{**ENTRY, "email": "carla@example.org"}]))
    site.worker().load()
    assert len(site.users.people.list_users()[0]) == 2


@pytest.mark.parametrize("text", ["", "{", "7", '"users"', "null", "\x00\xff"])
def test_a_file_that_is_none_stops_nothing_and_may_be_put_right(
    open_site: Callable[..., Site], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "pool_users.json"
    path.write_text(text, encoding="latin-1")
    site = open_site(pool_users=PoolUsers(storage_path=str(path)))
    site.users.load()
    assert site.users.people.list_users()[0] == []
    path.write_text(json.dumps([ENTRY]))
    site.users.load()
    assert len(site.users.people.list_users()[0]) == 1


def test_a_missing_file_is_no_fault(open_site: Callable[..., Site], tmp_path: Path) -> None:
    site = open_site(pool_users=PoolUsers(storage_path=str(tmp_path / "none.json")))
    site.users.load()
    assert site.audit_log() == []


@pytest.mark.parametrize("shape", [lambda e: {"users": e}, lambda e: {"users": {"1": e[0]}}, lambda e: {"1": e[0]}])
def test_other_shapes_are_read_too(shape: Callable[[list[Any]], Any]) -> None:
    (found,) = importer.read(json.dumps(shape([{**ENTRY, "name": "Anna"}])).encode())
    assert (found.name, found.skipped) == ("Anna", "")


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*ENTRY, "name", "users"]), inner, max_size=5)
    ),
    max_leaves=20,
)


@pytest.mark.slow
@given(json_values)
def test_whatever_the_file_holds_it_is_read_or_refused_in_one_line(data: Any) -> None:
    try:
        found = importer.read(json.dumps(data).encode())
    except ValueError as exc:
        assert "\n" not in str(exc)
        return
    assert all(entry.skipped or entry.name for entry in found)


@pytest.mark.parametrize(
    ("said", "off"), [(None, False), (False, False), (True, True), ("true", True), (1, True), ({}, True)]
)
def test_whoever_was_disabled_in_any_spelling_stays_so(said: object, off: bool) -> None:
    (person,) = importer.read(json.dumps([{**ENTRY, "disabled": said}]).encode())
    assert person.disabled is off
