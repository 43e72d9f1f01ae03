"""What is read of a client's `traceparent`, and what spans are made of, whatever stands in a record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_server.core.enums import Operation, Provider
from pool_server.core.models import Attempt, UsageRecord
from pool_server.telemetry.spans import MOST_CHARACTERS, attempt_spans, exchange_span
from pool_server.telemetry.trace_context import TraceParent, trace_parent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
READ = TraceParent(int(TRACE, 16), int(SPAN, 16))


@pytest.mark.parametrize("said", [GOOD, f" {GOOD}\t", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what-comes"])
def test_a_parent_is_read(said: str) -> None:
    assert trace_parent([("accept", "x"), ("TraceParent", said)]) == READ


@pytest.mark.parametrize(
    "said",
    ["", "00", GOOD.upper(), GOOD + "-x", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
     f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[1:]}-{SPAN}-01", GOOD[:-1], GOOD + "\n",
     f"cc-{TRACE}-{SPAN}-01x", "٠" + GOOD[1:]],
)  # fmt: skip
def test_what_is_no_parent_begins_a_trace(said: str) -> None:
    assert trace_parent([("traceparent", said)]) is None


def test_two_parents_are_none() -> None:
    assert trace_parent([("traceparent", GOOD), ("Traceparent", GOOD)]) is None


@given(st.text())
def test_any_header_may_come(said: str) -> None:
    trace_parent([("traceparent", said)])


@pytest.mark.slow
@given(
    st.sampled_from(Operation), st.sampled_from(["", *Provider]), st.text(), st.text(st.characters()), st.text(),
    st.integers(0, 999),
)  # fmt: skip
def test_any_record_makes_spans_that_utf_8_carries(
    operation: Operation, provider: str, asked: str, answered: str, url: str, status: int
) -> None:
    record = UsageRecord(id="1", at=1e9, user="u", provider=provider, operation=operation.value, status=status)
    record.attempts = [Attempt(f"{provider or 'codex'}:one", status=status, started_ms=1.5, ms=2.5)]
    for span in (exchange_span(record, asked, answered), *attempt_spans(record, asked, [url])):
        assert span.start <= span.end
        for value in (span.name, *span.attributes.values()):
            if isinstance(value, str):
                value.encode()
                assert len(value) <= MOST_CHARACTERS + 30


def test_a_lone_surrogate_and_a_key_in_a_models_name_do_not_leave() -> None:
    record = UsageRecord(id="1", at=1.0, user="u", operation="chat")
    told = exchange_span(record, "gpt\ud800 sk-ant-api03-" + "a" * 40, "").attributes["gen_ai.request.model"]
    assert isinstance(told, str) and told.startswith("gpt? ") and "aaaaaa" not in told


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("https://api.example.org/v1/messages?key=secret", "api.example.org", 443),
        ("http://[::1]:8080/x", "::1", 8080),
        ("https://who:what@api.example.org", "api.example.org", 443),
        ("https://api.example.org?key=secret", "api.example.org", 443),
        ("http://host:none/", None, None),
        ("", None, None),
    ],
)
def test_of_an_address_only_host_and_port_leave(url: str, address: str | None, port: int | None) -> None:
    record = UsageRecord(id="1", at=1.0, user="u", operation="chat")
    record.attempts = [Attempt("openai:one")]
    [span] = attempt_spans(record, "gpt", [url])
    assert (span.attributes.get("server.address"), span.attributes.get("server.port")) == (address, port)
    assert "secret" not in str(span.attributes) and "what" not in str(span.attributes)
