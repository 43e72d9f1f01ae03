"""docs/openapi.json is what the table of the API says."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_description_that_is_kept_is_the_table_s() -> None:
    made = runpy.run_path(str(ROOT / "scripts/openapi"), run_name="openapi")["page"]()
    assert (ROOT / "docs/openapi.json").read_text(encoding="utf-8") == made, "run .venv/bin/python scripts/openapi"
