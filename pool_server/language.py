"""The language of what is being answered: each request's task has its own, English unless somebody asked for another.

Every room that words something for people marks it `_("…")`. What is worded outside a request (the shell, the log, the
answers to CLIs) stays English.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import msgspec

LookUp = Callable[[str], str]
K = TypeVar("K")

_look_up: ContextVar[LookUp | None] = ContextVar("look_up", default=None)


def speak(look_up: LookUp | None) -> None:
    """From here on this task's texts are what `look_up` has for the English ones; None = English."""
    _look_up.set(look_up)


def gettext(message: str, **values: object) -> str:
    """The message in the language of this task, with `{name}` replaced by the value of that name."""
    look_up = _look_up.get()
    text = message if look_up is None else look_up(message)
    return text.format_map(values) if values else text


def ngettext(one: str, several: str, number: float, **values: object) -> str:
    """The message for one thing or for several; `{n}` is the number unless `values` has a form of it."""
    return gettext(one if number == 1 else several, **{"n": number, **values})


def marked(message: str) -> str:
    """A text of a table or constant: listed in the catalogue, looked up where it is used."""
    return message


class Words(dict[K, str]):
    """A table of texts, each read in the language of the task that reads it."""

    def __getitem__(self, key: K) -> str:
        return gettext(super().__getitem__(key))

    def get(self, key: object, default: Any = "") -> str:
        return self[cast(K, key)] if key in self else str(default)

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def values(self) -> Any:
        return [self[key] for key in self]

    def messages(self) -> list[str]:
        """The texts as they stand in the catalogue."""
        return list(super().values())


class LazyText(msgspec.Struct, frozen=True):
    """A text whose language is not known yet: of an exception, or kept until somebody reads it. `str(…)` is English,
    for the log, the shell and programs; `localized(…)` is in the language of the task that shows it."""

    message: str
    values: dict[str, LazyText | str | int] = {}

    def __str__(self) -> str:
        return self.message.format_map(self.values) if self.values else self.message

    def __hash__(self) -> int:
        return hash(str(self))


def nlazy(one: str, several: str, number: int, **values: object) -> LazyText:
    """`lazy` of the message for one thing or for several; `{n}` is the number."""
    return lazy(one if number == 1 else several, n=number, **values)


def lazy(message: str, **values: object) -> LazyText:
    """The message with `{name}` replaced by the value of that name; one that is an exception is what it says."""
    return LazyText(message, {name: _place(value) for name, value in values.items()})


def lazy_of(said: object) -> LazyText:
    """What an exception or a text says; what is not in the catalogue, such as a vendor's words, stays as it is."""
    if isinstance(said, BaseException):
        said = said.args[0] if said.args else ""
    return said if isinstance(said, LazyText) else LazyText(str(said))


def localized(said: object) -> str:
    """What an exception or a text says, in the language of this task."""
    text = lazy_of(said)
    values = {name: localized(value) if isinstance(value, LazyText) else value for name, value in text.values.items()}
    return gettext(text.message, **values)


def _place(value: object) -> LazyText | str | int:
    if isinstance(value, BaseException):
        return lazy_of(value)
    return value if isinstance(value, LazyText | str | int) else str(value)
