"""One exchange in words: how it went, which accounts were tried, and why the chosen one was chosen. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import NamedTuple, TypeVar

import msgspec

from pool_server.accounts.describe import CandidateRow, DecisionRow, MoveRow
from pool_server.core.enums import ChoiceReason, Dialect, FaultKind, Operation, Refusal, Strategy, Transport
from pool_server.core.models import Attempt, Usage, UsageRecord
from pool_server.dialects import SPECS
from pool_server.language import Words, ngettext
from pool_server.language import gettext as _
from pool_server.texts import format, labels
from pool_server.texts.labels import account_name

W = TypeVar("W", bound=str)

STRATEGIES = Words(
    {
        Strategy.BALANCED: "the account with the most useful headroom goes first",
        Strategy.FILL_FIRST: "one account is filled before the next is begun",
        Strategy.ROUND_ROBIN: "everyone in turn",
        Strategy.PRIORITY: "the lowest priority number goes first",
        Strategy.RESET_FIRST: "what resets soonest is used first",
    }
)
DIALECTS = Words({one: spec.label for one, spec in SPECS.items()})
BACKEND = "codex"  # an account's side of a translation that is no dialect of a client
OPERATIONS = Words(
    {
        Operation.RESPONSES: "an answer",
        Operation.RESPONSES_COMPACT: "a shortened conversation",
        Operation.MESSAGES: "an answer",
        Operation.COUNT_TOKENS: "a count of tokens",
        Operation.CHAT: "an answer",
        Operation.GENERATE: "an answer",
        Operation.COMPLETIONS: "an answer",
        Operation.EMBEDDINGS: "embeddings",
        Operation.MODERATIONS: "a moderation",
        Operation.RERANK: "a ranking",
        Operation.IMAGES: "an image",
        Operation.AUDIO: "speech or its text",
        Operation.PROVENANCE: "a provenance check",
        Operation.SIDE: "a side call of the CLI",
        Operation.STORED_RESPONSES: "a stored response",
        Operation.STORED_COMPLETIONS: "a stored completion",
        Operation.CONVERSATIONS: "a stored conversation",
        Operation.FILES: "a file",
        Operation.UPLOADS: "an upload",
        Operation.BATCHES: "a batch",
        Operation.VECTOR_STORES: "a vector store",
        Operation.CONTAINERS: "a container",
        Operation.VIDEOS: "a video",
        Operation.CACHES: "a cached content",
        Operation.REALTIME: "a live conversation",
        Operation.OTHER: "another call, passed on as it was",
    }
)
TRANSPORTS = Words(
    {
        Transport.BUFFERED: "in one piece",
        Transport.SSE: "as a stream",
        Transport.WEBSOCKET: "over a WebSocket",
    }
)
FURTHER = Words(
    {
        "cache_write_1h": "Kept for an hour, part of written",
        "cache_write_12h": "Kept for 12 hours, part of written",
        "cache_read_explicit": "From caches the client made, part of read",
        "audio_in": "Audio, part of input",
        "image_in": "Images, part of input",
        "video_in": "Video, part of input",
        "audio_cache_read": "Audio, part of read",
        "image_cache_read": "Images, part of read",
        "audio_out": "Audio, part of output",
        "image_out": "Images, part of output",
        "other_kinds": "Kinds without a price",
        "web_searches": "Web searches",
    }
)


class AttemptLine(NamedTuple):
    """One attempt. `tone` is good, warn or bad; `began` and `took` are words for times."""

    account: str
    words: str
    message: str
    status: int
    began: str
    took: str
    tone: str


class Considered(NamedTuple):
    """One account the decision names: chosen, could have served, or why not."""

    account: str
    words: str
    score: str
    terms: tuple[tuple[str, str], ...]
    chosen: bool


class Story(NamedTuple):
    """A decision in words: sentences, and the accounts it names."""

    sentences: tuple[str, ...]
    considered: tuple[Considered, ...]


def worded(words: Callable[[str], W], table: dict[W, str], value: str) -> str:
    """The words for a stored value; a value of a version that knew more is shown as it is."""
    try:
        return table[words(value)]
    except (ValueError, KeyError):
        return value


def asked_for(record: UsageRecord) -> str:
    """ "an answer as a stream, in Anthropic Messages"."""
    operation = worded(Operation, OPERATIONS, record.operation)
    transport = worded(Transport, TRANSPORTS, record.transport)
    dialect = worded(Dialect, DIALECTS, record.dialect)
    return _("{operation} {transport}, in {dialect}", operation=operation, transport=transport, dialect=dialect)


def passed_on(record: UsageRecord) -> str:
    """How the request went up: as it came, or translated, with what became of its fields; "" where nothing went up."""
    decision = record.decision
    name = decision.get("translation")
    if not name:
        return _("as it came") if record.account else ""
    client, _arrow, upstream = str(name).partition(">")
    target = _("the ChatGPT backend") if upstream == BACKEND else worded(Dialect, DIALECTS, upstream)
    said = [_("translated from {client} to {target}", client=worded(Dialect, DIALECTS, client), target=target)]
    if dropped := decision.get("dropped"):
        said.append(_("left out: {fields}", fields=format.listed(map(str, dropped))))
    approximated = decision.get("approximated") or {}
    said += [f"{feature}: {how}" for feature, how in approximated.items()]
    return format.clauses(said)


def attempts(record: UsageRecord, *, named: bool) -> tuple[AttemptLine, ...]:
    """Every attempt in its order. Unless `named`, accounts are only counted: whose they are is the admin's to see."""
    seen: list[str] = []
    lines = []
    for attempt in record.attempts:
        if attempt.account not in seen:
            seen.append(attempt.account)
        number = seen.index(attempt.account) + 1
        # A good attempt is not timed by itself: it lasted until the exchange was over.
        ms = attempt.ms or max(0.0, record.total_ms - attempt.started_ms)
        lines.append(
            _line(
                attempt,
                account_name(attempt.account) if named else _("account {number}", number=number),
                ms,
                named=named,
            )
        )
    return tuple(lines)


