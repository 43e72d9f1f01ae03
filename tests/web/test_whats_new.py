"""What is new: the list of changes as a page, told to the operator once after an upgrade."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from pool_server.texts.changelog import releases, since, spans
from pool_server.web.base.assets.paths import changelog
from tests.web.pool import ADMIN
from tests.web.site import Site

TEXT = """# Changelog

Words of no release.

## [0.3.0] - 2026-11-30
### Added
- A thing with `code`, **weight** and a
  [link](https://example.org/a).
- Another.
### Fixed
- <script>alert(1)</script>

## 0.2.0 - 2026-10-01
### Added
- Older.

## 0.1.0
"""


def test_entries_are_read_whole_however_they_are_wrapped() -> None:
    newest, older, oldest = releases(TEXT)
    assert [(one.version, one.date) for one in (newest, older, oldest)] == [
        ("0.3.0", "2026-11-30"), ("0.2.0", "2026-10-01"), ("0.1.0", ""),
    ]  # fmt: skip
    assert [(part.name, len(part.entries)) for part in newest.parts] == [("Added", 2), ("Fixed", 1)]
    first = newest.parts[0].entries[0]
    assert [(one.text, one.kind, one.href) for one in first] == [
        ("A thing with ", "", ""), ("code", "code", ""), (", ", "", ""), ("weight", "strong", ""), (" and a ", "", ""),
        ("link", "link", "https://example.org/a"), (".", "", ""),
    ]  # fmt: skip


def test_every_entry_of_the_real_list_is_there() -> None:
    path = changelog()
    assert path is not None
    text = path.read_text(encoding="utf-8")
    entries = [entry for one in releases(text) for part in one.parts for entry in part.entries]
    assert len(entries) == sum(line.startswith("- ") for line in text.splitlines()) > 50
    assert all(entry and "".join(one.text for one in entry).strip() for entry in entries)


def test_only_what_came_after_the_version_seen_is_new() -> None:
    found = releases(TEXT)
    assert [one.version for one in since(found, "0.1.0")] == ["0.3.0", "0.2.0"]
    for unknown in ("0.3.0", "", "9.9"):
        assert [one.version for one in since(found, unknown)] == ["0.3.0"]
    assert since([], "0.1.0") == []


@given(st.text(alphabet="`*[]()a \\<", max_size=30))
def test_no_text_is_lost(line: str) -> None:
    told = spans(line)
    assert all(one.text for one in told)
    assert "".join(one.text for one in told if not one.kind) in line or any(one.kind for one in told)


def test_the_operator_is_told_once_after_an_upgrade(friends: Site) -> None:
    session = friends.post("/admin", {"password": ADMIN}).cookies()["pool_session"]

    def see(path: str, seen: str = "") -> tuple[str, str]:
        cookie = f"pool_session={session}" + (f"; seen_version={seen}" if seen else "")
        answer = friends.get(path, Accept="text/html", Cookie=cookie)
        assert answer.status == 200
        return answer.text, answer.cookies().get("seen_version", "")

    told = "The pool runs version 0.0.test now."
    page, noted = see("/people")
    assert told not in page and noted == "0.0.test", "nothing is new to whoever is new"
    page, noted = see("/people", seen="0.0.old")
    assert told in page and not noted, "it stays until it was looked at"
    page, noted = see("/whats-new", seen="0.0.old")
    assert noted == "0.0.test" and "What is new in pool-server 0.0.test" in page and told not in page
    assert "kind=Changed&amp;since=0.0.old" in page, "the cookie says by now that all was seen"
    assert told not in see("/people", seen=noted)[0]
    sizes = [len(zlib.compress(see(f"/whats-new?kind={kind}")[0].encode())) for kind in ("Added", "Changed", "Fixed")]
    assert max(sizes) < 20_000, sizes
    assert "seen_version" not in friends.get("/", Accept="text/html").cookies()
    assert friends.get("/whats-new", Accept="text/html").status == 303
