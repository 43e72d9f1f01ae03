"""Whether an account that refused is asked once more, in another form."""

from __future__ import annotations

from typing import Any

from pool_server import dialects
from pool_server.dialects.translation import ModelConstraints, demands_of, read_error
from pool_server.providers import Credential

_LEAST = 1024  # tokens of an answer; where less is left, the client is to shorten its conversation


def asks_again(x: Any, credential: Credential, status: int, body: bytes) -> bool:
    """Without the pool's own question for usage, as a translated request fits the endpoint, or by the rules of a
    backend that names a broken one in `detail`. `x` is the exchange."""
    if x.usage_added and x.services.stream_usage.refused(dialects.host_of(x.upstream_url), body):
        return True
    if x.translation is not None:
        return status in (400, 413, 422) and (_shortens(x, status, body) or _complies(x, body))
    return bool(x.rules_apply(credential, status, body))


def _tried(x: Any) -> ModelConstraints:
    """What this account has told in this exchange."""
    return x.constraints if x.constraints.account == x.account else ModelConstraints(x.account)


def _shortens(x: Any, status: int, body: bytes) -> bool:
    """Clients know the limits of their own vendors' models: they ask another's for more."""
    tried = _tried(x)
    found, asked = dialects.output_limit(read_error(status, body).message), x.peek.max_output
    if tried.most_output or found is None or asked is None or not _LEAST <= found.tokens < asked:
        return False
    x.constraints = ModelConstraints(x.account, found.tokens, tried.demands)
    if found.lasting:
        x.services.constraints.limited(x.account, x.sent, found.tokens)
    return True


def _complies(x: Any, body: bytes) -> bool:
    """Endpoints take less than their dialect holds, or insist on a form of their own."""
    tried = _tried(x)
    found = demands_of(body, x.translation.body)
    if found <= x.services.constraints.of(x.account, x.sent, tried).demands:
        return False
    x.constraints = ModelConstraints(x.account, tried.most_output, tried.demands | found)
    return True
