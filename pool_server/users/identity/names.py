"""Names of people: how they are written, and when two of them are too alike to belong to two people. Pure."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 64

# Letters that look like a Latin letter in common fonts, after case folding: enough of Unicode's confusables
# (UTS #39) to keep somebody from taking a name that reads like a friend's.
_CYRILLIC = ("авсԁеёһніїјкӏморԛгѕтцѵԝхуү", "abcdeehhiijklmopqrstuvwxyy")
_GREEK = ("αβεηικνορστυχωγ", "abenikvopotuxwy")
_LATIN = ("ıȷɡɑłøđħŧß01|ǀ$@", "ijgalodhtbolllsa")
_LOOKALIKES = str.maketrans(
    "".join(pair[0] for pair in (_CYRILLIC, _GREEK, _LATIN)),
    "".join(pair[1] for pair in (_CYRILLIC, _GREEK, _LATIN)),
) | {0xE6: "ae", 0x153: "oe"}
_SPACES = re.compile(r"\s+")
_JOINTS = re.compile(r"[\s._\-'’·]+")


def clean(name: str) -> str:
    """The name as it is shown: NFKC, single spaces. Raises ValueError, one line for people, when it will not do.

    Control, format (bidirectional, zero-width), private and unassigned characters are refused: they make two equal
    looking names different, or turn text around on a page.
    """
    shown = _SPACES.sub(" ", unicodedata.normalize("NFKC", name)).strip()
    if not shown:
        raise ValueError("a name is needed")
    if len(shown) > MAX_NAME:
        raise ValueError(f"a name has at most {MAX_NAME} characters")
    if any(unicodedata.category(char).startswith("C") for char in shown):
        raise ValueError("the name holds characters that cannot be seen")
    if not any(char.isalnum() for char in shown):
        raise ValueError("a name needs at least one letter or digit")
    return shown


def skeleton(name: str) -> str:
    """What a name looks like, for telling whether it is taken: two names with one skeleton are the same name.

    Ignores case, accents, spaces, dots, dashes and letters of other scripts that read like Latin ones.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    plain = _JOINTS.sub("", unicodedata.normalize("NFC", bare).translate(_LOOKALIKES))
    return plain.replace("rn", "m").replace("vv", "w")
