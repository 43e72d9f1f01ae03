"""Results of batch jobs: lines of JSON, or one Gemini answer, each of whose entries is an answer of its own.

Sources: platform.claude.com "Batch processing" (`result.message`); OpenAI's API reference, "Batch" (`response.body`);
ai.google.dev "Batch API" (`response`, or `inlinedResponses` within the job).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import msgspec
from msgspec.json import Decoder

from pool_server.core.models import Usage
from pool_server.dialects.usage import anthropic, google, openai

LINE_CAP = 16 << 20  # bytes; a longer line passes uncounted
# Prompt sizes at which some vendor's price changes: calls on one side of each are counted together.
STEPS = (32_000, 100_000, 128_000, 199_999, 200_000, 256_000, 272_000, 512_000)
_MOST_MODELS = 64
_SUMMED = tuple(
    name for name in Usage.__struct_fields__ if name not in ("known", "estimated", "parts", "model", "calls")
)


class _Message(msgspec.Struct):
    model: Any = ""
    usage: Any = None


class _Result(msgspec.Struct):
    message: _Message | None = None


class _Response(msgspec.Struct, rename={"usage_metadata": "usageMetadata", "model_version": "modelVersion"}):
    body: _Message | None = None
    usage_metadata: Any = None
    model_version: Any = ""


class _Line(msgspec.Struct):
    custom_id: Any = None
    key: Any = None
    result: _Result | None = None
    response: _Response | None = None


class _Inlined(msgspec.Struct, rename={"inlined_responses": "inlinedResponses"}):
    inlined_responses: list[_Line] = []


class _Output(msgspec.Struct, rename={"inlined_responses": "inlinedResponses"}):
    inlined_responses: _Inlined | None = None


class _Metadata(msgspec.Struct):
    output: _Output | None = None


class _Job(msgspec.Struct):
    done: Any = False
    response: _Output | None = None
    metadata: _Metadata | None = None


_LINE, _JOB = Decoder(_Line), Decoder(_Job)


def _read(data: bytes, decoder: Decoder[Any]) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class BatchUsage:
    """Adds the answers of a batch up, by model and by the size of their prompts."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], Usage] = {}
        self._rest = bytearray()
        self._skipping = False

    @staticmethod
    def begins(line: bytes) -> bool:
        """Whether a first line is a result of a batch."""
        found = _read(line, _LINE)
        named = found is not None and (found.custom_id is not None or found.key is not None)
        return named and (found.result is not None or found.response is not None)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of lines, cut anywhere."""
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            if not self._skipping:
                self.line(bytes(self._rest) + piece)
            self._rest.clear()
            self._skipping = False
        if not self._skipping:
            self._rest += rest
            if len(self._rest) > LINE_CAP:
                self._rest.clear()
                self._skipping = True

    def finish(self) -> None:
        """The lines ended: the last may lack its newline."""
        if self._rest and not self._skipping:
            self.line(bytes(self._rest))
        self._rest.clear()

    def line(self, line: bytes) -> None:
        """Count one result; a failed one has no usage."""
        found = _read(line, _LINE)
        if found is not None:
            self._count(found)

    def job(self, body: bytes) -> bool:
        """Count the results within a finished Gemini job; False where there are none."""
        job = _read(body, _JOB)
        if job is None or job.done is not True:
            return False
        for output in (job.response, job.metadata.output if job.metadata is not None else None):
            if output is not None and output.inlined_responses is not None:
                for line in output.inlined_responses.inlined_responses:
                    self._count(line)
                return True
        return False

    def _count(self, line: _Line) -> None:
        usage, model = _usage(line)
        if not usage.known:
            return
        place = (model, bisect_left(STEPS, usage.prompt))
        there = self._sums.get(place)
        if there is None:
            if len(self._sums) >= _MOST_MODELS:
                place = ("", place[1])
            there = self._sums.setdefault(place, Usage(known=True, model=place[0], calls=0))
        for name in _SUMMED:
            setattr(there, name, getattr(there, name) + getattr(usage, name))
        there.calls += 1

    @property
    def models(self) -> set[str]:
        return {model for model, _ in self._sums}

    def usage(self) -> Usage:
        """Everything so far; its parts by model and prompt size."""
        total = Usage(known=bool(self._sums), parts=list(self._sums.values()))
        for part in total.parts:
            for name in _SUMMED:
                setattr(total, name, getattr(total, name) + getattr(part, name))
        return total


def _usage(line: _Line) -> tuple[Usage, str]:
    """One answer's usage and model, by the shape of its line."""
    if line.result is not None and line.result.message is not None:
        message = anthropic.MessageUsage()
        message.take(line.result.message.usage, anthropic.START)
        return message.usage(), _text(line.result.message.model)
    response = line.response
    if response is None:
        return Usage(), ""
    if response.body is not None:
        told = openai.told()
        openai.take(told, response.body.usage)
        return openai.usage(told.figures), _text(response.body.model)
    told = google.told()
    google.take(told, response.usage_metadata)
    return google.usage(told.figures), _text(response.model_version)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
