"""The neutral form: what a request asks and an answer holds, whichever dialect says it.

Requests are whole values. Answers are a sequence of calls on a `Sink`: the same calls whether the upstream streams or
answers in one piece, so that each dialect needs one reader and one writer of each shape.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from pool_server.core.enums import Dialect
from pool_server.core.models import Usage

_MOST_FIELDS = 8  # fields told of one feature
MOST_NAMES = 48  # of fields that are left out


class UpstreamKind(StrEnum):
    """The account's side of a translation: the dialect it speaks and who speaks it."""

    CODEX = "codex"  # the ChatGPT backend: Responses with rules of its own, streams only
    RESPONSES = "responses"
    CHAT = "chat"
    MESSAGES = "messages"
    GEMINI = "gemini"
    CODE_ASSIST = "code_assist"


DIALECT = {
    UpstreamKind.CODEX: Dialect.RESPONSES,
    UpstreamKind.RESPONSES: Dialect.RESPONSES,
    UpstreamKind.CHAT: Dialect.CHAT,
    UpstreamKind.MESSAGES: Dialect.MESSAGES,
    UpstreamKind.GEMINI: Dialect.GEMINI,
    UpstreamKind.CODE_ASSIST: Dialect.CODE_ASSIST,
}


class Family(StrEnum):
    """Whose reasoning a seal is: only the same family can read it."""

    OPENAI = "openai"
    CLAUDE = "claude"
    GEMINI = "gemini"
    CHAT = "chat"  # plain `reasoning_content`, no seal


FAMILY = {
    UpstreamKind.CODEX: Family.OPENAI,
    UpstreamKind.RESPONSES: Family.OPENAI,
    UpstreamKind.CHAT: Family.CHAT,
    UpstreamKind.MESSAGES: Family.CLAUDE,
    UpstreamKind.GEMINI: Family.GEMINI,
    UpstreamKind.CODE_ASSIST: Family.GEMINI,
}

OPENAI = (UpstreamKind.CODEX, UpstreamKind.RESPONSES)
GOOGLE = (UpstreamKind.GEMINI, UpstreamKind.CODE_ASSIST)


class Role(StrEnum):
    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"  # holds `Result` parts only


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    STOP_STRING = "stop_string"
    TOOLS = "tools"
    LENGTH = "length"
    FILTER = "filter"
    REFUSAL = "refusal"  # the model declined in words
    PAUSE = "pause"
    MALFORMED = "malformed"  # the model wrote a call that cannot be read


class TokenLogprob(msgspec.Struct):
    """A token of the answer with its natural logarithm of probability. `bytes` are its UTF-8, None where not told;
    `top` the likeliest tokens at its place."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top: list[TokenLogprob] = []


class Text(msgspec.Struct):
    text: str
    refusal: bool = False
    logprobs: list[TokenLogprob] = []


class Media(msgspec.Struct):
    """`kind` is image, document, audio or video; either `data` (base64) with `mime`, or `url`."""

    kind: str
    mime: str = ""
    data: str = ""
    url: str = ""
    name: str = ""
    detail: str = ""


class ToolCall(msgspec.Struct):
    """A call of a tool. `arguments` is JSON text, or the free text of a custom tool; `cut`: the answer ended within
    them."""

    id: str
    name: str
    arguments: str = ""
    custom: bool = False
    cut: bool = False


class Result(msgspec.Struct):
    """What a call came to. `call_id` may be empty where the dialect matches by name and order."""

    call_id: str
    parts: list[Text | Media]
    name: str = ""
    failed: bool = False
    custom: bool = False


class Reasoning(msgspec.Struct):
    """`seal` is the vendor's signature or encryption, "" where it has none; a redacted one has no text."""

    text: str = ""
    family: Family | None = None
    seal: str = ""
    redacted: bool = False


Part = Text | Media | ToolCall | Result | Reasoning


class Message(msgspec.Struct):
    role: Role
    parts: list[Part]

    def text(self) -> str:
        return "\n\n".join(part.text for part in self.parts if isinstance(part, Text) and part.text)


class Tool(msgspec.Struct):
    """A function (`schema` is its JSON schema), or a custom tool of free text (`format` as OpenAI writes it)."""

    name: str
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    custom: bool = False
    format: Any = None


class WebSearch(msgspec.Struct):
    allowed: list[str] = []
    blocked: list[str] = []
    location: dict[str, Any] | None = None
    max_uses: int | None = None


class Choice(msgspec.Struct):
    """`mode` is auto, none or required; `names` narrows auto and required to these tools."""

    mode: str
    names: list[str] = []


class Format(msgspec.Struct):
    """The answer is JSON; `schema` None asks for any object."""

    schema: dict[str, Any] | None = None
    name: str = "result"
    strict: bool | None = None
    description: str = ""


