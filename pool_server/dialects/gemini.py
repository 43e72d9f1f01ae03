"""The Gemini protocol: generativelanguage.googleapis.com, and Code Assist, which wraps the same in `response`."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.lenient_json import BLANK, read_answer
from pool_server.dialects.types import FAULT, RENDERED, TERMINAL, AnswerFacts, status_of, text
from pool_server.dialects.usage import google
from pool_server.dialects.wire.sse import closes, data_of

# google.rpc status names and the HTTP status each is sent with.
STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

# What the last chunk has, searches, or an error. Within JSON strings quotes are escaped, so a text never looks like it.
_ENDING = re.compile(rb'"(?:finishReason|error|blockReason|webSearchQueries)"')
_NOT_ENDED = ("", "FINISH_REASON_UNSPECIFIED")


class _Content(msgspec.Struct):
    parts: list[msgspec.Raw] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: Any = None
    grounding_metadata: Any = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: Any = None


class _Response(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: Any = None
    prompt_feedback: _Feedback | None = None
    model_version: Any = ""
    response_id: Any = ""
    name: Any = ""
    error: Any = None


class _Wrapped(_Response, rename="camel"):
    response: _Response | None = None


_WRAPPED, _PARTS = Decoder(_Wrapped), Decoder(list[msgspec.Raw])


class GeminiReader(AnswerFacts):
    """Reads the chunks of one streamed answer, or a whole JSON one.

    Every chunk repeats the running usage: the latest is kept undecoded until someone asks. There is no closing
    event; an answer is whole when a finish reason and the usage were seen.
    """

    def __init__(self) -> None:
        self._latest: bytes | None = None
        super().__init__()
        self._counts = google.told()
        self._searches: set[str] = set()
        self._rendered = False
        self._told = False  # the end has been signalled

    def glance(self, chunk: bytes) -> bool:
        """Whether this is one whole event that `event` would find to be `RENDERED` and no more."""
        return chunk.startswith(b"data: {") and closes(chunk, 0) and self._flows(chunk)

    def _flows(self, event: bytes) -> bool:
        """Whether an event that has data is only a further piece of what is shown; its usage is kept."""
        if not self._rendered or _ENDING.search(event) is not None or (self.complete and not self._told):
            return False
        if event.rfind(b'"usageMetadata"') >= 0:
            self._latest = event
        return True

    def event(self, event: bytes) -> int:
        data = data_of(event)
        if not data:
            return 0
        return RENDERED if self._flows(event) else self._decode(data)

    def wanted(self, head: bytes) -> bool:
        return True

    def passed_over(self, head: bytes) -> int:
        self._rendered = True
        return RENDERED

    def _settle(self) -> None:
        """Read the chunk that was kept undecoded."""
        latest, self._latest = self._latest, None
        if latest is not None:
            self._take(data_of(latest))

    def _take(self, data: bytes) -> _Response | None:
        """Decode a chunk and keep what it tells."""
        chunk = read_answer(data, _WRAPPED)
        if chunk is None:
            return None
        response: _Response = chunk
        if chunk.response is not None:
            response = chunk.response
            response.error = response.error or chunk.error
            response.usage_metadata = response.usage_metadata or chunk.usage_metadata
        self.model = text(response.model_version) or self.model
        self.response_id = text(response.response_id) or text(response.name) or self.response_id
        for candidate in response.candidates or ():
            if candidate.grounding_metadata is not None:
                self._searches |= google.searches(candidate.grounding_metadata)
        if response.usage_metadata is not None and google.take(self._counts, response.usage_metadata):
            self._served.read(response.usage_metadata)
            self._usage = google.usage(self._counts.figures)
        self._usage.web_searches = len(self._searches)
        return response

    def _decode(self, data: bytes) -> int:
        """A chunk before anything was shown, the last one, or an error."""
        self._settle()
        response = self._take(data)
        if response is None:
            return RENDERED if self._rendered else 0
        if response.error is not None:
            error = response.error if isinstance(response.error, dict) else {}
            self.fault = status_of(STATUS, error.get("code"), error.get("status"), default=500), data
            return FAULT
        self.complete = self.complete or self._ended(response)
        shown = any(c.content is not None and c.content.parts for c in response.candidates or ())
        self._rendered = self._rendered or shown or self.complete
        fresh = self.complete and self._usage.known and not self._told
        self._told = self._told or fresh
        return (RENDERED if self._rendered else 0) | (TERMINAL if fresh else 0)

    @staticmethod
    def _ended(response: _Response) -> bool:
        if response.prompt_feedback is not None and response.prompt_feedback.block_reason:
            return True
        return any(text(c.finish_reason) not in _NOT_ENDED for c in response.candidates or ())

    def whole(self, body: bytes) -> int:
        """Read a JSON answer, or the JSON array `streamGenerateContent` sends without `alt=sse`; without a candidate
        or a reason for that it is none."""
        parts = read_answer(body, _PARTS) if body.lstrip(BLANK)[:1] == b"[" else [msgspec.Raw(body)]
        if not parts:
            return 0
        for part in parts:
            response = self._take(bytes(part))
            if response is None:
                return 0
            if response.error is not None:
                error = response.error if isinstance(response.error, dict) else {}
                self.fault = status_of(STATUS, error.get("code"), error.get("status"), default=500), bytes(part)
                return FAULT
            blocked = response.prompt_feedback is not None and bool(response.prompt_feedback.block_reason)
            self.complete = self.complete or bool(response.candidates) or blocked
        return TERMINAL if self.complete else 0
