"""Streams of calls that are no conversation: pictures, speech, transcripts, and Anthropic's completions of old.

Each family has a last event of its own, and some have none: then the end of the body is the end. Sources: OpenAI's API
reference ("Image streaming": `image_generation.completed`, `image_edit.completed`; "Create transcription":
`transcript.text.done`; "Create speech": `speech.audio.done`), Anthropic's "Text Completions" (a `stop_reason`),
platform.minimax.io "Image generation" (`….partial_succeeded` for each picture, then `….completed` or `error`).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.lenient_json import read_answer
from pool_server.dialects.types import FAULT, RENDERED, TERMINAL, AnswerFacts, status_of, text
from pool_server.dialects.usage import openai
from pool_server.dialects.wire.sse import data_of

_TYPE = re.compile(rb'(?:event:[^\n]*\n)?data: ?\{"type": ?"([\w.-]+)"')
_EVENT_LINE = re.compile(rb"(?:^|\n)event: ?([\w.-]+)")
_LAST = (".completed", ".done")
_ASIDE = frozenset(("ping", "keepalive"))  # they say nothing of how far the answer is
_BULKY = (b".partial_image", b".delta")  # base64; nothing in them is read


class _Event(msgspec.Struct):
    type: Any = ""
    model: Any = ""
    usage: Any = None
    error: Any = None
    stop_reason: Any = None
    choices: list[Any] | None = None


_EVENT = Decoder(_Event)


class MediaReader(AnswerFacts):
    """Reads the events of one such stream. `statuses` are the HTTP statuses of the vendor's error types.

    More than one last event may come, one a picture, so the end of the body alone is `TERMINAL`; it is whole unless
    the last event that tells was only a part of something.
    """

    def __init__(self, statuses: dict[str, int]) -> None:
        super().__init__()
        self._statuses = statuses
        self._told = openai.told()
        self._shown = False
        self._unfinished = False

    def glance(self, chunk: bytes) -> bool:
        """Whether this is one whole event that `event` would find to be `RENDERED` and no more."""
        return False

    def event(self, event: bytes) -> int:
        data = data_of(event)
        if not data:
            return 0
        if data == b"[DONE]":
            self.complete = self._shown
            return RENDERED | TERMINAL if self._shown else 0
        found = read_answer(data, _EVENT)
        line = _EVENT_LINE.search(event)
        kind = text(found.type) if found is not None else ""
        kind = kind or (line[1].decode() if line is not None else "")
        if found is None:
            return self._advanced(kind)
        if found.error is not None or kind == "error":
            error = found.error if isinstance(found.error, dict) else {}
            labels = (error.get("status_code"), error.get("http_code"), error.get("code"), error.get("type"))
            self.fault = status_of(self._statuses, *labels, default=500), data
            return FAULT
        self.model = self.model or text(found.model)
        if found.usage is not None and openai.take(self._told, found.usage):
            self._served.read(found.usage)
            self._usage = openai.usage(self._told.figures)
        if found.choices is not None or kind == "completion":
            return self._said(found)
        return self._advanced(kind)

    def wanted(self, head: bytes) -> bool:
        match = _TYPE.match(head)
        return match is None or not match[1].endswith(_BULKY)

    def passed_over(self, head: bytes) -> int:
        match = _TYPE.match(head)
        return self._advanced(match[1].decode() if match is not None else "")

    def end(self) -> None:
        """The body ended, as its length or its last chunk says."""
        self.complete = self.complete or (self._shown and not self._unfinished)

    def _said(self, found: _Event) -> int:
        """A piece of text, in Anthropic's form or in that of a chat: the last one tells why it ended."""
        told = [found.stop_reason]
        if found.choices is not None:
            told = [choice.get("finish_reason") for choice in found.choices if isinstance(choice, dict)]
        if told:  # else it is only the usage
            self._shown, self._unfinished = True, not any(map(text, told))
        return RENDERED if self._shown else 0

    def _advanced(self, kind: str) -> int:
        if kind not in _ASIDE:
            self._shown = True
            self._unfinished = not kind.endswith(_LAST) if kind else self._unfinished
        return RENDERED if self._shown else 0
