"""Other languages: the catalogues are whole, pages are written in what the browser asks for, and the choice stays."""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pool_server
from pool_server import language
from pool_server.language import Words
from pool_server.texts import format, labels, languages, markup
from pool_server.web.base.assets.bundle import assets
from pool_server.web.base.assets.localized import loader, look_up_of
from pool_server.web.base.assets.paths import templates_folder
from tests.web.site import Answer, Site
from tests.web.test_friends import Browser, enter

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((templates_folder() / "pages").glob("*.html"))
OTHERS = [one for one in languages.NAMES if one != languages.ENGLISH]


@functools.cache
def messages() -> list[str]:
    found: list[str] = runpy.run_path(str(ROOT / "scripts" / "texts"), run_name="texts")["messages"]()
    return found


# -- the catalogues -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoken", OTHERS)
def test_a_catalogue_has_every_text_and_no_other(spoken: str) -> None:
    found = languages.entries(spoken)
    assert [one.message for one in found] == messages(), "run scripts/texts"
    assert not [one.message for one in found if not one.text.strip() or one.fuzzy]


@pytest.mark.parametrize("spoken", OTHERS)
def test_a_translation_has_the_same_places(spoken: str) -> None:
    for one in languages.entries(spoken):
        assert markup.places(one.text) == markup.places(one.message), one.message
        assert one.text.startswith(" ") == one.message.startswith(" ") or spoken == "zh", one.message


@pytest.mark.slow
@pytest.mark.parametrize("spoken", OTHERS)
def test_every_template_compiles(spoken: str) -> None:
    for path in PAGES:
        loader(str(path.parent), spoken).load(path.name)


def shown(expression: ast.expr) -> Iterator[ast.Constant]:
    """The constants an expression may come to."""
    match expression:
        case ast.Constant():
            yield expression
        case ast.IfExp():
            yield from (*shown(expression.body), *shown(expression.orelse))
        case ast.BoolOp():
            for value in expression.values:
                yield from shown(value)
        case ast.BinOp(op=ast.Add()):
            yield from (*shown(expression.left), *shown(expression.right))


NO_WORDS = {"sk-…admin…", "socks5://host:1080", "config.toml"}


def test_what_an_expression_of_a_page_says_is_marked() -> None:
    for path in PAGES:
        text = re.sub(r"<[a-zA-Z][^<>]*(?:\{\{.*?\}\}[^<>]*)+>", "", path.read_text())  # classes and addresses
        for found in re.finditer(r"\{\{(.*?)\}\}", text):
            for constant in shown(ast.parse(found[1].strip(), mode="eval").body):
                said = constant.value if isinstance(constant.value, str) else ""
                assert not re.search(r"[A-Za-z]{2}", said) or said in NO_WORDS, f"{path.name}: {said}"


def test_a_catalogue_is_read_as_it_was_written() -> None:
    odd = [languages.CatalogueEntry('a "b" \\ c\n{d}', "ü\t\\n", fuzzy=True), languages.CatalogueEntry("x", "")]
    assert languages.parse(languages.written("de", odd)) == odd


# -- texts of templates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ("<p>Hello, {{ name }}.</p>", ["Hello, {1}."]),
        ('<p>See <a href="/x">this</a> and <b>that</b>.</p>', ["See <1>this</1> and <b>that</b>."]),
        ("<p>{% if a %}One{% else %}Two{% end %}</p>", ["One", "Two"]),
        ('<input placeholder="A {{ b }} c" value="not this">', ["A {1} c"]),
        ("<p><code>only_code</code></p><pre>nor this</pre><p>{{ x }}</p>", []),
        ('<p><span class="mark"></span> Text</p>', ["Text"]),
        ("<p>A <b>b{% if c %}</b> d{% end %}</p>", ["A", "b", "d"]),
        ('{{ _("Marked") if x else "" }}', ["Marked"]),
    ],
)
def test_messages_of_a_template(source: str, messages: list[str]) -> None:
    assert markup.messages(source) == messages


def test_a_translation_orders_what_is_in_it() -> None:
    table = {"See <1>{2}</1> of {3}.": "{3}: siehe <1>{2}</1>."}
    written = markup.translated('<p>See <a href="/{{ i }}">{{ i }}</a> of {% raw n %}.</p>', lambda m: table.get(m, m))
    assert written == '<p>{% raw n %}: siehe <a href="/{{ i }}">{{ i }}</a>.</p>'


def test_pages_without_a_translation_stay_as_they_are() -> None:
    for path in PAGES:
        assert markup.translated(path.read_text(), lambda message: message) == path.read_text()


PIECES = (
    "<p>",
    "</p>",
    "<b>",
    "</b>",
    "a ",
    "{{ x }}",
    "{% if x %}",
    "{% end %}",
    "<br>",
    '<a b="c">',
    "</a>",
    "{",
    "<",
)


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_source_survives_a_translation_that_changes_nothing(pieces: list[str]) -> None:
    source = "".join(pieces)
    assert markup.translated(source, lambda message: message) == source


