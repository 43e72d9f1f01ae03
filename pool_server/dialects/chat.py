"""The OpenAI Chat Completions protocol, as Qwen Code, opencode and every compatible server speak it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.lenient_json import read_answer
from pool_server.dialects.responses import STATUS as RESPONSES_STATUS
from pool_server.dialects.types import FAULT, RENDERED, TERMINAL, USAGE, AnswerFacts, dumps, says, status_of, text
from pool_server.dialects.usage import openai
from pool_server.dialects.usage.served import word
from pool_server.dialects.wire.sse import closes, data_of
from pool_server.dialects.wire.stream_usage import only_usage

# DashScope's own codes beside OpenAI's.
STATUS = RESPONSES_STATUS | {
    "invalid_parameter_error": 400,
    "invalid_access_token": 401,
    "limit_requests": 429,
    "limit_burst_rate": 429,
    "quota_exceeded": 429,
    "internal_error": 500,
    "InternalError": 500,
    "Throttling": 429,
}

# What makes a chunk more than a piece of text. Within JSON strings quotes are escaped, so a text never looks like it.
# A reason may be in capitals, and the word null is none.
_TELLING = re.compile(
    rb'"(?:usage"\s*+:\s*+\{|error"\s*+[:,}]|finish_reason"\s*+:\s*+"[A-Za-z]|status_code"\s*+:\s*+[1-9])'
)
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"(?!null")[A-Za-z]')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(rb'"error"\s*[:,}]|"status_code"\s*:\s*[1-9]')  # a key, vLLM's "object", or MiniMax's code
_NAMED_ERROR = (b"event: error\n", b"event: error\r", b"event:error\n", b"event:error\r")


class _Choice(msgspec.Struct):
    delta: dict[str, Any] | None = None
    message: Any = None
    text: Any = ""
    finish_reason: Any = None
    usage: Any = None


class _XGroq(msgspec.Struct):
    usage: Any = None
    error: Any = None


class _Chunk(msgspec.Struct):
    id: Any = ""
    model: Any = ""
    service_tier: Any = ""
    usage: Any = None
    x_groq: _XGroq | None = None
    choices: list[_Choice] | None = None
    error: Any = None
    code: Any = None
    object: Any = None
    base_resp: Any = None


class _Answer(msgspec.Struct):
    id: Any = ""
    model: Any = ""
    service_tier: Any = ""
    usage: Any = None
    x_groq: _XGroq | None = None
    error: Any = None
    choices: Any = None
    base_resp: Any = None


_NO_ANSWER = dumps({"error": {"type": "server_error", "code": "no_answer", "message": "the answer holds no choices"}})
_CHUNK, _ANSWER = Decoder(_Chunk), Decoder(_Answer)
_ANY: Decoder[Any] = Decoder()
_WORDS = ("message", "msg", "error_msg", "errorMessage", "detail")  # what servers say of a failed call


def fault_in(answer: dict[str, Any]) -> Any:
    """What a chunk or answer says went wrong, outside its choices: an `error`, vLLM's flat object, Groq's own error,
    and MiniMax's code in place of a status; None where it says nothing."""
    if says(answer.get("error")):
        return answer["error"]
    base, groq = answer.get("base_resp"), answer.get("x_groq")
    if isinstance(groq, dict) and says(groq.get("error")):
        return groq["error"]
    if isinstance(base, dict) and base.get("status_code"):
        return {"message": base.get("status_msg"), "code": base["status_code"]}
    flat = answer.get("object") == "error" and not answer.get("choices")
    return answer if flat else None


def error_event(event: bytes) -> bytes:
    """The error object of an event that is one by its name alone, as of llama.cpp's `error:` lines and of events named
    so that hold a text; nothing of others."""
    if event.startswith(b"error:"):
        data = event[6:].strip()
    elif event.startswith(_NAMED_ERROR) and b'"error"' not in event:
        data = data_of(event)
    else:
        return b""
    found = read_answer(data, _ANY)
    return dumps({"error": found if isinstance(found, (dict, str)) else data.decode("utf-8", "replace")})


