"""What each dialect is: one row of `SPECS`. What others ask of a dialect they ask here."""

from __future__ import annotations

from typing import NamedTuple

from pool_server.core.enums import ApiFamily, Dialect, Operation
from pool_server.language import marked


class DialectSpec(NamedTuple):
    """`label` for pages; `client`: who speaks it, in an error; `family`: whose habits its API has: how errors are
    written, how objects and counts are named; `asked_with`: how a model is usually asked in it; `keepalive`: what a
    waiting client survives between two events and takes as a sign of life; `marks`: names by which a body may refer to
    objects, see `references`; `continues_by_id`: a request may continue a response by its id; `model_in_path`: the path
    names the model, not the body; `fixed_base`: its clients know the paths below the pool's address by themselves,
    others are given `/v1`; `usage_asked`: a stream tells its usage only when asked; `shows_media`: its clients can be
    told sound and pictures by translation; `closing`: the event its streams end with, where servers leave it out and
    clients miss it; `own_range`: a name of its vendor's own that no file lists, so that whoever
    serves it serves whatever that vendor's client asks for."""

    label: str
    client: str
    family: ApiFamily
    asked_with: Operation
    keepalive: bytes
    marks: tuple[bytes, ...]
    continues_by_id: bool = False
    model_in_path: bool = False
    fixed_base: bool = True
    usage_asked: bool = False
    shows_media: bool = False
    closing: bytes = b""
    own_range: str = ""


_RESPONSES_MARKS = (b'item_reference"', b'container"', b'conversation"', b'prompt"')
_GOOGLE_MARKS = (
    b'ri"', b'achedContent"', b'ached_content"', b'ileName"', b'ile_name"', b'earchStoreNames"', b'earch_store_names"',
)  # fmt: skip

SPECS: dict[Dialect, DialectSpec] = {
    Dialect.RESPONSES: DialectSpec(
        label=marked("OpenAI Responses"),
        client="an OpenAI client",
        family=ApiFamily.OPENAI,
        asked_with=Operation.RESPONSES,
        keepalive=b'event: keepalive\ndata: {"type":"keepalive"}\n\n',
        marks=_RESPONSES_MARKS,
        continues_by_id=True,
        fixed_base=False,
        own_range="gpt-any",
    ),
    Dialect.MESSAGES: DialectSpec(
        label=marked("Anthropic Messages"),
        client="an Anthropic client",
        family=ApiFamily.ANTHROPIC,
        asked_with=Operation.MESSAGES,
        keepalive=b'event: ping\ndata: {"type":"ping"}\n\n',
        marks=(b'file_id"', b'container"', b'skill_id"'),
        closing=b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        own_range="claude-any",
    ),
    Dialect.CHAT: DialectSpec(
        label=marked("chat completions"),
        client="an OpenAI client",
        family=ApiFamily.OPENAI,
        asked_with=Operation.CHAT,
        keepalive=b": keepalive\n\n",
        marks=(*_RESPONSES_MARKS, b'voice"', b'video"', b'characters"'),
        fixed_base=False,
        usage_asked=True,
    ),
    Dialect.GEMINI: DialectSpec(
        label=marked("Gemini"),
        client="a Gemini client",
        family=ApiFamily.GOOGLE,
        asked_with=Operation.GENERATE,
        keepalive=b"\n",
        marks=_GOOGLE_MARKS,
        shows_media=True,
        model_in_path=True,
        own_range="gemini-any",
    ),
    Dialect.CODE_ASSIST: DialectSpec(
        label=marked("Gemini Code Assist"),
        client="Gemini CLI",
        family=ApiFamily.GOOGLE,
        asked_with=Operation.GENERATE,
        keepalive=b"\n",
        marks=_GOOGLE_MARKS,
        shows_media=True,
        own_range="gemini-any",
    ),
}
