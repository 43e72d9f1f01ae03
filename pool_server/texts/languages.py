"""The catalogues: the texts of pages and messages in other languages, one gettext file each beside this module.

English is the text itself and has no file. `scripts/texts` writes the files anew from pages, scripts and code, and
keeps what is translated.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "catalogues"
ENGLISH = "en"
NAMES = {ENGLISH: "English", "de": "Deutsch", "zh": "简体中文"}  # each by its own name, as the switch shows it
TAGS = {ENGLISH: "en", "de": "de", "zh": "zh-Hans"}  # what `lang` of a page says
MOST_ASKED = 20  # languages of one Accept-Language that are looked at
_RANGE = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?")


class CatalogueEntry(NamedTuple):
    """One message of a file, with its translation ("" = none yet)."""

    message: str
    text: str
    fuzzy: bool = False


def chosen(remembered: str, accept: str) -> str:
    """The language of a page: the one a visitor has chosen, else the first the browser asks for that there is."""
    if remembered in NAMES:
        return remembered
    asked = []
    for place, one in enumerate(accept.split(",")[:MOST_ASKED]):
        found = _RANGE.fullmatch(one)
        if found and (weight := float(found[2] or 1)):
            asked.append((-weight, place, found[1].partition("-")[0].lower()))
    return next((language for _weight, _place, language in sorted(asked) if language in NAMES), ENGLISH)


@cache
def texts(language: str) -> dict[str, str]:
    """English text → the same in this language; {} for English."""
    return {one.message: one.text for one in entries(language) if one.text and not one.fuzzy}


def look_up(language: str, message: str) -> str:
    """The text, the English one where it has no translation."""
    return texts(language).get(message, message)


def entries(language: str) -> list[CatalogueEntry]:
    """Every message of a language's file."""
    file = FOLDER / f"{language}.po"
    return parse(file.read_text(encoding="utf-8")) if language in NAMES and file.is_file() else []


def parse(source: str) -> list[CatalogueEntry]:
    """The entries of a gettext file but for its header. Plural forms and contexts are not used here."""
    found = []
    for block in re.split(r"\n\s*\n", source):
        fields = {"msgid": "", "msgstr": ""}
        field, fuzzy = "", False
        for line in block.splitlines():
            if line.startswith("#"):
                fuzzy = fuzzy or (line.startswith("#,") and "fuzzy" in line)
                continue
            word, _space, literal = line.partition(" ") if not line.startswith('"') else (field, "", line)
            if word in fields:
                field = word
                fields[word] += str(ast.literal_eval(literal))
        if fields["msgid"]:
            found.append(CatalogueEntry(fields["msgid"], fields["msgstr"], fuzzy))
    return found


def written(language: str, found: list[CatalogueEntry]) -> str:
    """A gettext file."""
    head = f'msgid ""\nmsgstr ""\n"Language: {language}\\n"\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    return "\n".join([head, *(_entry(one) for one in found)])


def _entry(one: CatalogueEntry) -> str:
    flag = "#, fuzzy\n" if one.fuzzy else ""
    return f"{flag}msgid {_quoted(one.message)}\nmsgstr {_quoted(one.text)}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
