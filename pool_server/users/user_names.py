"""Names of people: how they are written, and when two of them are too alike to belong to two people. Pure."""

from __future__ import annotations

import re
import unicodedata

from pool_server.language import gettext as _

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
_BLANK = frozenset("\u1160\u3164\uffa0\u2800\u115f\u17b4\u17b5\ufffc\ufffd")
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_MARKS = re.compile("m{4}")
# First words of letters' names that are no script's: modifiers, ordinals, symbols of mathematics.
_SCRIPTS = {"MODIFIER": "", "FEMININE": "", "MASCULINE": "", "MICRO": "", "DOUBLE-STRUCK": "", "SCRIPT": ""} | {
    "IDEOGRAPHIC": "CJK", "KATAKANA-HIRAGANA": "KATAKANA"
}  # fmt: skip
_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
)
_SPACES = re.compile(r"\s+")
_JOINTS = re.compile(r"[\s._\-'’·]+")


def clean(name: str) -> str:
    """The name as it is shown: NFKC, single spaces. Raises ValueError, one line for people, when it will not do.

    Control, format (bidirectional, zero-width), private and unassigned characters are refused: they make two equal
    looking names different, or turn text around on a page.
    """
    shown = _SPACES.sub(" ", unicodedata.normalize("NFKC", name)).strip()
    if not shown:
        raise ValueError(_("a name is needed"))
    if len(shown) > MAX_NAME:
        raise ValueError(_("a name has at most {max_name} characters", max_name=MAX_NAME))
    if any(unicodedata.category(char).startswith("C") for char in shown):
        raise ValueError(_("the name holds characters that cannot be seen"))
    if not any(char.isalnum() for char in shown):
        raise ValueError(_("a name needs at least one letter or digit"))
    return shown


def fit(name: str) -> str:
    """`clean`, for a name that somebody is to get. Raises ValueError also for letters that cannot be seen, heaps of
    marks, and scripts that no language writes together (UTS #39 §5.2, highly restrictive)."""
    shown = clean(name)
    decomposed = unicodedata.normalize("NFD", shown)
    if any(char in _BLANK or _IGNORABLE.match(char) for char in shown):
        raise ValueError(_("the name holds characters that cannot be seen"))
    if _MARKS.search("".join("m" if unicodedata.combining(char) else " " for char in decomposed)):
        raise ValueError(_("the name has too many marks over one letter"))
    scripts = {script for char in shown if (script := _script(char))}
    if len(scripts) > 1 and not any(scripts <= together for together in _TOGETHER):
        raise ValueError(_("the name mixes letters of scripts that are not written together"))
    return shown


def _script(char: str) -> str:
    """The script of a letter by the first word of its Unicode name, "" for what any script uses."""
    if not unicodedata.category(char).startswith("L"):
        return ""
    first = unicodedata.name(char, "").partition(" ")[0]
    return _SCRIPTS.get(first, first)


def skeleton(name: str) -> str:
    """What a name looks like, for telling whether it is taken: two names with one skeleton are the same name.

    Ignores case, accents, spaces, dots, dashes and letters of other scripts that read like Latin ones.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    plain = _JOINTS.sub("", unicodedata.normalize("NFC", bare).translate(_LOOKALIKES))
    return plain.replace("rn", "m").replace("vv", "w")
