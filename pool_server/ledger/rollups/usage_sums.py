"""What sums of exchanges tell, as every answer and page carries them. Costs are dollars, times milliseconds, shares 0
to 1; null where there was nothing to say."""

from __future__ import annotations

import msgspec


class TokenCounts(msgspec.Struct, frozen=True):
    """`input` without cache, `reasoning` a part of `output`; `cost_usd` by list prices, without what has none."""

    input: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int
    requests: int
    cost_usd: float


class AccountUsage(TokenCounts, frozen=True):
    """`unpriced`: requests whose price is not known."""

    unpriced: int


class Percentiles(msgspec.Struct, frozen=True):
    p50: float
    p90: float
    p95: float
    p99: float


class UsageSums(AccountUsage, frozen=True):
    """`outcomes` and `faults` count by their names; `estimated`: requests whose tokens nobody told, `assumed`: whose
    price is not confirmed; `moves` of conversations to another account cost what was to be read again."""

    total_tokens: int
    failures: int
    partial: int
    cache_write_1h: int
    web_searches: int
    attempts: int
    request_bytes: int
    response_bytes: int
    estimated: int
    estimated_cost_usd: float
    assumed: int
    assumed_cost_usd: float
    moves: int
    move_tokens: int
    move_cost_usd: float
    moves_unpriced: int
    cache_share: float | None
    error_share: float | None
    first_byte_ms: Percentiles | None
    total_ms: Percentiles | None
    outcomes: dict[str, int]
    faults: dict[str, int]

    @property
    def about(self) -> bool:
        """Whether the cost rests on estimates."""
        return bool(self.estimated or self.assumed)


class GroupSums(UsageSums, frozen=True):
    """The sums of one person, model, account, …"""

    key: str


class UsageSummary(msgspec.Struct, frozen=True):
    """A range as a whole, and by provider and model."""

    frm: int = msgspec.field(name="from")
    to: int
    total: UsageSums
    providers: dict[str, UsageSums]
    models: dict[str, UsageSums]


class AccountValue(AccountUsage, frozen=True):
    """What an account was worth beside what it costs a month; null = its price is not known."""

    account: str
    plan: str
    subscription_usd: float | None
    api_cost_usd: float
    ratio: float | None


class SharedAmount(msgspec.Struct, frozen=True):
    """Requests, tokens and dollars in one figure each."""

    requests: int
    total_tokens: int
    cost_usd: float
    unpriced: int


class AccountUser(TokenCounts, frozen=True):
    """What a person used of an account."""

    user: str
    account: str
    total_tokens: int


class WeekHours(msgspec.Struct, frozen=True):
    """`cells`: 7 weekdays, Monday first, of 24 hours."""

    frm: int = msgspec.field(name="from")
    to: int
    tz: str
    metric: str
    cells: list[list[float | None]]
