"""Sentences with a count, in every language: of none, of one, of two."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_server.texts import format, languages, markup

TOP = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((TOP / "templates" / "pages").glob("*.html"))

Pair = tuple[str, str]


def counted() -> Iterator[Pair]:
    for page in PAGES:
        for found in markup.COUNTED.finditer(page.read_text(encoding="utf-8")):
            one, several = (ast.literal_eval(literal) for literal in found.groups())
            yield one, several
    for file in sorted((TOP / "pool_server").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if re.search(r"\bn(?:gettext|lazy)\(", text) else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("ngettext", "nlazy"):
                literals = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
                assert len(literals) == 2, f"{file}:{node.lineno}: both forms stand in the call"
                yield str(literals[0]), str(literals[1])


PAIRS = sorted(set(counted()))

# What may follow a number, one and several; a new noun has its row here.
NOUNS = {
    "en": {
        "account": "accounts", "booking": "bookings", "day": "days", "file": "files", "hour": "hours",
        "model": "models", "person": "people", "refusal": "refusals", "replay": "replays", "request": "requests",
        "setting": "settings", "sign-in": "sign-ins", "stretch": "stretches", "thing": "things", "time": "times",
        "token": "tokens",
    },
    "de": {
        "Ablehnung": "Ablehnungen", "Abschnitt": "Abschnitte", "Anfrage": "Anfragen", "Anmeldung": "Anmeldungen",
        "Datei": "Dateien", "Einstellung": "Einstellungen", "Konto": "Konten", "Modell": "Modelle",
        "Nachspiel": "Nachspiele", "Person": "Personen", "Sache": "Dinge", "Stunde": "Stunden", "Tag": "Tage",
        "Token": "Tokens", "laufende Anfrage": "laufende Anfragen",
    },
}  # fmt: skip
OTHER_CASES = {"de": {"Tagen": "Tage", "Dateien": "Dateien", "Mal": "Mal"}}
PLURAL_VERBS = {
    "en": "are|have(?! served)|were|need|differ|their|stay|work",
    "de": "sind|haben|waren|brauchen|weichen|bleiben",
}
SINGULAR_VERBS = {"en": "is|has|was|needs|differs|its|stays|works", "de": "ist|hat|war|braucht|weicht|bleibt"}
MEASURES = "件|个|人|次|天|段|项|小时"


def forms(pair: Pair, code: str) -> dict[int, str]:
    """The sentence of none, one and two, in a language."""
    known = {entry.message: entry.text for entry in languages.entries(code)} if code != languages.ENGLISH else {}
    return {n: known.get(pair[n != 1], pair[n != 1]).replace("{n}", str(n)) for n in (0, 1, 2)}


@pytest.mark.parametrize("code", sorted(NOUNS))
@pytest.mark.parametrize("pair", PAIRS, ids=[one for one, _ in PAIRS])
def test_number_noun_and_verb_agree(pair: Pair, code: str) -> None:
    assert "{n}" in pair[1] or pair[1].startswith("Every"), "several are told how many"
    nouns = NOUNS[code]
    for n, said in forms(pair, code).items():
        after = re.search(rf"(?<![\w.]){n} (laufende \w+|(?:[\w-]+))", said)
        if after is None or "Every" in said:
            assert n == 1 or "Every" in said, (n, said)
            continue
        noun = OTHER_CASES.get(code, {}).get(after[1], after[1])
        assert noun in {*nouns, *nouns.values(), "Mal"}, f"{said!r}: say in NOUNS what {after[1]!r} is of several"
        wanted = nouns if n == 1 else set(nouns.values())
        assert noun in wanted or noun == "Mal", (n, said)
        rest = said[after.end() :].partition(":")[0]
        wrong = PLURAL_VERBS[code] if n == 1 else SINGULAR_VERBS[code]
        assert re.match(rf"[\w ]*?\b(?:{wrong})\b", rest) is None, (n, said)


@pytest.mark.parametrize("pair", PAIRS, ids=[one for one, _ in PAIRS])
def test_a_measure_word_follows_each_chinese_number(pair: Pair) -> None:
    for n, said in forms(pair, "zh").items():
        assert str(n) not in said or re.search(rf"{n} ?(?:{MEASURES})", said), said


# Counts that cannot be one: fixed bounds, sizes, and what is told from ten on.
NEVER_ONE = re.compile(
    r"at most|up to \{|\{most\}|to \{max_|of \{all\} days|percent\} % of|\{times\} times|\{days\} days: its"
)


def test_no_count_stands_before_a_fixed_plural() -> None:
    several = "|".join(sorted(set(NOUNS["en"].values()) | {"bytes", "keys", "people", "characters", "conversations"}))
    told = re.compile(rf"\{{\w+\}}(?:</?\d+>)? (?:{several})\b")
    pairs = {message for pair in PAIRS for message in pair}
    messages = [entry.message for entry in languages.entries("de")]
    wrong = [one for one in messages if told.search(one) and one not in pairs and not NEVER_ONE.search(one)]
    assert wrong == ["{1} tokens"], "what a model reads is never one token"


def test_no_template_puts_a_counted_sentence_together() -> None:
    glued = re.compile(r'_\("[^"]*"\) if [^{}]*== 1 else _\(')
    assert [page.name for page in PAGES if glued.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "said", [format.money(-1234.5), format.percent(-12), format.count(-5), format.exact(-12345), format.signed(-0.03)]
)
def test_less_than_nothing_has_a_minus(said: str) -> None:
    assert "-" not in said and said.startswith("−")
