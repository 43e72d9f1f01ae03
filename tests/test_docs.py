"""The documentation: every link within the repository leads somewhere, and every page is found from the README."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from pool_server.web import routes

ROOT = Path(__file__).resolve().parent.parent
PAGES = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
FENCE = re.compile(r"^( *)```.*?^\1```", re.M | re.S)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Its links that stay in the repository."""
    found = [next(filter(None, groups)) for groups in LINK.findall(prose(page))]
    return [link for link in found if not re.match(r"[a-z]+:|//", link)]


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.M)
    plain = [re.sub(r"\]\([^)]*\)|[`*\[\]]", "", head).strip().lower() for head in heads]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        assert target.exists(), f"{link}: there is no such file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_every_page_is_found_from_the_readme() -> None:
    seen, coming = set(), [ROOT / "README.md"]
    while coming:
        page = coming.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            coming += [(page.parent / unquote(link.partition("#")[0])).resolve() for link in links(page)]
    assert not {page.relative_to(ROOT).as_posix() for page in PAGES} - {
        page.relative_to(ROOT).as_posix() for page in seen
    }


def test_the_changelog_is_made_of_whole_items() -> None:
    """Merges put lines of one item between those of another, or twice."""
    told = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    lines = told.splitlines()
    long = [line for line in lines if len(line) > 40]
    assert sorted(set(long)) == sorted(long), "a line stands there twice"
    assert not re.search(r"^(?:- |  ).*\n\n- ", told, re.M), "items of one kind stand together"
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith(("- ", "  ")) and not after.startswith("  "):
            assert line.endswith((".", ".)")), f"an item ends in its middle: {line}"


def test_every_call_of_a_friends_programs_stands_on_their_page() -> None:
    page = (ROOT / "docs" / "friends.md").read_text(encoding="utf-8")
    served = re.findall(r'\(rf?"(/api/(?!v1)[^"]*)"', Path(routes.__file__).read_text(encoding="utf-8"))
    assert "/api/usable" in served
    told = {path.replace("{ID}", "ID") for path in served}
    missing = [path for path in told if path not in page and f"`{path.removeprefix('/api/usage/')}`" not in page]
    assert not missing
