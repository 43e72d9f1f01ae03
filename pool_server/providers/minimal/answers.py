"""What came back on a minimal request, and which models a list of models names. Never raises, whatever was sent."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pool_server.core.enums import Dialect, FaultKind
from pool_server.core.lenient_json import BLANK, read_any
from pool_server.core.models import OF_PROVIDER, Fault, HttpAnswer
from pool_server.providers.base import ProviderModule
from pool_server.providers.credential import Credential, model_listed
from pool_server.providers.evidence.reading import read_error
from pool_server.providers.evidence.rules import network_fault
from pool_server.providers.json_fields import as_list, as_object

MOST_MODELS = 5000
_OTHER_USES = re.compile(
    r"embed|whisper|tts|dall-e|moderation|image|audio|realtime|transcri|speech|rerank|imagen|veo|sora|video|ocr|guard",
    re.IGNORECASE,
)
# The field by which an answer is known to be one of its dialect.
_MARKS: dict[Dialect, tuple[str, ...]] = {
    Dialect.MESSAGES: ("content",),
    Dialect.CHAT: ("choices",),
    Dialect.RESPONSES: ("output", "response"),
    Dialect.GEMINI: ("candidates", "promptFeedback"),
    Dialect.CODE_ASSIST: ("response",),
}
_FAILED = frozenset(("error", "response.failed"))


def fault_of(module: ProviderModule, answer: HttpAnswer, dialect: Dialect, *, now: float, model: str) -> Fault | None:
    """The fault an answer tells of, None for one that shows that the account works. A success that holds an error, is
    a web page or no answer of the dialect counts as a fault."""
    if not answer.status:
        return network_fault(answer.error)
    if not 200 <= answer.status < 300:
        return module.classify(answer.status, answer.headers, answer.body, now=now, model=model)
    found = _objects(answer.body)
    for data in found:
        if _tells_error(data):
            return module.classify(answer.status, {}, msgspec.json.encode(data), now=now, model=model)
    marks = _MARKS[dialect]
    if any(mark in data for data in found for mark in marks):
        return None
    page = read_error(answer.headers, answer.body).html
    what = "a web page" if page else f"something that is no answer of the {dialect.value} API"
    return Fault(FaultKind.NETWORK, OF_PROVIDER, message=f"the address answers {what}; is it the right one?")


def _objects(body: bytes) -> list[dict[str, Any]]:
    """The JSON object of a body, or those of its stream events."""
    if body.lstrip(BLANK)[:1] in (b"{", b"["):
        whole = read_any(body)
        return (
            [item for item in as_list(whole) if isinstance(item, dict)]
            if isinstance(whole, list)
            else [as_object(whole)]
        )
    lines = (line[5:] for line in body.splitlines() if line.startswith(b"data:"))
    return [data for line in lines if (data := as_object(read_any(line)))]


def _tells_error(data: dict[str, Any]) -> bool:
    if data.get("error") or data.get("type") in _FAILED:
        return True
    return as_object(data.get("base_resp")).get("status_code") not in (None, 0, "0")  # MiniMax


def first_model(answer: HttpAnswer, cred: Credential) -> str:
    """A model of a list of models (`data[].id`, `models[].name` or `.slug`, or a bare array) that generates text and
    is the account's; "" when none is there."""
    if not 200 <= answer.status < 300:
        return ""
    data = read_any(answer.body)
    rows = data if isinstance(data, list) else as_list(as_object(data).get("data") or as_object(data).get("models"))
    names = [_name(as_object(row)) for row in rows[:MOST_MODELS]]
    ours = [name for name in names if name and model_listed(cred, name)]
    return next((name for name in ours if not _OTHER_USES.search(name)), "")


def _name(row: dict[str, Any]) -> str:
    for field in ("id", "slug", "name", "model"):
        value = row.get(field)
        if isinstance(value, str) and value:
            return value.removeprefix("models/")
    return ""
