"""Reading a client's fields: any of them may be missing, of another type, or hostile."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from msgspec.json import encode

from pool_server.core.models import Usage
from pool_server.dialects.translation.conformance import Feature, TranslationError
from pool_server.dialects.translation.neutral import Choice, Effort, Media, NeutralRequest, Tool, WebSearch
from pool_server.dialects.translation.options import LEVELS, level_of
from pool_server.dialects.usage import google, openai

_KINDS = {"image/": "image", "audio/": "audio", "video/": "video"}
_STOPS, _STOP_SIZE = 64, 256
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
}
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
    return value


def whole(value: Any, field: str) -> int | None:
    found = number(value, field)
    if found is None:
        return None
    if found != int(found) or abs(found) > 1 << 53:
        raise TranslationError(field, "must be a whole number")
    return int(found)


def stops(value: Any, field: str) -> list[str]:
    """Stop strings: a string or a list of them."""
    found = [value] if isinstance(value, str) else strings(value)
    if len(found) > _STOPS or any(len(stop) > _STOP_SIZE for stop in found):
        raise TranslationError(field, f"at most {_STOPS} strings of {_STOP_SIZE} characters")
    return [stop for stop in dict.fromkeys(found) if stop]


def unknown(request: NeutralRequest, body: dict[str, Any], known: Iterable[str]) -> None:
    """Note the fields nobody reads; null is as good as absent."""
    found = set(known)
    request.unknown += [name for name, value in body.items() if name not in found and value is not None]


def unknown_inside(request: NeutralRequest, shape: dict[str, Any], known: frozenset[str], where: str) -> None:
    """Note the fields of a message, part, call or tool that nobody reads; an empty one is as good as absent."""
    if shape.keys() <= known:
        return
    for name, value in shape.items():
        if name not in known and value not in (None, False, "", [], {}):
            request.ask(Feature.UNKNOWN_INSIDE, f"{where}.{name}")


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
    inline = split_data_url(url)
    if inline is not None:
        return inline_media(request, inline[0], inline[1], field, name=name, detail=detail)
    if not url.startswith(("https://", "http://")):
        raise TranslationError(field, "must be an https address or a data: URL with base64")
    request.ask(_FEATURES[kind][1], field)
    ending = url.partition("?")[0].rpartition(".")[2].lower()
    guess = _MIME_BY_ENDING.get(ending, "image/jpeg" if kind == "image" else "application/pdf")
    return Media(kind, mime or guess, url=url, name=name, detail=detail)


def inline_media(
    request: NeutralRequest, mime: str, data: str, field: str, *, name: str = "", detail: str = ""
) -> Media:
    kind = next((kind for start, kind in _KINDS.items() if mime.startswith(start)), "document")
    request.ask(_FEATURES[kind][0], field)
    return Media(kind, mime, data=data, name=name, detail=detail)


def data_url(part: Media) -> str:
    """The medium as one address."""
    return part.url or f"data:{part.mime};base64,{part.data}"


def effort(level: Any, budget: Any, *, show: bool = True) -> Effort | None:
    """Effort from a level's name or a budget in tokens; None where neither says anything."""
    tokens = (
        int(budget) if isinstance(budget, (int, float)) and not isinstance(budget, bool) and budget == budget else None
    )
    name = text(level).lower()
    if name not in LEVELS:
        name = "" if tokens is None else level_of(max(-1, min(tokens, 1 << 30)))
    return Effort(name, tokens, show) if name else None


def flatten(request: NeutralRequest, space: str, name: str) -> str:
    """The one name of a tool in a namespace."""
    flat = f"{space}__{name}"
    request.namespaces[flat] = (space, name)
    return flat


def search_tool(request: NeutralRequest, found: WebSearch, field: str) -> None:
    request.web_search = found
    request.ask(Feature.WEB_SEARCH, field)
    if found.allowed or found.blocked:
        request.ask(Feature.SEARCH_DOMAINS, field)


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
    request.tools.append(
        Tool(found, text(shape.get("description")), obj(schema), strict if isinstance(strict, bool) else None)
    )


def openai_usage(raw: Any) -> Usage:
    """The usage of a Chat or Responses answer; not `known` where it tells none."""
    told = openai.told()
    openai.take(told, raw)
    return openai.usage(told.figures)


def google_usage(raw: Any) -> Usage:
    """The usage of a Gemini answer; not `known` where it tells none."""
    told = google.told()
    google.take(told, raw)
    return google.usage(told.figures)


def json_text(value: Any) -> str:
    """JSON as a call's arguments carry it."""
    return encode(value).decode()


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
    if options.verbosity:
        request.ask(Feature.VERBOSITY, names.get("verbosity", "verbosity"))
