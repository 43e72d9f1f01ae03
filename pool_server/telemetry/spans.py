"""What the spans of an exchange say, by OpenTelemetry's semantic conventions for generative AI. Pure.

https://opentelemetry.io/docs/specs/semconv/gen-ai/

Nothing of what was asked or answered, no message of an error, no user, key or account: the request's id leads whoever
may know those to the request log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from pool_server.core.enums import Operation, Outcome, Provider
from pool_server.core.models import Attempt, UsageRecord
from pool_server.providers import SPECS, redact

Attributes = dict[str, str | int | float | bool]

MOST_CHARACTERS = 200  # of a model's name, which the client chooses

# The conventions' own names; an operation or a provider that they do not know goes by the pool's.
_OPERATIONS = {
    Operation.RESPONSES: "chat",
    Operation.MESSAGES: "chat",
    Operation.CHAT: "chat",
    Operation.GENERATE: "generate_content",
    Operation.COMPLETIONS: "text_completion",
    Operation.EMBEDDINGS: "embeddings",
}
_PORTS = {"http": 80, "https": 443}


class SpanFacts(NamedTuple):
    """A span; times are nanoseconds of the unix clock."""

    name: str
    start: int
    end: int
    attributes: Attributes
    failed: bool


def exchange_span(record: UsageRecord, asked: str, answered: str) -> SpanFacts:
    """Of the exchange as its client saw it. `asked` is the model that the client named, `answered` the one that the
    provider says has answered."""
    attributes = _common(record, record.provider, asked)
    if answered:
        attributes["gen_ai.response.model"] = _plain(answered)
    usage = record.usage
    if usage.known:
        attributes["gen_ai.usage.input_tokens"] = usage.prompt
        attributes["gen_ai.usage.output_tokens"] = usage.output
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read
        attributes["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write
    attributes["pool.request.id"] = record.id
    attributes["pool.outcome"] = record.outcome
    attributes["pool.attempts"] = len(record.attempts)
    failed = record.outcome != Outcome.OK
    _ended(attributes, record.status, record.outcome if failed else "")
    return SpanFacts(_name(attributes), _ns(record.at), _ns(record.at, record.total_ms), attributes, failed)


def attempt_spans(record: UsageRecord, asked: str, urls: Sequence[str]) -> Iterator[SpanFacts]:
    """Of what accounts were asked, one after the other; `urls` are those they were asked at, "" for none."""
    for attempt, url in zip(record.attempts, urls, strict=True):
        yield _attempt_span(record, attempt, asked, url)


def _attempt_span(record: UsageRecord, attempt: Attempt, asked: str, url: str) -> SpanFacts:
    provider = attempt.account.partition(":")[0]
    attributes = _common(record, provider, record.model or asked)
    if (server := _server(url)) is not None:
        attributes["server.address"], attributes["server.port"] = server
    _ended(attributes, attempt.status, attempt.fault)
    start, end = attempt.started_ms, attempt.started_ms + attempt.ms
    return SpanFacts(_name(attributes), _ns(record.at, start), _ns(record.at, end), attributes, bool(attempt.fault))


def _common(record: UsageRecord, provider: str, model: str) -> Attributes:
    attributes: Attributes = {"gen_ai.operation.name": _operation(record.operation)}
    if provider:
        attributes["gen_ai.provider.name"] = _provider(provider)
    if model:
        attributes["gen_ai.request.model"] = _plain(model)
    return attributes


def _ended(attributes: Attributes, status: int, error: str) -> None:
    if status:
        attributes["http.response.status_code"] = status
    if error:
        attributes["error.type"] = error


def _name(attributes: Attributes) -> str:
    operation, model = attributes["gen_ai.operation.name"], attributes.get("gen_ai.request.model", "")
    return f"{operation} {model}".rstrip()


@lru_cache(maxsize=64)
def _operation(name: str) -> str:
    return _OPERATIONS.get(Operation(name), name)


@lru_cache(maxsize=64)
def _provider(name: str) -> str:
    return SPECS[Provider(name)].traced_as or name


@lru_cache(maxsize=512)
def _plain(name: str) -> str:
    """A model's name as UTF-8 can carry it, without what looks like a key."""
    return redact(name[: 2 * MOST_CHARACTERS])[:MOST_CHARACTERS].encode("utf-8", "replace").decode()


@lru_cache(maxsize=512)
def _host_and_port(origin: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def _server(url: str) -> tuple[str, int] | None:
    return _host_and_port("/".join(url.split("/", 3)[:3]).partition("?")[0]) if url else None


def _ns(at: float, ms: float = 0.0) -> int:
    return int(at * 1e9) + int(ms * 1e6)
