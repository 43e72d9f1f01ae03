"""Plain values that pass between rooms. They hold data and no behaviour beyond arithmetic.

Times are unix seconds (float) unless a name says otherwise; tokens are whole numbers; cost is US dollars.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from pool_server.core.enums import (
    CostBasis,
    Denial,
    Dialect,
    ErrorKind,
    FaultKind,
    ObjectKind,
    Operation,
    Outcome,
    Provider,
    Source,
    Transport,
)

MOST_TOKENS = 1_000_000_000  # in one answer; the largest contexts are a thousandth of it: a figure beyond it is broken
MOST_DOLLARS = 1_000_000.0  # for one answer
MOST_GROUPS = 20  # of one person, or of one account
_GROUP = re.compile(r"\w[\w .-]{0,39}")


def _short(value: msgspec.Struct) -> str:
    """A repr of only what `__rich_repr__` shows, for records that carry credentials."""
    fields = ", ".join(f"{name}={shown!r}" for name, shown in value.__rich_repr__())
    return f"{type(value).__name__}({fields})"


class Usage(msgspec.Struct, omit_defaults=True):
    """Normalised token counts of one exchange.

    `input` excludes everything that touched a cache; `cache_write` holds every lifetime, `cache_write_1h` and
    `cache_write_12h` are the parts of it kept for an hour and for twelve; `cache_read_explicit` is the part of
    `cache_read` from caches the caller made; `reasoning` is a part of `output`. Kinds of tokens other than text are
    parts of `input` (`…_in`), `cache_read` (`…_cache_read`) and `output` (`…_out`); `other_kinds` counts tokens of
    kinds nobody has a price for. `known` is False until the provider reported anything; `estimated` says that the
    pool made the counts up from sizes.

    `parts` are the model runs the counts add up from where there was more than one (each priced by its own prompt);
    `model` names the model of a part where it is another than the answer's; `calls` is how many model runs of about the
    same prompt size a part stands for.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    web_searches: int = 0
    known: bool = False
    estimated: bool = False
    cache_write_12h: int = 0
    cache_read_explicit: int = 0
    audio_in: int = 0
    image_in: int = 0
    video_in: int = 0
    audio_cache_read: int = 0
    image_cache_read: int = 0
    audio_out: int = 0
    image_out: int = 0
    other_kinds: int = 0
    parts: list[Usage] = []
    model: str = ""
    calls: int = 1

    @property
    def total(self) -> int:
        return self.input + self.cache_read + self.cache_write + self.output

    @property
    def prompt(self) -> int:
        """Everything that was read, whatever touched a cache."""
        return self.input + self.cache_read + self.cache_write

    @property
    def counted(self) -> bool:
        """There are counts to record and to charge: the provider's or the pool's estimate."""
        return self.known or self.estimated


class WindowObservation(msgspec.Struct, frozen=True):
    """One sighting of one quota window of one account.

    `window` is the name by duration ("5h", "7d", "30d", "1d", "1m", "credits"); `seconds` its length (0 when
    not known); `scope` is "" for the whole account or the model family or limit it binds ("opus", "7d_oi").
    `used_percent` may exceed 100. `resets_at` is None when the provider has not said.
    """

    window: str
    seconds: int
    used_percent: float
    resets_at: float | None
    source: Source
    observed_at: float
    scope: str = ""


class RequestScope(msgspec.Struct, frozen=True):
    """The request alone: nothing is cooled."""


class ModelScope(msgspec.Struct, frozen=True):
    """The account for this model, in the operation the request asked for."""

    model: str

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("a fault of a model names the model")


class FamilyScope(msgspec.Struct, frozen=True):
    """The account for all models that one of the provider's own limits binds, whatever is asked of them."""

    family: str

    def __post_init__(self) -> None:
        if not self.family:
            raise ValueError("a fault of a model family names the family")


class AccountScope(msgspec.Struct, frozen=True):
    """The whole account."""


class ProviderScope(msgspec.Struct, frozen=True):
    """The way to the provider: its host, through the account's proxy."""


FaultScope = RequestScope | ModelScope | FamilyScope | AccountScope | ProviderScope
OF_REQUEST, OF_ACCOUNT, OF_PROVIDER = RequestScope(), AccountScope(), ProviderScope()


