"""What an ended exchange is recorded with and what its user's limits are charged: they differ for jobs, whose usage
comes with their results, and for answers whose usage never came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec.structs import replace

from pool_server import dialects
from pool_server.core.enums import Operation, Outcome
from pool_server.core.models import Peek, Usage
from pool_server.ledger import JobState, Ledger, PriceFacts

OUTPUT_CAP = 16_000  # a maximum is a bound, not a plan: reserve no more than this


_PROMPTED = frozenset({Operation.CHAT, Operation.COMPLETIONS, Operation.MESSAGES, Operation.GENERATE})


class CallFacts(NamedTuple):
    """What is known of an ended call; sizes in bytes. `answered` says that anything of an answer came, `whole` that all
    of it did, `pending` that it was the receipt of work still to be done; `expected` are the tokens of prompts and of
    answers that a new batch is likely to use, by model."""

    operation: Operation
    method: str
    path: str
    request_bytes: int
    response_bytes: int
    streamed: bool
    answered: bool
    outcome: Outcome
    pending: bool
    expected: Mapping[str, tuple[int, int]] = {}

    @property
    def whole(self) -> bool:
        return self.outcome is Outcome.OK


class Counted(NamedTuple):
    """`usage` is recorded; `charged` goes to the limits, None = nothing was used; `reserved` is what they are charged
    for a job whose usage is still to come."""

    usage: Usage
    charged: Usage | None
    reserved: Usage | None = None


def count(told: Usage, call: CallFacts, job: JobState | None) -> Counted:
    """`told` is what the provider said; `job` what the ledger knows of the job the call makes or fetches, None where it
    is about none."""
    if told.known and job is None and not told.prompt and not told.other_kinds and call.operation in _PROMPTED:
        told = _without_a_prompt(told, call)
    if told.known:
        if job is None:
            return Counted(told, told)
        if job.counted or (call.method == "GET" and not call.whole):
            return Counted(Usage(), None)  # it counts elsewhere, or when it is fetched whole
        return Counted(told, _beyond(told, job.reserved))
    if not call.answered:
        return Counted(told, None)
    if call.pending or dialects.makes_batch(call.method, call.path):
        reserved = _reserved(call)
        return Counted(told, reserved, reserved) if call.method == "POST" else Counted(told, None)
    usage = dialects.estimate(call.operation, call.request_bytes, call.response_bytes, streamed=call.streamed)
    usage.web_searches = told.web_searches
    return Counted(usage, usage if usage.counted else None)


def _without_a_prompt(told: Usage, call: CallFacts) -> Usage:
    """No prompt has no tokens: endpoints that do not count it, or nothing at all, fill in zeros."""
    if not told.total:
        return Usage(web_searches=told.web_searches)
    return replace(told, input=call.request_bytes // dialects.BYTES_A_TOKEN, estimated=True)


def _reserved(call: CallFacts) -> Usage:
    """What a job is taken to use until its usage is known."""
    if not call.expected:
        return Usage(input=call.request_bytes // dialects.BYTES_A_TOKEN, output=dialects.REQUEST_OUTPUT, estimated=True)
    parts = [Usage(input=prompt, output=output, model=model) for model, (prompt, output) in call.expected.items()]
    prompts, outputs = sum(part.input for part in parts), sum(part.output for part in parts)
    return Usage(input=prompts, output=outputs, estimated=True, parts=parts)


def _beyond(told: Usage, reserved: Usage | None) -> Usage:
    """What was used beyond what the limits were charged already."""
    if reserved is None:
        return told
    left = reserved.total
    more = Usage(known=True)
    for name in ("input", "cache_read", "cache_write", "output"):
        used = getattr(told, name)
        taken = min(used, left)
        left -= taken
        setattr(more, name, used - taken)
    return more


def expected(
    ledger: Ledger, peek: Peek, request_bytes: int, batch: Mapping[str, tuple[int, int]]
) -> tuple[int, float | None]:
    """Tokens and US dollars (None: no price is known) that a request may use; `batch` are the tokens of prompts and of
    answers of one that has a model for each of its own requests."""
    price = ledger.estimate
    if not batch:
        prompt = request_bytes // dialects.BYTES_A_TOKEN
        output = min(peek.max_output or dialects.REQUEST_OUTPUT, OUTPUT_CAP)
        return prompt + output, price(peek.model, prompt, output)
    known = [cost for model, tokens in batch.items() if (cost := price(model, *tokens)) is not None]
    return sum(map(sum, batch.values())), sum(known) if known else None


def price_facts(at: float, url: str, served: dialects.Served, tier: str, answered: str) -> PriceFacts:
    """What of an answer sets its price; `tier` is the one asked for, `at` unix seconds."""
    return PriceFacts(
        at=at,
        host=dialects.host_of(url),
        tier=served.tier or tier,
        speed=served.speed,
        geo=served.geo,
        answered=answered,
        told=served.cost,
    )
