"""What people are told when a limit is in the way."""

from __future__ import annotations

from pool_server.core.enums import Denial

_LIMITS = {
    Denial.REQUESTS_PER_MINUTE: "{n:,.0f} requests a minute",
    Denial.CONCURRENT: "{n:,.0f} requests at the same time",
    Denial.TOKENS_5H: "{n:,.0f} tokens in 5 hours",
    Denial.TOKENS_DAY: "{n:,.0f} tokens a day",
    Denial.TOKENS_WEEK: "{n:,.0f} tokens a week",
    Denial.TOKENS_MONTH: "{n:,.0f} tokens a month",
    Denial.COST_DAY: "${n:,.2f} a day",
    Denial.COST_WEEK: "${n:,.2f} a week",
    Denial.COST_MONTH: "${n:,.2f} a month",
}


def limit_message(denial: Denial, limit: float) -> str:
    """Which limit is reached, in one sentence.

    >>> limit_message(Denial.TOKENS_DAY, 50000)
    'your limit of 50,000 tokens a day is reached'
    >>> limit_message(Denial.REQUESTS_PER_MINUTE, 1)
    'your limit of 1 request a minute is reached'
    """
    words = _LIMITS[denial].format(n=limit)
    if limit == 1:
        words = words.replace("requests", "request").replace("tokens", "token")
    return f"your limit of {words} is reached"