def _line(attempt: Attempt, name: str, ms: float, *, named: bool) -> AttemptLine:
    good = not attempt.fault
    words = _("answered") if good else worded(FaultKind, labels.FAULTS, attempt.fault)
    return AttemptLine(
        name,
        words,
        attempt.message if named else "",
        attempt.status,
        _("at once") if attempt.started_ms < 1 else _("after {started_ms}", started_ms=format.took(attempt.started_ms)),
        format.took(ms),
        "good" if good else "bad",
    )


def story(record: UsageRecord, where: tzinfo = UTC) -> Story:
    """The last decision of an exchange. Its times are past ones and stand as clock times in the zone `where`."""
    recorded = record.decision
    if not recorded:
        why = (
            _("How its account was selected was not recorded.")
            if record.account
            else _("No account had to be selected.")
        )
        return Story((why,), ())
    if "left_out" in recorded:
        return Story((_("The decision was not kept: {left_out}.", left_out=recorded["left_out"]),), ())
    decision = msgspec.convert(recorded, DecisionRow)
    sentences = [_outcome(decision, record.at, where), *_around(decision)]
    chosen = decision.account
    considered = tuple(_considered(row, chosen, record.at, where) for row in decision.candidates)
    return Story(tuple(sentences), considered)


def _outcome(decision: DecisionRow, at: float, where: tzinfo) -> str:
    chosen = decision.account
    if chosen:
        reason = decision.reason
        why = worded(ChoiceReason, labels.CHOICES, reason) if reason else ""
        return (
            _("{chosen} was selected: {why}.", chosen=account_name(chosen), why=why)
            if reason
            else _("{chosen} was selected.", chosen=account_name(chosen))
        )
    back = decision.retry_at
    if back:
        return _("No account could serve it; the nearest return was {back}.", back=format.clock(back, at, where))
    return _("No account could serve it, and none was about to return.")


def _around(decision: DecisionRow) -> list[str]:
    said = []
    pinned = decision.pinned
    if pinned and pinned != decision.account:
        said.append(_("The conversation was with {pinned}.", pinned=account_name(pinned)))
    if move := decision.move:
        said.append(_weighed(move, made=decision.account == move.to))
    if decision.hard_lost:
        said.append(_("Only one account knows the conversation, and it could not serve."))
    eligible = decision.eligible
    said.append(ngettext("{n} account could have served.", "{n} accounts could have served.", eligible))
    refused = decision.refused
    if refused:
        listed = format.clauses(f"{worded(Refusal, labels.REFUSALS, why)}: {count}" for why, count in refused.items())
        said.append(_("Left out: {listed}.", listed=listed))
    strategy = decision.strategy
    if strategy:
        said.append(_("Strategy: {strategy}.", strategy=worded(Strategy, STRATEGIES, strategy)))
    return said


def _weighed(move: MoveRow, *, made: bool) -> str:
    """A change of account in words: what it costs against what it frees, in doublings of headroom."""
    if move.price is None:
        return _("What the change of account costs in lost cache was not known beforehand.")
    cost = _(
        "{tokens} to read again, a price of {price}",
        tokens=format.of_tokens(round(move.tokens or 0)),
        price=f"{move.price:.1f}",
    )
    if move.gain is None:
        return _("The change of account meant {cost} against the score.", cost=cost)
    if made:
        return _("It moved for a score better by {gain}, at {cost}.", gain=f"{move.gain:.1f}", cost=cost)
    return _(
        "It did not move to {to}, better by {gain}: {cost} against that.",
        to=account_name(move.to),
        gain=f"{move.gain:.1f}",
        cost=cost,
    )


def _considered(row: CandidateRow, chosen: str | None, at: float, where: tzinfo) -> Considered:
    refusal, score = row.refusal, row.score
    is_chosen = row.account == chosen
    words = _("selected") if is_chosen else _("could have served")
    if refusal:
        words = worded(Refusal, labels.REFUSALS, refusal)
        if row.until:
            words += _(", back at {until}", until=format.clock(row.until, at, where))
    terms = tuple((labels.TERMS.get(name, name), format.signed(value)) for name, value in row.terms.items())
    return Considered(account_name(row.account), words, "" if score is None else format.signed(score), terms, is_chosen)


def counts(usage: Usage) -> list[tuple[str, int]]:
    """The tokens of an exchange by what they were: the usual kinds, and others where there are any."""
    usual = [
        (_("Input"), usage.input),
        (_("Read from a cache"), usage.cache_read),
        (_("Written to a cache"), usage.cache_write),
        (_("Output"), usage.output),
        (_("Reasoning, part of output"), usage.reasoning),
    ]
    return usual + [(label, value) for name, label in FURTHER.items() if (value := getattr(usage, name))]
