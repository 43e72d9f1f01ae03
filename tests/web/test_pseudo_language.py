"""Every text of every page is in the catalogues: in a language that only puts marks around what it translates, nothing
that reads as English stands outside the marks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pool_server.providers import SPECS
from pool_server.texts import languages
from pool_server.web.base.assets import localized
from tests.web.crowded import ACCOUNT, LONG, PAID, fill, open_crowded
from tests.web.site import LiveSite
from tests.web.test_narrow import FRIENDS, OPEN, OPERATORS

CACHES = (localized.loader, localized.locale_of, localized.look_up_of, languages.texts)
ENGLISH = re.compile(r"(?:\b[a-z]{2,}(?:['’][a-z]+)?[ ,;]+){2}[a-z]{2,}\b", re.IGNORECASE)
SPOKEN_IN = ("alt", "title", "placeholder", "aria-label", "data-confirm")
UNSPOKEN = frozenset(("script", "style", "code", "pre", "kbd"))
VOID = frozenset(("br", "hr", "img", "input", "link", "meta", "source", "wbr", "col"))
# What people, vendors and the pool's own log say, of whatever language, and names.
DATA = ("no reason given", "is slow", "refused it", "Swim at your own", "Google Gen AI", " SDK, Python and Node")
NAMES = sorted((*DATA, *(spec.label for spec in SPECS.values())), key=len, reverse=True)


class Marked(dict[str, str]):
    """A catalogue that has every message of the real one, in marks."""

    def get(self, message: str, other: Any = None) -> Any:
        return f"⟦{message}⟧" if message in self else other


@pytest.fixture
def marking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = Marked(languages.texts("de"))
    for cache in CACHES:
        cache.cache_clear()
    monkeypatch.setattr(languages, "texts", lambda language: known if language == "de" else {})
    yield
    monkeypatch.undo()
    for cache in CACHES:
        cache.cache_clear()


class Spoken(HTMLParser):
    """The runs of text that a page shows or that a screen reader says."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = [""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in SPOKEN_IN] + [""] * (tag not in ("b", "a", "i"))
        if tag not in VOID:
            self.open.append("of another language" if ("lang", "en") in attrs and tag != "html" else tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() not in (tag, "of another language"):
            pass

    def handle_data(self, data: str) -> None:
        if not (UNSPOKEN | {"of another language"}) & set(self.open):
            self.found[-1] += data


def unmarked(page: str) -> list[str]:
    """What of a page reads as English and is in no marks. Marks span elements, and stand within each other."""
    reader = Spoken()
    reader.feed(page)
    depth, outside = 0, ""
    for letter in "\n".join(reader.found):
        depth += (letter == "⟦") - (letter == "⟧")
        outside += letter if depth == 0 and letter != "⟧" else ""
    for name in NAMES:
        outside = outside.replace(name, ".")
    return [found[0] for line in outside.splitlines() for found in ENGLISH.finditer(line)]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("<p>⟦one two three⟧</p>", []),
        ("<p>one two three</p>", ["one two three"]),
        ('<p title="one two three">⟦x⟧</p>', ["one two three"]),
        ("<p>⟦one <b>two ⟦three four five⟧</b> six seven⟧</p>", []),
        ("<pre>one two three</pre><p>one two</p>", []),
        ('<ul lang="en"><li>one two three</li></ul><p>four five six</p>', ["four five six"]),
    ],
)
def test_what_counts_as_unmarked(page: str, found: list[str]) -> None:
    assert unmarked(page) == found


@pytest.mark.slow
def test_no_page_shows_what_no_catalogue_has(tmp_path: Path, marking: None) -> None:
    with LiveSite(lambda: open_crowded(tmp_path)) as site:
        who = {**fill(site), "account": ACCOUNT, "paid": PAID, "talk": LONG}
        found = {}
        for session, pages in (("", OPEN), (who["friend"], FRIENDS), (who["admin"], OPERATORS)):
            for one in pages:
                cookies = {"Cookie": f"pool_session={session}"} if session else {}
                got = site.get(one.format(**who), Accept="text/html", Accept_Language="de", **cookies)
                assert "⟦" in got.text, one
                if said := unmarked(got.text):
                    found[one] = said
    assert not found, json.dumps(found, indent=1)
