"""What SECURITY.md, the threat model and the pages on reliability and on faults promise is held by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("docs/threat-model.md", "docs/reliability.md", "docs/faults.md")
FAULTS = {"F": 36, "A": 24, "R": 16, "U": 11}  # how many rows of each letter there are
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def named(page: str) -> list[tuple[str, str]]:
    return NAMED.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    found = named(page)
    assert len(found) >= 15
    for file, test in found:
        names = re.findall(r"^(?:async )?def (\w+)", (ROOT / file).read_text(encoding="utf-8"), re.M)
        assert not test or test in names, f"{page} names {file}::{test}"


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_a_test(page: str) -> None:
    rows = [line for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    heads = [row for row in rows if row.startswith(("| attack |", "| promise |", "| row |"))]
    told = [row for row in rows if row not in heads and not row.startswith("|---")]
    assert len(heads) >= 1 and all(NAMED.search(row) for row in told), [row for row in told if not NAMED.search(row)]


def test_what_is_promised_leads_to_the_attacks() -> None:
    assert "docs/threat-model.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "SECURITY.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_fault_is_missing_or_there_twice() -> None:
    rows = re.findall(r"^\| ([A-Z][0-9]+) \|", (ROOT / "docs/faults.md").read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(f"{letter}{n}" for letter, most in FAULTS.items() for n in range(1, most + 1))
