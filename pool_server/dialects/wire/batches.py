"""What the requests of a new batch ask for: their models, the tokens they may and are likely to use, and the objects
they name.

Sources: platform.claude.com "Batch processing" (`requests[].params`), OpenAI's API reference, "Batch" (a file of lines
with `body`), ai.google.dev "Batch API" (`batch.inputConfig`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.enums import Dialect
from pool_server.dialects.references import Reference, TooManyReferencesError, references
from pool_server.dialects.types import BadBodyError, text, whole
from pool_server.dialects.usage import BYTES_A_TOKEN, REQUEST_OUTPUT

MOST_MODELS = 64

_Request = tuple[str, int, int]  # its model, the tokens of its prompt and the most of its answer


class BatchRequests(msgspec.Struct):
    """`models`: each with the most tokens its requests may use, prompts by their size; `expected`: each with the tokens
    of prompts and of answers they are likely to use. `by_file`: the requests are in a file that is not here."""

    models: dict[str, int] = {}
    expected: dict[str, tuple[int, int]] = {}
    references: list[Reference] = []
    by_file: bool = False


class _Params(msgspec.Struct):
    model: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    best_of: Any = None


class _Message(msgspec.Struct):
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _Messages(msgspec.Struct):
    requests: list[_Message] = []


class _Line(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw(b"{}")


_MESSAGES, _PARAMS, _LINE = Decoder(_Messages), Decoder(_Params), Decoder(_Line)


def message_batch(body: bytes) -> BatchRequests:
    """A message batch. Raises `BadBodyError`."""
    return _summed(BatchRequests(), (_params(message.params) for message in _decoded(_MESSAGES, body).requests))


def lines_of(body: bytes | memoryview) -> BatchRequests:
    """A file of requests, one a line; no models where a line is none. Raises `TooManyReferencesError`."""
    found = BatchRequests()

    def each() -> Iterator[_Request]:
        for line in bytes(body).splitlines():
            if not line.strip():
                continue
            request = _decoded(_LINE, line).body
            found.references += references(Dialect.RESPONSES, line, bare_items=True)
            yield _params(request)

    try:
        _summed(found, each())
    except TooManyReferencesError:
        raise
    except BadBodyError:
        found.models, found.expected = {}, {}  # a file like any other, which no batch can be made of
    found.references = list(dict.fromkeys(found.references))
    return found


def google_batch(model: str, body: bytes) -> BatchRequests:
    """A Gemini batch of `model`, with its requests in it or in a file. Raises `BadBodyError`."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadBodyError("the batch is not valid JSON") from None
    found = BatchRequests()

    def each() -> Iterator[_Request]:
        yield model, len(body) // BYTES_A_TOKEN, 0
        for key, value in _fields(tree):
            if key in ("fileName", "file_name"):
                found.by_file = True
            elif key == "model":
                yield text(value).removeprefix("models/"), 0, 0
            elif key == "request":
                configs = _all([value], "generationConfig", "generation_config")
                most = _bound(*_all(configs, "maxOutputTokens", "max_output_tokens"))
                yield model, 0, most * max(1, _bound(*_all(configs, "candidateCount", "candidate_count"), default=1))

    return _summed(found, each())


def _fields(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every field of the tree but those of a request's own content."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            for key, value in node.items():
                yield key, value
                if key not in ("contents", "metadata", "tools", "systemInstruction", "system_instruction"):
                    waiting.append(value)


def _all(nodes: list[Any], *names: str) -> list[Any]:
    return [node[name] for node in nodes if isinstance(node, dict) for name in names if name in node]


def _params(raw: msgspec.Raw) -> _Request:
    params = _decoded(_PARAMS, raw)
    most = _bound(params.max_output_tokens, params.max_completion_tokens, params.max_tokens)
    return (
        text(params.model),
        len(bytes(raw)) // BYTES_A_TOKEN,
        most * max(1, _bound(params.n, params.best_of, default=1)),
    )


def _bound(*told: Any, default: int = REQUEST_OUTPUT) -> int:
    """The largest bound a request tells, since vendors differ in which they heed; `default` where it tells none.

    Raises `BadBodyError` for one that is no number: a vendor may read it all the same.
    """
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in told if value is not None):
        raise BadBodyError("a bound of a request of the batch is not a number")
    return max(map(whole, told), default=0) or default


def _summed(found: BatchRequests, requests: Iterable[_Request]) -> BatchRequests:
    models, expected = found.models, found.expected
    for model, prompt, most in requests:
        models[model] = models.get(model, 0) + prompt + most
        prompts, answers = expected.get(model, (0, 0))
        expected[model] = prompts + prompt, answers + min(most, REQUEST_OUTPUT)
        if len(models) > MOST_MODELS:
            raise BadBodyError(f"the batch names more than {MOST_MODELS} models")
    return found


def _decoded(decoder: Decoder[Any], raw: bytes | msgspec.Raw) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadBodyError("a request of the batch is not a JSON object") from None
