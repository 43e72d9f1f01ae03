"""Reading a client's fields: any of them may be missing, of another type, or hostile."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec.json import encode

from pool_server.core.models import Usage
from pool_server.dialects.translation.conformance import Feature, TranslationError
from pool_server.dialects.translation.neutral import (
    Choice,
    Effort,
    Format,
    Media,
    NeutralRequest,
    Sound,
    Tool,
    WebSearch,
)
from pool_server.dialects.translation.options import LEVELS, level_of
from pool_server.dialects.translation.tools import is_plain
from pool_server.dialects.usage import google, openai

_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/javascript"})
_KINDS = {"image/": "image", "audio/": "audio", "video/": "video"}
_STOPS, _STOP_SIZE = 64, 256
_LARGEST = float(1 << 53)  # of a number; beyond it another reader may see another one
_LONGEST = 40  # characters of a client's word that is repeated
JSON = msgspec.json.Decoder()
_CHOICES, _LOGPROBS = 8, 20  # Gemini's most of the one, OpenAI's of the other
_MIME_SPELT = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}  # as vendors take it
_PICTURES = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}  # base64
_MIME_BY_ENDING = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "pdf": "application/pdf",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "txt": "text/plain",
    "csv": "text/csv",
    "md": "text/markdown",
    "html": "text/html",
    "json": "application/json",
}
_ENDINGS = {mime: ending for ending, mime in _MIME_BY_ENDING.items()}
_FEATURES = {
    "image": (Feature.IMAGE, Feature.IMAGE_URL),
    "document": (Feature.DOCUMENT, Feature.DOCUMENT_URL),
    "audio": (Feature.AUDIO, Feature.AUDIO),
    "video": (Feature.VIDEO, Feature.VIDEO),
}


def words(text: str) -> frozenset[str]:
    """Names, one after the other."""
    return frozenset(text.split())


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def obj(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def each(value: Any, field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of a list of objects; null is an empty one. Raises TranslationError for anything else."""
    if value is None:
        return
    if not isinstance(value, list):
        raise TranslationError(field, "must be a list")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise TranslationError(f"{field}[{index}]", "must be an object")
        yield f"{field}[{index}]", item


def strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def number(value: Any, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TranslationError(field, "must be a number")
    if abs(value) > _LARGEST:
        raise TranslationError(field, "is larger than any number a vendor takes")
    return value


def whole(value: Any, field: str) -> int | None:
    found = number(value, field)
    if found is None:
        return None
    if abs(found) > 1 << 53 or found != int(found):
        raise TranslationError(field, "must be a whole number")
    return int(found)


def at_least_one(value: Any, field: str) -> int | None:
    found = whole(value, field)
    if found is not None and found < 1:
        raise TranslationError(field, "must be at least 1")
    return found


def stops(value: Any, field: str) -> list[str]:
    """Stop strings: a string or a list of them."""
    found = [value] if isinstance(value, str) else strings(value)
    if len(found) > _STOPS or any(len(stop) > _STOP_SIZE for stop in found):
        raise TranslationError(field, f"at most {_STOPS} strings of {_STOP_SIZE} characters")
    return [stop for stop in dict.fromkeys(found) if stop]


def no_such(kind: Any, field: str) -> TranslationError:
    """A role, part or tool nobody here knows."""
    return TranslationError(field, f"{text(kind)[:80] or 'nothing'!r} is not known here, so it cannot be translated")


def split_data_url(url: str) -> tuple[str, str] | None:
    """(media type, base64 data) of a `data:` URL; None for other URLs."""
    if not url.startswith("data:"):
        return None
    head, comma, data = url[5:].partition(",")
    mime, *flags = head.split(";")
    if not comma or not data:
        return None
    if "base64" in flags:
        return mime or "text/plain", data
    return mime or "text/plain", b64encode(unquote_to_bytes(data)).decode()


def media(
    request: NeutralRequest, kind: str, field: str, url: str, *, mime: str = "", name: str = "", detail: str = ""
) -> Media:
    """A medium at an address or within a `data:` URL; the feature it takes is noted."""
    inline = split_data_url(url) or ("", url)
    if seen := kind == "image" and next((mime for start, mime in _PICTURES.items() if inline[1].startswith(start)), ""):
        inline = seen, inline[1]  # clients that do not know the type leave it out, or say what any bytes are
    if inline[0]:
        return inline_media(request, inline[0], inline[1], field, name=name, detail=detail)
    if not url.startswith(("https://", "http://")):
        raise TranslationError(field, "must be an https address or a data: URL with base64")
    request.ask(_FEATURES[kind][1], field)
    _hints(request, name, detail, field)
    ending = url.partition("?")[0].rpartition(".")[2].lower()
    guess = _MIME_BY_ENDING.get(ending, "image/jpeg" if kind == "image" else "application/pdf")
    return Media(kind, mime or guess, url=url, name=name, detail=detail)


def inline_media(
    request: NeutralRequest, mime: str, data: str, field: str, *, name: str = "", detail: str = ""
) -> Media:
    mime = _MIME_SPELT.get(mime.lower(), mime.lower())
    if any(blank in data for blank in "\n\r "):
        data = "".join(data.split())
    kind = next((kind for start, kind in _KINDS.items() if mime.startswith(start)), "document")
    request.ask(_FEATURES[kind][0], field)
    _hints(request, name, detail, field)
    return Media(kind, mime, data=data, name=name, detail=detail)


def _hints(request: NeutralRequest, name: str, detail: str, field: str) -> None:
    if detail:
        request.ask(Feature.DETAIL, field)
    if name:
        request.ask(Feature.TITLE, field)


def data_url(part: Media) -> str:
    """The medium as one address."""
    return part.url or f"data:{part.mime};base64,{part.data}"


def effort(request: NeutralRequest, field: str, level: Any, budget: Any, *, show: bool = True) -> None:
    """Effort from a level's name or a budget in tokens, where either says anything. A level nobody here knows is left
    out and named: vendors add them."""
    tokens = whole(budget, field)
    name = text(level).lower()
    if name and name not in LEVELS:
        request.leave(f"{field} {name[:_LONGEST]}")
    if name not in LEVELS:
        name = "" if tokens is None else level_of(max(-1, min(tokens, 1 << 30)))
    if name:
        request.effort = Effort(name, tokens, show)
        request.ask(Feature.EFFORT, field)


def mode(value: Any, field: str) -> str:
    """Whether tools of a subset may be called or must be."""
    if value in (None, "auto"):
        return "auto"
    if value == "required":
        return "required"
    raise no_such(value, field)


def flatten(request: NeutralRequest, space: str, name: str) -> str:
    """The one name of a tool in a namespace."""
    flat = f"{space}__{name}"
    request.namespaces[flat] = (space, name)
    return flat


def place(value: Any) -> dict[str, Any] | None:
    """Where a search is made from, in the fields all vendors have; None where it says nothing."""
    found = obj(value)
    told: dict[str, Any] = {
        name: found[name] for name in ("type", "country", "region", "city", "timezone") if name in found
    }
    return {"type": "approximate", **told} if told else None


def search_tool(request: NeutralRequest, found: WebSearch, field: str) -> None:
    request.web_search = found
    request.ask(Feature.WEB_SEARCH, field)
    if found.allowed or found.blocked:
        request.ask(Feature.SEARCH_DOMAINS, field)
    if found.location:
        request.ask(Feature.SEARCH_PLACE, field)
    if found.max_uses is not None:
        request.ask(Feature.SEARCH_MOST, field)


def choose(request: NeutralRequest, mode: str, names: list[str], field: str) -> None:
    request.choice = Choice(mode, names)
    request.ask(Feature.SUBSET if len(names) > 1 or (names and mode == "auto") else Feature.CHOICE, field)


def function_tool(
    request: NeutralRequest, shape: dict[str, Any], field: str, schema: Any, *, name: str | None = None
) -> None:
    found = text(shape.get("name")) if name is None else name
    if not found:
        raise TranslationError(f"{field}.name", "must be a string")
    strict = shape.get("strict")
    request.ask(Feature.TOOLS, field)
    if strict is True:
        request.ask(Feature.STRICT, field)
    if not is_plain(obj(schema)):
        request.ask(Feature.SCHEMA_ROOT, field)
    request.tools.append(
        Tool(found, text(shape.get("description")), obj(schema), strict if isinstance(strict, bool) else None)
    )


def openai_usage(raw: Any) -> Usage:
    """The usage of a Chat or Responses answer; not `known` where it tells none."""
    told = openai.told()
    openai.take(told, raw)
    return openai.usage(told.figures)


def choices(request: NeutralRequest, value: Any, field: str) -> None:
    found = whole(value, field)
    if found is None or found == 1:
        return
    if not 1 <= found <= _CHOICES:
        raise TranslationError(field, f"must be from 1 to {_CHOICES} in a translated request")
    request.options.choices = found
    request.ask(Feature.CHOICES, field)


def logprobs(request: NeutralRequest, wanted: str, value: Any, field: str) -> None:
    """Log probabilities. `wanted` is the field that asks for them, "" where only `field` could: how many of the
    likeliest tokens beside each."""
    count = whole(value, field) or 0
    if not 0 <= count <= _LOGPROBS:
        raise TranslationError(field, f"must be from 0 to {_LOGPROBS}")
    if wanted or count:
        request.options.logprobs = count
        request.ask(Feature.LOGPROBS, wanted or field)


def modalities(request: NeutralRequest, value: Any, field: str) -> None:
    """What an answer is to be beside text."""
    asked = {mode.lower(): mode for mode in strings(value)}
    for kind, mode in sorted(asked.items()):
        if kind == "audio":
            request.options.sound = Sound(text="text" in asked)
            request.ask(Feature.SOUND_OUT, f"{field} {mode}")
        elif kind == "image":
            request.options.pictures = True
            request.ask(Feature.PICTURES_OUT, f"{field} {mode}")
        elif kind not in ("text", "modality_unspecified"):
            raise no_such(mode, field)


def document_text(part: Media) -> str | None:
    """What a document that is plain text says; None for any other, and for one at an address."""
    mime = part.mime.partition(";")[0].strip()
    if part.url or part.kind != "document" or not (mime.startswith("text/") or mime in _TEXTS):
        return None
    try:
        return b64decode(part.data).decode("utf-8", "replace")
    except ValueError:
        return ""


def document_name(part: Media) -> str:
    """A document's file name: vendors tell by its ending what it is."""
    return part.name or f"document.{_ENDINGS.get(part.mime.partition(';')[0].strip(), 'pdf')}"


def decode(body: bytes) -> Any:
    """What the JSON says; None where it is none."""
    try:
        return JSON.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def grammar(value: Any) -> Any:
    """The format of a custom tool, of the fields that are known."""
    found = obj(value)
    return {name: found[name] for name in ("type", "syntax", "definition") if name in found} or None


def google_usage(raw: Any) -> Usage:
    """The usage of a Gemini answer; not `known` where it tells none."""
    told = google.told()
    google.take(told, raw)
    return google.usage(told.figures)


def ask_schema(request: NeutralRequest, schema: dict[str, Any], field: str) -> None:
    """Note an answer by a JSON schema."""
    request.ask(Feature.SCHEMA, field)
    if not is_plain(schema):
        request.ask(Feature.SCHEMA_ROOT, field)


def schema_format(request: NeutralRequest, shape: dict[str, Any], field: str) -> None:
    """An answer by a JSON schema, as OpenAI's dialects ask for it."""
    name, about, strict = text(shape.get("name")), text(shape.get("description")), shape.get("strict")
    request.format = Format(
        obj(shape.get("schema")), name or "result", strict if isinstance(strict, bool) else None, about
    )
    ask_schema(request, obj(shape.get("schema")), field)
    if name or about:
        request.ask(Feature.SCHEMA_NAME, field)


def json_text(value: Any) -> str:
    """JSON as a call's arguments carry it."""
    return encode(value).decode()


def arguments_text(value: Any) -> str:
    """A call's arguments as text, whatever an upstream sent for them: never none in place of some."""
    if isinstance(value, str):
        return value
    return "" if value is None else json_text(value)


def arguments_object_text(value: Any) -> str:
    """The same, where the dialect has an object for them: none is an empty one."""
    return arguments_text({} if value is None else value)


def ask_options(request: NeutralRequest, body: dict[str, Any], limit: str, **names: str) -> None:
    """Note the options a client set; `names` says what the dialect calls them where it is another name."""
    options = request.options
    if options.max_output is not None:
        request.ask(Feature.MAX_OUTPUT, limit)
    rows = (
        (Feature.SAMPLING, "temperature"),
        (Feature.SAMPLING, "top_p"),
        (Feature.TOP_K, "top_k"),
        (Feature.RANDOM, "seed"),
        (Feature.RANDOM, "presence_penalty"),
        (Feature.RANDOM, "frequency_penalty"),
    )
    for feature, name in rows:
        if getattr(options, name) is not None:
            request.ask(feature, names.get(name, name))
    if options.stop:
        request.ask(Feature.STOP, names.get("stop", "stop"))
    if options.tier and options.tier not in ("auto", "default"):
        request.ask(Feature.TIER, names.get("tier", "service_tier"))
    if options.cache_key:
        request.ask(Feature.CACHE, "prompt_cache_key")
    if options.session:
        request.ask(Feature.SESSION, names.get("session", "session"))
    if options.verbosity:
        request.ask(Feature.VERBOSITY, names.get("verbosity", "verbosity"))
