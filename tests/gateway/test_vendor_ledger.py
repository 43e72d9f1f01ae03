"""Each vendor's answers with tools and caches, as it frames them: buffered, streamed and cut, the ledger holds what was
said, at the price that was told."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest

from pool_server.core.enums import CostBasis, Dialect
from pool_server.core.models import Usage
from pool_server.core.settings import Upstreams
from tests.dialects.test_usage import events
from tests.dialects.vendor_answers import ANSWERS
from tests.gateway.stack import Stack, run
from tests.gateway.test_vendor_usage import CALLS, Vendor, recorded
from tests.http1.wire import raw_server


@pytest.mark.slow
@pytest.mark.parametrize("dialect", list(CALLS))
def test_the_ledger_holds_each_vendors_answers(tmp_path: Path, dialect: Dialect) -> None:
    file, path, streamed_path, asked = CALLS[dialect]
    asked = asked | {"model": "m"}
    streamed = asked | {"stream": True, "stream_options": {"include_usage": True}}
    server, before = Vendor(), count()

    async def test() -> None:
        async with raw_server(server) as port:
            (tmp_path / "pool").mkdir()
            (tmp_path / "pool" / file).write_text(json.dumps({"api_key": "sk-raw"}))
            url = f"http://127.0.0.1:{port}"
            async with Stack(tmp_path, [], upstreams=Upstreams(openai=url, claude=url, gemini=url)) as stack:
                for vendor in (one for one in ANSWERS if one.dialect is dialect):
                    server.says(b"application/json", vendor.body)
                    buffered = await recorded(stack, path, asked, next(before))
                    body = b"".join(vendor.pieces)
                    server.says(b"text/event-stream", body)
                    stream = await recorded(stack, streamed_path, streamed, next(before))
                    for record in (buffered, stream):
                        assert (record.usage, record.partial) == (vendor.meant, False), vendor.name
                        assert record.cost == (None if vendor.cost is None else pytest.approx(vendor.cost)), vendor.name
                        assert vendor.cost is None or record.cost_basis == CostBasis.TOLD
                    told = len(b"".join(vendor.pieces[: vendor.told]))
                    if told < len(body):
                        server.says(b"text/event-stream", body, told)
                        late = await recorded(stack, streamed_path, streamed, next(before))
                        assert late.usage == vendor.meant, f"{vendor.name}, cut after its usage"
                    server.says(b"text/event-stream", body, len(b"".join(vendor.pieces[: vendor.told - 1])))
                    early = await recorded(stack, streamed_path, streamed, next(before))
                    assert early.partial and early.outcome == "cut"
                    if vendor.before is not None and vendor.before.total:  # zeros tell nothing
                        assert early.usage == vendor.before, f"{vendor.name}, cut before its usage"
                    else:
                        assert early.usage.estimated and early.usage.input > 0 and not early.usage.known, vendor.name

    run(test, within_s=120)


TOLD = {
    Dialect.CHAT: ("prompt_tokens", "completion_tokens"),
    Dialect.RESPONSES: ("input_tokens", "output_tokens"),
    Dialect.MESSAGES: ("input_tokens", "output_tokens"),
    Dialect.GEMINI: ("promptTokenCount", "candidatesTokenCount"),
}


@pytest.mark.slow
@pytest.mark.parametrize("dialect", list(CALLS))
@pytest.mark.parametrize("last", [(30, 12), (31, 13)], ids=["again", "corrected"])
def test_usage_told_after_the_end_counts_once(tmp_path: Path, dialect: Dialect, last: tuple[int, int]) -> None:
    file, _, path, asked = CALLS[dialect]
    asked = asked | {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    first, again = (events(dialect, dict(zip(TOLD[dialect], counts, strict=True))) for counts in ((30, 12), last))
    telling = next(piece for piece in again if str(last[1]).encode() in piece)
    server = Vendor()

    async def test() -> None:
        async with raw_server(server) as port:
            (tmp_path / "pool").mkdir()
            (tmp_path / "pool" / file).write_text(json.dumps({"api_key": "sk-raw"}))
            url = f"http://127.0.0.1:{port}"
            async with Stack(tmp_path, [], upstreams=Upstreams(openai=url, claude=url, gemini=url)) as stack:
                server.says(b"text/event-stream", b"".join(first) + telling)
                record = await recorded(stack, path, asked, 0)
                assert record.usage == Usage(input=last[0], output=last[1], known=True)

    run(test)
