"""Where the pages' files are: beside the package in a source tree, inside it in a wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[3]


def templates_folder() -> Path:
    """The folder that holds `pages/` and `setup/`.

    A wheel carries it as `pool_server/_templates`; in a source tree it is the top-level `templates/`.
    Raises FileNotFoundError when neither is there (a broken installation).
    """
    for folder in (PACKAGE / "_templates", PACKAGE.parent / "templates"):
        if (folder / "pages").is_dir():
            return folder
    raise FileNotFoundError("the pages' templates are not installed: neither _templates/ nor templates/ was found")


def changelog() -> Path | None:
    """CHANGELOG.md: among the templates in a wheel, at the top of a source tree; None where neither has it."""
    places = (PACKAGE / "_templates" / "CHANGELOG.md", PACKAGE.parent / "CHANGELOG.md")
    return next((place for place in places if place.is_file()), None)


def static_folder() -> Path:
    """The folder of the stylesheet and the script modules; always part of the package."""
    return PACKAGE / "web" / "static"


def chart_bundle() -> Path | None:
    """Chart.js as the `chartkick` wheel ships it, or None when that wheel is not installed."""
    spec = importlib.util.find_spec("chartkick")
    for place in (spec.submodule_search_locations or []) if spec else []:
        bundle = Path(place) / "django" / "static" / "chartkick" / "Chart.bundle.js"
        if bundle.is_file():
            return bundle
    return None
