"""W3C Trace Context: the trace that a client's request belongs to. Pure.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import NamedTuple

TRACE_ID: ContextVar[str] = ContextVar("trace_id", default="")  # of the exchange that ends, for the log; "" = none

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII)


class TraceParent(NamedTuple):
    """The client's span; both ids are never 0."""

    trace_id: int
    span_id: int


def trace_parent(headers: Iterable[tuple[str, str]]) -> TraceParent | None:
    """What `traceparent` says. None where it is absent, stands there twice or is not one: a new trace begins then.

    >>> trace_parent([("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")])
    TraceParent(trace_id=14618386402883459116137062346166219164, span_id=13235353014750950193)
    """
    said = [value for name, value in headers if len(name) == 11 and name.lower() == "traceparent"]
    found = _TRACEPARENT.fullmatch(said[0].strip(" \t")) if len(said) == 1 else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[4] is not None):
        return None
    parent = TraceParent(int(found[2], 16), int(found[3], 16))
    return parent if all(parent) else None
