"""Whether an account that refused is asked once more, in another form."""

from __future__ import annotations

from typing import Any

from pool_server import dialects
from pool_server.dialects.translation import read_error
from pool_server.providers import Credential

_LEAST = 1024  # tokens of an answer; where less is left, the client is to shorten its conversation


def asks_again(x: Any, credential: Credential, status: int, body: bytes) -> bool:
    """Without the pool's own question for usage, with as many tokens of answer as a translated request can have, or by
    the rules of a backend that names a broken one in `detail`. `x` is the exchange."""
    if x.usage_added and x.services.stream_usage.refused(dialects.host_of(x.upstream_url), body):
        return True
    if x.translation is not None:
        return status in (400, 413, 422) and not x.most_output and _fits(x, status, body)
    return bool(x.rules_apply(credential, status, body))


def _fits(x: Any, status: int, body: bytes) -> bool:
    """Clients know the limits of their own vendors' models: they ask another's for more."""
    found, asked = dialects.output_limit(read_error(status, body).message), x.peek.max_output
    if found is None or asked is None or not _LEAST <= found.tokens < asked:
        return False
    x.most_output = found.tokens
    if found.lasting:
        x.services.output_limits.learn(x.account, x.sent, found.tokens)
    return True
