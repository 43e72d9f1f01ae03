"""Any client dialect on any account: requests and answers told in another dialect.

Pure: no I/O, no clock, bounded memory; safe in a thread. Same-dialect traffic never enters it.

The caller's part, once a request and an account are known:

1. `UpstreamKind` is what the account speaks. Where its dialect is the client's own, nothing here is needed, except for
   a plain Responses client on the ChatGPT backend: `apply_rules(body)` gives the body the backend takes and the fields
   left out, `ResponseFold` puts its stream together for a client that wants one piece.
2. `translate_request(client, Target(kind, model=..., project=...), body, TranslationContext(ident=..., now=...))` gives
   a `Translated`: `body`, `path` (below the account's base address), `headers`, `operation` and `stream` for the
   upstream; `dropped` for `X-Pool-Dropped`, `approximated` for the record. A `TranslationError` means that nothing
   goes up: the client gets a 400 with `refusal_body(client, error)`. The body's prefix is stable from turn to turn. It
   takes some milliseconds for a megabyte: call it in a thread where that matters.
3. An upstream answer of 400 and more: `translated.response.error(status, body)` gives (status, what it says, body).
4. An event stream: write what `response.feed(piece)` returns for each piece, and what `response.finish()` returns at
   the end, however it ended; then look at `response.complete`. Where it is False, `response.fault` says why: with
   `response.begun` False nothing was written and another account may be tried, or the client gets
   `response.fault_answer()`; else the bytes written end with the dialect's error event.
   A client that wants one piece (`response.stream` False) gets nothing from `feed`, its body from `finish`.
5. An answer in one piece: `response.whole(body)`, whatever the client asked for; `complete` and `fault` as above.

Usage, quota and faults are metered on the upstream's own bytes, as for any answer. Sealed reasoning in
`translated.seals` belongs to one account: `Target(..., seals=False)` leaves it out where that account is not the one.
Counting tokens: `translate_count` gives a body for the upstream's counter or an `estimate` (tell `X-Pool-Estimated:
input_tokens`), `count_answer` the client's answer to either.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pool_server.dialects.translation.conformance import TranslationError, conformance
from pool_server.dialects.translation.demands import KnownConstraints, ModelConstraints
from pool_server.dialects.translation.neutral import DIALECT, ErrorInfo, UpstreamKind

if TYPE_CHECKING:
    from pool_server.dialects.translation.answers.translator import ResponseTranslator
    from pool_server.dialects.translation.demands.refusal_words import demands_of
    from pool_server.dialects.translation.errors import error_body, read_error
    from pool_server.dialects.translation.plan import (
        Target,
        Translated,
        TranslationContext,
        refusal_body,
        translate_request,
    )
    from pool_server.dialects.translation.responses.codex_rules import ResponseFold, apply_rules
    from pool_server.dialects.translation.token_counts import Count, count_answer, translate_count

# What only a translated call needs is loaded with the first one, or soon after the start: it is a tenth of that.
_WHERE = {
    "ResponseTranslator": "answers.translator",
    "demands_of": "demands.refusal_words",
    **dict.fromkeys(("error_body", "read_error"), "errors"),
    **dict.fromkeys(("Target", "Translated", "TranslationContext", "refusal_body", "translate_request"), "plan"),
    **dict.fromkeys(("ResponseFold", "apply_rules"), "responses.codex_rules"),
    **dict.fromkeys(("Count", "count_answer", "translate_count"), "token_counts"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    return found


__all__ = [
    "DIALECT",
    "Count",
    "ErrorInfo",
    "KnownConstraints",
    "ModelConstraints",
    "ResponseFold",
    "ResponseTranslator",
    "Target",
    "Translated",
    "TranslationContext",
    "TranslationError",
    "UpstreamKind",
    "apply_rules",
    "conformance",
    "count_answer",
    "demands_of",
    "error_body",
    "read_error",
    "refusal_body",
    "translate_count",
    "translate_request",
]
