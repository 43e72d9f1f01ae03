"""What the operator's API tells of use, headroom and requests, as types. Times are unix seconds."""

from __future__ import annotations

import msgspec

from pool_server.accounts.describe import DecisionRow


class SeriesRow(msgspec.Struct):
    """One value a bucket."""

    key: str
    name: str
    values: list[float]


class SeriesAnswer(msgspec.Struct):
    """`buckets` are their beginnings, `by` null for one line of all."""

    frm: float = msgspec.field(name="from")
    to: float
    step: str
    every: int
    tz: str
    metric: str
    by: str | None
    buckets: list[float]
    series: list[SeriesRow]


class ForecastWindow(msgspec.Struct):
    """A window of an account: its pace, and when it will be empty; null where that cannot be told, and `why`."""

    account: str
    scope: str
    window: str
    used_percent: float
    observed_at: float
    seconds: float
    resets_at: float | None
    burn_per_h: float | None
    empties_at: float | None
    empties_from: float | None
    empties_to: float | None
    unused_at_reset: float | None
    confidence: str
    why: str | None
    tokens_per_percent: float | None
    cost_per_percent: float | None


class ProviderWindow(msgspec.Struct):
    window: str
    room_percent: float
    burn_per_h: float | None
    lasts_until: float | None


class ProviderForecast(msgspec.Struct):
    windows: list[ProviderWindow]
    lasts_until: float | None
    confidence: str


class ComingReset(msgspec.Struct):
    account: str
    scope: str
    window: str
    resets_at: float
    used_percent: float
    unused_at_reset: float | None
    confidence: str


class ForecastAnswer(msgspec.Struct):
    """`accounts` and `providers` by their names."""

    now: float
    providers: dict[str, ProviderForecast]
    accounts: dict[str, list[ForecastWindow]]
    resets: list[ComingReset]


class RequestUsage(msgspec.Struct):
    """`known`: the provider reported it. Further counts stand beside where they are more than nothing."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int
    known: bool
    estimated: bool


class AttemptRow(msgspec.Struct):
    """An account that was asked; `fault` is why another one was."""

    account: str
    status: int | None = None
    ms: float | None = None
    started_ms: float | None = None
    fault: str | None = None
    message: str = ""


class RequestRow(msgspec.Struct):
    """One exchange; `words`, `message` and `advice` are for people."""

    id: str
    at: float
    user: str
    user_name: str
    key: str
    agent: str
    session: str
    operation: str
    dialect: str
    transport: str
    provider: str
    provider_name: str
    account: str
    model: str
    status: int
    outcome: str
    words: str
    tone: str
    message: str
    advice: str
    usage: RequestUsage
    total_tokens: int | None
    cost_usd: float | None
    cost_basis: str
    partial: bool
    first_byte_ms: float | None
    total_ms: float
    attempts: list[AttemptRow]
    decision: DecisionRow


class RequestsAnswer(msgspec.Struct):
    """`cursor` goes on with older ones, null on the last page."""

    requests: list[RequestRow]
    cursor: str | None