class Fault(msgspec.Struct, frozen=True):
    """What went wrong upstream. `message` is short, has been redacted and may be shown to people.

    `scope` is what the fault speaks of. `retry_at` is when the provider says it may be tried again, already capped
    to what is plausible. `bare`: the status alone says so, no code or sentence of the provider's.
    """

    kind: FaultKind
    scope: FaultScope = OF_REQUEST
    retry_at: float | None = None
    code: str = ""
    message: str = ""
    status: int = 0
    windows: tuple[WindowObservation, ...] = ()
    bare: bool = False


class Attempt(msgspec.Struct, omit_defaults=True):
    """One try of one account within an exchange. Times are milliseconds."""

    account: str
    status: int = 0
    fault: str = ""
    message: str = ""
    started_ms: float = 0.0
    ms: float = 0.0
    usage: Usage | None = None  # what a failed attempt had already used, if it said so


class MoveCost(msgspec.Struct, omit_defaults=True):
    """What it cost that a conversation went on with another account than `before`: tokens that account had in its cache
    and this one read anew, and US dollars more than from a cache. None: not known, which is not nothing."""

    before: str
    tokens: int | None = None
    cost: float | None = None


class UsageRecord(msgspec.Struct, omit_defaults=True):
    """One exchange, as the ledger keeps it. Times: `at` unix seconds, the others milliseconds from `at`.

    `cost` is the API-equivalent price in US dollars at the prices of its day, None when no price is known;
    `cost_basis` says what it rests on. `model` is the one asked for, `answered` the one that answered where it is
    another; `tier`, `speed` and `geo` are how the answer says it was served. `job` is the hashed id of a stored
    response or a batch, whose usage counts once however often it is fetched; `reserved` is what the limits were
    charged when such a job was made, before its usage was known. `partial` says that the client or the upstream left
    before the final usage was known. `decision` is the record of the last choice. `session` is a short
    hash, never the client's own identifier. `move`: its conversation was with another account before.
    """

    id: str
    at: float
    user: str
    provider: str = ""
    account: str = ""
    model: str = ""
    dialect: str = Dialect.RESPONSES.value
    transport: str = Transport.BUFFERED.value
    operation: str = Operation.OTHER.value
    status: int = 0
    outcome: str = Outcome.OK.value
    message: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)
    cost: float | None = None
    partial: bool = False
    attempts: list[Attempt] = []
    first_byte_ms: float | None = None
    total_ms: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    key: str = ""
    agent: str = ""
    session: str = ""
    tier: str = ""
    decision: dict[str, Any] = {}
    cost_basis: str = CostBasis.LIST.value
    answered: str = ""
    speed: str = ""
    geo: str = ""
    job: str = ""
    reserved: Usage | None = None
    project: str = ""
    move: MoveCost | None = None


class Peek(msgspec.Struct):
    """The few facts of a request the pool needs. Nothing of the prompt is kept.

    `session` is the conversation id to pin by (already hashed when it was made from text), `session_source` says
    where it came from. `hard` are ids that only one account can serve: (kind, id), e.g. ("turn_state", "…"). `objects`
    are the things kept by the provider that the body names. `usage_asked` says that a streamed completion is to tell
    its usage, `stored` that the answer can be fetched again. `batch` are the models a batch's requests name, each with
    the most tokens they may use, `batch_expected` with the tokens of prompts and of answers they are likely to use;
    `batch_by_file`: its requests are in a file. `beside` are models that work beside the one that is asked.
    """

    model: str = ""
    stream: bool = False
    session: str | None = None
    session_source: str = ""
    hard: tuple[tuple[str, str], ...] = ()
    previous_response_id: str | None = None
    max_output: int | None = None
    tier: str = ""
    tools: int = 0
    usage_asked: bool = False
    objects: tuple[tuple[ObjectKind, str], ...] = ()
    stored: bool = False
    batch: dict[str, int] = {}
    batch_expected: dict[str, tuple[int, int]] = {}
    batch_by_file: bool = False
    beside: tuple[str, ...] = ()


class ClientError(msgspec.Struct, frozen=True):
    """Something the pool itself has to tell a client, before a dialect gave it its shape.

    `own_words`: the message is the provider's.
    """

    kind: ErrorKind
    message: str
    status: int
    retry_at: float | None = None
    code: str = ""
    provider: Provider | None = None
    plan: str = ""
    own_words: bool = False


