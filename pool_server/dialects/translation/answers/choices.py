"""An answer of several choices: each is put in order by itself, all are told as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pool_server.dialects.chat import fault_in
from pool_server.dialects.translation.answers.fold import WholeAnswer
from pool_server.dialects.translation.answers.sequence import Sequencer
from pool_server.dialects.translation.chat import answer as chat_answer
from pool_server.dialects.translation.chat import stream_in as chat_stream_in
from pool_server.dialects.translation.conformance import Notes
from pool_server.dialects.translation.errors import read_error
from pool_server.dialects.translation.neutral import ErrorInfo

_CUT = ErrorInfo(502, "The upstream's answer broke off before its end.", "api_error", "stream_cut")


class Choices:
    """Chat's answer of up to `most` choices, streamed or whole. `begin` gives the sequencer of a choice's index, `last`
    says that only this one is still to end, `tell` tells the client of a fault once something was begun. What a choice
    fails at, all fail at. An endpoint that answers with fewer choices has answered."""

    def __init__(
        self,
        most: int,
        begin: Callable[[int], Sequencer],
        *,
        last: Callable[[int], None],
        tell: Callable[[ErrorInfo], None],
        transcribed: bool,
    ) -> None:
        self._most = most
        self._transcribed = transcribed
        self._begin_choice, self._last, self._tell = begin, last, tell
        self._choices: dict[int, Sequencer] = {}
        self._readers: dict[int, chat_stream_in.ChatStreamReader] = {}
        self._usage: Any = None  # of all choices together
        self.closed = False
        self.fault: ErrorInfo | None = None

    @property
    def left_out(self) -> Notes:
        """What of all choices the client is not told."""
        found = Notes()
        for choice in self._choices.values():
            for what in choice.left_out.dropped:
                found.drop(what)
        return found

    @property
    def begun(self) -> bool:
        return any(choice.begun for choice in self._choices.values())

    def fail(self, error: ErrorInfo) -> None:
        if self.closed:
            return
        begun = self.begun
        self.closed, self.fault = True, error
        for choice in self._choices.values():
            choice.fail(error)
        if begun:
            self._tell(error)

    def event(self, name: str, event: Any) -> None:
        if self.closed or not isinstance(event, dict):
            return
        if fault_in(event) is not None:
            self.fail(read_error(0, event))
            return
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            index = self._index(choice)
            if index is not None and not self.closed:
                reader = self._readers.get(index)
                if reader is None:
                    reader = self._readers[index] = chat_stream_in.ChatStreamReader(
                        self._choice(index), transcribed=self._transcribed
                    )
                reader.event(name, {**event, "choices": [{**choice, "index": 0}]})
                self._look(index)

    def done(self) -> None:
        self.end()

    def end(self) -> None:
        if self.closed:
            return
        if not self._readers or not all(reader.ended for reader in self._readers.values()):
            self.fail(_CUT)
            return
        for index in sorted(self._readers):
            if not self.closed:
                if index == max(self._readers):
                    self._last(index)
                reader = self._readers[index]
                reader.event("", {"usage": self._usage})
                reader.end()
                self._look(index)
        self.closed = True

    def whole(self, body: dict[str, Any]) -> None:
        """Take an answer in one piece."""
        choices = body.get("choices")
        found: dict[int, dict[str, Any]] = {}
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            index = self._index(choice, place)
            if index is not None:
                found.setdefault(index, choice)
        if not found or not all(choice.get("finish_reason") for choice in found.values()):
            self.fail(_CUT)
        for index in sorted(found):
            if not self.closed:
                choice = self._choice(index)
                if index == max(found):
                    self._last(index)
                one = {**body, "choices": [found[index]]}
                chat_answer.read_answer(one, choice, transcribed=self._transcribed)
                self._look(index)
        self.closed = True

    def _choice(self, index: int) -> Sequencer:
        choice = self._choices[index] = self._begin_choice(index)
        return choice

    def _index(self, choice: Any, place: int = 0) -> int | None:
        """The choice's index; None for what is none, and for more than were asked for."""
        if not isinstance(choice, dict):
            return None
        index = choice.get("index", place)
        index = place if index is None else index
        return index if type(index) is int and 0 <= index < self._most else None

    def _look(self, index: int) -> None:
        fault = self._choices[index].fault
        if fault is not None:
            self.fail(fault)


def first_of(answers: dict[int, WholeAnswer | None]) -> tuple[WholeAnswer, dict[int, WholeAnswer]] | None:
    """(the first choice, the others by index) of whole answers; None where one is not whole."""
    whole = {index: answer for index, answer in answers.items() if answer is not None}
    if not whole or len(whole) < len(answers):
        return None
    return whole[min(whole)], {index: whole[index] for index in sorted(whole)[1:]}