# -- which language -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remembered", "accept", "spoken"),
    [
        ("", "", "en"),
        ("", "de-AT,de;q=0.9,en;q=0.5", "de"),
        ("", "fr, zh-CN;q=0.8, en;q=0.7", "zh"),
        ("", "zh-Hant-TW", "zh"),
        ("", "en-GB,de;q=0.9", "en"),
        ("", "de;q=0, zh;q=0.1", "zh"),
        ("de", "zh", "de"),
        ("xx", "de", "de"),
        ("", "*;q=1, \x00, de;q=9, " + "a," * 5000, "en"),
    ],
)
def test_a_visitors_language(remembered: str, accept: str, spoken: str) -> None:
    assert languages.chosen(remembered, accept) == spoken


@given(st.text(), st.text())
def test_any_header_has_a_language(remembered: str, accept: str) -> None:
    assert languages.chosen(remembered, accept) in languages.NAMES


def test_tasks_do_not_hear_each_others_language() -> None:
    async def told(spoken: str) -> str:
        language.speak(look_up_of(spoken))
        await asyncio.sleep(0)
        return f"{format.count(12_345_678)}, {format.duration(29_160)}"

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(told(one) for one in languages.NAMES))

    assert asyncio.run(all_of_them()) == ["12.3 M, 8 h 6 min", "12,3\u00a0Mio., 8 h 6 min", "12.3 M, 8 小时 6 分钟"]
    assert format.count(12_345_678) == "12.3 M"


# -- pages --------------------------------------------------------------------------------------------------------


def test_the_door_speaks_as_the_browser_asks(friends: Site) -> None:
    english, german = (friends.get("/", Accept="text/html", Accept_Language=one) for one in ("en", "de"))
    assert '<html lang="en"' in english.text and "Friend code" in english.text and "/language/" not in english.text
    assert '<html lang="de"' in german.text and "Freundescode" in german.text and "Friend code" not in german.text
    assert f"/static/{assets().version}/language/de.js" in german.text


def test_a_choice_is_remembered_and_wins_over_the_browser(friends: Site) -> None:
    ada = Browser(friends, enter(friends))

    def choose(spoken: str) -> Answer:
        fields = {"_xsrf": ada.token, "_method": "POST", "_back": "/requests", "language": spoken}
        return friends.request(
            "POST", "/language", body=urlencode(fields).encode(), Accept="text/html", Cookie=ada.cookie,
            Origin=friends.url, Content_Type="application/x-www-form-urlencoded",
        )  # fmt: skip

    answer = choose("zh")
    assert (answer.status, answer.headers["Location"]) == (303, "/requests")
    ada.cookies |= answer.cookies()
    page = ada.get("/", Accept="text/html", Accept_Language="de")
    assert '<html lang="zh-Hans"' in page.text and "你的密钥" in page.text
    assert choose("tlh").status == 400
    ada.token = "forged"
    assert choose("de").status == 403


def test_what_is_refused_is_said_in_that_language_and_programs_hear_english(friends: Site) -> None:
    assert "melde dich zuerst an" in friends.get("/api/me", Accept_Language="de").text
    assert "sign in first" in friends.get("/api/me").text
    assert "sign in first" in friends.get("/api/v1/status", Accept_Language="de").text
    wrong = {"code": "no code", "name": "Ada", "passphrase": "long enough words"}
    for body, said in ((wrong, "die Passphrase ist falsch"), ({"key": "eyJ.no.key"}, "kein Schlüssel dieses Pools")):
        told = friends.request(
            "POST", "/api/friend/login", body=json.dumps(body).encode(), Content_Type="application/json",
            Origin=friends.url, Accept_Language="de",
        )  # fmt: skip
        assert (told.status, said in told.text) == (401, True), told.text


def test_scripts_have_their_words(friends: Site) -> None:
    said: Any = friends.get(assets().url("language/de.js")).text
    assert said.startswith("globalThis.poolWords = ") and '"Copied": "Kopiert"' in said


def test_every_table_of_texts_is_in_the_catalogues() -> None:
    package = Path(pool_server.__file__).parent
    known = {entry.message for entry in languages.entries("de")}
    for file in package.rglob("*.py"):
        if "Words(" in file.read_text(encoding="utf-8"):
            module = importlib.import_module(".".join(file.relative_to(package.parent).with_suffix("").parts))
            for name, table in vars(module).items():
                if isinstance(table, Words):
                    assert set(table.messages()) - {""} <= known, (
                        f"{file.name} {name}: list its module in scripts/texts"
                    )


def test_every_action_of_the_audit_log_has_words() -> None:
    told = re.compile(r'(?:AuditRow\.of|append_audit|audit|_row)\([^"\n]*"([a-z_]+\.[a-z_]+)"')
    texts = [file.read_text(encoding="utf-8") for file in Path(pool_server.__file__).parent.rglob("*.py")]
    actions = {action for text in texts for action in told.findall(text)}
    assert len(actions) > 25
    assert actions - set(labels.ACTIONS) == set()