class HttpRequest(msgspec.Struct, frozen=True):
    """A call of the pool's own (refresh, usage, test), described without doing it. Its repr shows no secret.

    `egress` are the origins it may be sent to, perhaps with PUBLIC_ONLY; without its own among them it is not sent.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    proxy_url: str | None = None
    timeout_s: float = 30.0
    egress: frozenset[str] = frozenset()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("url", self.url.partition("?")[0])]

    def __repr__(self) -> str:
        return _short(self)


class HttpAnswer(msgspec.Struct, frozen=True):
    """The answer to an `HttpRequest`; header names are lower case. `status` 0 = the network failed; `unsent`: before
    anything of the request had left."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    error: str = ""
    unsent: bool = False

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("status", self.status), ("bytes", len(self.body))]

    def __repr__(self) -> str:
        return _short(self)


Send = Callable[[HttpRequest], Awaitable[HttpAnswer]]  # does a call of the pool's own


class ClientCall(msgspec.Struct):
    """A client's call, as far as a provider must know it to prepare the upstream request; `stream`: it wants events.

    `path` has neither the pool's provider prefix nor a doubled one; `query` has no pool key; `headers` are the
    client's in their order and case, without credential, hop-by-hop, forwarding, cookie and X-Pool-* headers.
    """

    operation: Operation
    dialect: Dialect
    method: str
    path: str
    query: str = ""
    headers: list[tuple[str, str]] = []
    model: str = ""
    websocket: bool = False
    stream: bool = False

    def named(self, model: str) -> ClientCall:
        """The call with another name of the model, which Gemini's clients write into the path."""
        path = self.path.replace(f"/{self.model}:", f"/{quote(model, safe='')}:")
        return msgspec.structs.replace(self, model=model, path=path)


class UpstreamRequest(msgspec.Struct):
    """The upstream request. `patch` sets top-level JSON fields of the body (Code Assist's `project`), `drop` takes some
    away; `sign` makes of the body that goes up the headers that show the credential.

    `egress` are the origins its account may reach, perhaps with PUBLIC_ONLY; without its own among them it is not sent.
    Once it is made it does not change: it may be sent again, and `written` is its head as it was written before.
    """

    method: str
    url: str
    headers: list[tuple[str, str]]
    patch: dict[str, Any] | None = None
    egress: frozenset[str] = frozenset()
    drop: tuple[str, ...] = ()
    sign: Callable[[bytes], list[tuple[str, str]]] | None = None
    written: Any = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        names = [name for name, _ in self.headers]
        return [("method", self.method), ("url", self.url.partition("?")[0]), ("header_names", names)]

    def __repr__(self) -> str:
        return _short(self)


def group_names(said: str | Iterable[object]) -> tuple[str, ...]:
    """Names as a list or in a text with commas between, each once and in its one form. Raises ValueError.

    >>> group_names("Family, The  Lab,family")
    ('family', 'the lab')
    """
    listed = said.split(",") if isinstance(said, str) else list(said)
    if not all(isinstance(one, str) for one in listed):
        raise ValueError("groups must be a list of names")
    found = tuple(dict.fromkeys(name for one in listed if (name := " ".join(str(one).split()).casefold())))
    if len(found) > MOST_GROUPS:
        raise ValueError(f"groups are at most {MOST_GROUPS}")
    if not all(_GROUP.fullmatch(name) for name in found):
        raise ValueError("a group's name is 1 to 40 letters, digits, blanks, dots and dashes")
    return found


class Principal(msgspec.Struct, frozen=True):
    """Who is asking. `key` is the `jti` of the pool key used, "" for browser sessions and local mode."""

    user: str
    name: str
    key: str = ""
    admin: bool = False
    local: bool = False
    session: str = ""  # short hash that names the browser session, "" for keys


class Denied(msgspec.Struct, frozen=True):
    """Why a caller is refused. `retry_at` says when it frees again, None when it does not.

    `status` is 401, 403, 429 or 503; `message` is a plain sentence for people.
    """

    denial: Denial
    message: str
    status: int
    retry_at: float | None = None