class Effort(msgspec.Struct):
    """How much the model is to reason: a level (none … max), a budget in tokens, or both."""

    level: str
    budget: int | None = None
    show: bool = True


class Sound(msgspec.Struct):
    """The answer is to be heard. `voice` is the client's name of it, "" for any; `text`: what is said is also to be
    told as text."""

    voice: str = ""
    text: bool = False


class RequestOptions(msgspec.Struct):
    """`logprobs` is how many of the likeliest tokens are wanted beside each, None where no log probabilities are."""

    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    parallel: bool | None = None
    tier: str = ""
    verbosity: str = ""
    session: str = ""  # the client's own name of the conversation; it may contain a person's id
    choices: int = 1
    logprobs: int | None = None
    sound: Sound | None = None
    pictures: bool = False
    cache_key: str = ""  # OpenAI's `prompt_cache_key` as the client wrote it


class NeutralRequest(msgspec.Struct):
    """`asks` maps a feature (a `table.Feature` value) to the client's first few fields that ask for it; `echo` holds
    the fields of a Responses request its answer repeats."""

    model: str = ""
    messages: list[Message] = []
    tools: list[Tool] = []
    web_search: WebSearch | None = None
    choice: Choice | None = None
    format: Format | None = None
    effort: Effort | None = None
    options: RequestOptions = msgspec.field(default_factory=RequestOptions)
    stream: bool = False
    include_usage: bool = True
    asks: dict[str, list[str]] = {}
    unknown: list[str] = []
    namespaces: dict[str, tuple[str, str]] = {}  # flattened tool name → (namespace, name)
    echo: dict[str, Any] = {}
    compacts: bool = False  # asks for a summary in the place of the conversation, as one item
    legacy: bool = False  # offers `functions`, as Chat did before it had tools: one call an answer
    inside: list[str] = []  # fields nobody reads, further in than the top
    inside_further: int = 0  # how many more there were

    def say(self, role: Role, parts: list[Part]) -> None:
        """Add a turn whose results of tools, if any, are a message of the tool's before it."""
        results: list[Part] = [part for part in parts if isinstance(part, Result)]
        if results:
            self.messages.append(Message(Role.TOOL, results))
            parts = [part for part in parts if not isinstance(part, Result)]
        if parts:
            self.messages.append(Message(role, parts))

    def leave(self, field: str) -> None:
        """Note that nobody reads the client's `field`."""
        if field in self.inside:
            return
        if len(self.inside) < MOST_NAMES:
            self.inside.append(field)
        else:
            self.inside_further += 1

    def ask(self, feature: str, field: str) -> None:
        """Note that the client's `field` needs `feature`."""
        fields = self.asks.setdefault(feature, [])
        if len(fields) < _MOST_FIELDS and field not in fields:
            fields.append(field)


class ErrorInfo(msgspec.Struct):
    """What an upstream says went wrong. `message` is the vendor's; `retry_after` is seconds."""

    status: int
    message: str
    type: str = ""
    code: str = ""
    retry_after: float | None = None


class Sink(Protocol):
    """Takes an answer as it comes. Keys name blocks and may interleave; each method may come in any order, any
    number of times, or never: a sink copes with all of it."""

    def start(self, ident: str, model: str) -> None:
        """The answer begins; both may be empty."""

    def text(self, key: Hashable, piece: str, *, refusal: bool = False) -> None: ...

    def logprobs(self, key: Hashable, tokens: list[TokenLogprob], *, refusal: bool = False) -> None:
        """The tokens of a text, told before the piece they make up."""

    def media(self, key: Hashable, mime: str, data: str) -> None:
        """Sound or a picture in base64; of a sound a piece that can be decoded by itself."""

    def leave(self, what: str) -> None:
        """Something of the answer has no word in any other dialect; `what` is the vendor's own name for it."""

    def reasoning(self, key: Hashable, piece: str) -> None: ...

    def call(self, key: Hashable, ident: str, name: str, *, custom: bool = False, order: int | None = None) -> None:
        """A call begins, or more of its id and name is known. Calls with an `order` are told from 0 upwards."""

    def arguments(self, key: Hashable, piece: str) -> None: ...

    def end(self, key: Hashable, *, whole: str | None = None, seal: str = "", redacted: bool = False) -> None:
        """A block ends; `whole` is all of its text or arguments, used where no piece came."""

    def finish(self, reason: Finish, stop: str = "", *, said: bool = True) -> None:
        """`said`: the upstream gave the reason; else nothing but its end is known."""

    def usage(self, usage: Usage) -> None: ...

    def fail(self, error: ErrorInfo) -> None: ...

    def close(self) -> None:
        """The upstream said everything."""
