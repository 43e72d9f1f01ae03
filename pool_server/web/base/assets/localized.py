"""Templates in every language: their texts are looked up once, when they are compiled, so that a page in another
language takes no longer than an English one."""

from __future__ import annotations

import json
from functools import cache, partial
from gettext import NullTranslations
from pathlib import Path

from tornado.locale import GettextLocale
from tornado.template import Loader, Template

from pool_server.language import LookUp
from pool_server.texts import languages, markup


class _Texts(NullTranslations):
    """A catalogue as Tornado's locale wants it."""

    def __init__(self, language: str) -> None:
        super().__init__()
        self.gettext = partial(languages.look_up, language)  # type: ignore[method-assign]


class _Loader(Loader):
    def __init__(self, root: str, language: str) -> None:
        super().__init__(root)
        self._language = language

    def _create_template(self, name: str) -> Template:
        source = (Path(self.root) / name).read_text(encoding="utf-8")
        if self._language != languages.ENGLISH:
            source = markup.translated(source, partial(languages.look_up, self._language))
        return Template(source, name=name, loader=self)


@cache
def loader(root: str, language: str) -> Loader:
    """The templates of a folder in one language, compiled as they are first used."""
    return _Loader(root, language)


@cache
def locale_of(language: str) -> GettextLocale:
    return GettextLocale(language, _Texts(language))


@cache
def look_up_of(language: str) -> LookUp | None:
    """What `language.speak` wants to hear."""
    return None if language == languages.ENGLISH else partial(languages.look_up, language)


def script(language: str, messages: list[str]) -> bytes:
    """What the pages' scripts say in a language: `poolWords`, English → translation."""
    words = {message: languages.look_up(language, message) for message in messages}
    return f"globalThis.poolWords = {json.dumps(words, ensure_ascii=False)};\n".encode()