class ChatReader(AnswerFacts):
    """Reads the chunks of one streamed completion, or a whole JSON one.

    Some servers repeat the running usage in every chunk: the latest is kept undecoded until someone asks.
    """

    def __init__(self) -> None:
        self._latest: bytes | None = None
        super().__init__()
        self._told = openai.told()
        self._rendered = False
        self._chosen = False  # there was a choice; a stream without any is no answer
        self._finished = False
        self.answers = False  # a whole answer is a completion, which has choices

    def glance(self, chunk: bytes) -> bool:
        """Whether this is one whole event that `event` would find to be `RENDERED` and no more."""
        return closes(chunk, 0) and self._flows(chunk)

    def _flows(self, event: bytes) -> bool:
        return self._rendered and event.startswith(b"data: {") and _TELLING.search(event) is None

    def event(self, event: bytes) -> int:
        if self._flows(event):
            return RENDERED
        odd = error_event(event)
        data = odd or data_of(event)
        if odd and self._rendered:
            return RENDERED  # no client of Chat reads these: what follows nothing good is told as a broken answer
        if not data:
            return 0
        if data == b"[DONE]":
            self.complete = self._rendered or self._chosen
            return RENDERED | TERMINAL if self.complete else 0
        if _USAGE.search(data) is not None:
            if self._finished:  # a relay may send an empty one after the last: each is looked at
                self._settle()
            self._latest = data
            if only_usage(data):
                return USAGE | (RENDERED if self._rendered else self._decode(data))
        if self._rendered and _ERROR.search(data) is None:
            self._finished = self._finished or _FINISH.search(data) is not None
            return RENDERED
        return self._decode(data)

    def wanted(self, head: bytes) -> bool:
        return True

    def passed_over(self, head: bytes) -> int:
        self._rendered = True
        return RENDERED

    def end(self) -> None:
        """Some servers never send [DONE]: a stream that ended after its finish reason is whole."""
        self.complete = self.complete or self._finished

    def _settle(self) -> None:
        """Read the usage that was kept undecoded."""
        latest, self._latest = self._latest, None
        if latest is not None and (chunk := read_answer(latest, _CHUNK)) is not None:
            self._count(chunk)

    def _count(self, found: _Chunk | _Answer) -> None:
        """Take the usage from where it stands: in the chunk, in Groq's `x_groq`, in Moonshot's choice."""
        self._served.tier = word(found.service_tier) or self._served.tier
        places = [found.usage, found.x_groq.usage if found.x_groq is not None else None]
        if isinstance(found, _Chunk):
            places += [choice.usage for choice in found.choices or ()]
        for raw in places:
            if raw is not None and openai.take(self._told, raw):
                self._served.read(raw)
                self._usage = openai.usage(self._told.figures)
                return

    def _decode(self, data: bytes) -> int:
        """A chunk before anything was shown, or one that may be an error."""
        chunk = read_answer(data, _CHUNK)
        if chunk is None:
            return RENDERED if self._rendered else 0
        flat = chunk.choices is None and (chunk.code is not None or chunk.object == "error")
        groq = chunk.x_groq is not None and says(chunk.x_groq.error)
        base = isinstance(chunk.base_resp, dict) and chunk.base_resp.get("status_code")
        if self._rendered and (groq or base):
            return RENDERED
        if says(chunk.error) or flat or groq:
            label = chunk.error if isinstance(chunk.error, dict) else {"code": chunk.code}
            self.fault = status_of(STATUS, label.get("code"), label.get("type"), default=500), data
            return FAULT
        if base:
            self.fault = 200, data
            return FAULT
        self.response_id = self.response_id or text(chunk.id)
        self.model = self.model or text(chunk.model)
        self._served.tier = word(chunk.service_tier) or self._served.tier
        for choice in chunk.choices or ():
            self._chosen = True
            self._finished = self._finished or text(choice.finish_reason) not in ("", "null")
            shown = (value for name, value in (choice.delta or {}).items() if name != "role")
            self._rendered = self._rendered or self._finished or any(shown) or bool(text(choice.text) or choice.message)
        return RENDERED if self._rendered else 0

    def whole(self, body: bytes) -> int:
        """Read a JSON completion."""
        answer = read_answer(body, _ANSWER)
        if answer is None:
            return 0
        if says(answer.error):
            label = answer.error if isinstance(answer.error, dict) else {}
            self.fault = status_of(STATUS, label.get("code"), label.get("type"), default=500), body
            return FAULT
        if isinstance(answer.base_resp, dict) and answer.base_resp.get("status_code"):  # MiniMax's error in a 200
            self.fault = 200, body
            return FAULT
        self.response_id, self.model = text(answer.id), text(answer.model)
        self._count(answer)
        if (
            not self._usage.known
            and _USAGE.search(body) is not None
            and (within := read_answer(body, _CHUNK)) is not None
        ):
            self._count(within)
        if self.answers and not _chosen(answer.choices) and not self._usage.known:
            self.fault = 500, _no_answer(body)
            return FAULT
        self.complete = True
        return TERMINAL


def _chosen(choices: Any) -> bool:
    return isinstance(choices, list) and any(isinstance(one, dict) for one in choices)


def _no_answer(body: bytes) -> bytes:
    """The error that a 200 without choices stands for, in the server's own words where it has some."""
    data = read_answer(body, _ANY)
    found: dict[str, Any] = data if isinstance(data, dict) else {}
    for name in _WORDS:
        if isinstance(said := found.get(name), str) and said.strip():
            return dumps({"error": {"type": "server_error", "code": found.get("code"), "message": said}})
    return _NO_ANSWER
