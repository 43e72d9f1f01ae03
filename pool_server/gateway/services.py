"""What the data plane works with, built once by the server."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pool_server import dialects
from pool_server.accounts import Accounts
from pool_server.core.models import Fault, UsageRecord
from pool_server.core.settings import Settings
from pool_server.dialects.translation import KnownConstraints
from pool_server.gateway.answer import Transformer
from pool_server.gateway.attempts.openings import Openings
from pool_server.gateway.emulation.quota_headers import FriendView
from pool_server.gateway.emulation.quota_windows import HeadroomGauge
from pool_server.gateway.objects import ObjectAccess
from pool_server.gateway.upstream import Upstream
from pool_server.ledger import Ledger
from pool_server.providers import Credential
from pool_server.telemetry.service import Telemetry
from pool_server.telemetry.trace_context import TRACE_ID
from pool_server.transcripts import CaptureHead, ExchangeCapture, HeldFile, Transcripts
from pool_server.users import Users


@dataclass(slots=True)
class Services:
    """What the data plane works with; built once by the server."""

    settings: Settings
    accounts: Accounts
    users: Users
    ledger: Ledger
    upstream: Upstream
    gauge: HeadroomGauge
    view: FriendView
    transformer: Callable[[Any, Credential], Transformer | None]  # of an exchange and its attempt's account
    access: ObjectAccess
    openings: Openings
    joins: Callable[[Any, str, Any], Awaitable[Fault | None]]  # counts the call that an answer begins
    stream_usage: dialects.StreamUsagePolicy = field(default_factory=dialects.StreamUsagePolicy)
    constraints: KnownConstraints = field(default_factory=KnownConstraints)
    transcripts: Transcripts | None = None
    telemetry: Telemetry | None = None

    def capture(
        self,
        x: Any,
        method: str,
        headers: Sequence[tuple[str, str]],
        body: Callable[[], bytes | HeldFile | None] = lambda: None,
    ) -> ExchangeCapture | None:
        """Of an exchange that has just begun, where its person wants one; the `headers` are the client's own."""
        if self.transcripts is None or not self.transcripts.wanted(x.principal.user, x.principal.key):
            return None
        head = CaptureHead(
            id=x.id,
            at=x.at,
            user=x.principal.user,
            key=x.principal.key,
            dialect=x.route.dialect,
            operation=x.route.operation,
            method=method,
            path=x.route.path,
            query=x.client_call.query,
            headers=headers,
            websocket=x.route.websocket,
        )
        return self.transcripts.begin(head, body)

    def captured(self, x: Any, capture: ExchangeCapture | None) -> None:
        """The exchange is over."""
        if capture is not None and self.transcripts is not None:
            self.transcripts.finish(capture, x.sheet)

    def traced(self, x: Any, record: UsageRecord) -> None:
        """Traces an exchange that has ended, where the operator wants that; lines of the log name the trace then."""
        if self.telemetry is not None:
            urls = [*x.earlier_urls, x.upstream_url][: len(record.attempts)]
            trace_id = self.telemetry.ended(
                record, asked=x.asked, answered=x.answered_model, urls=urls, headers=x.client_call.headers
            )
            TRACE_ID.set(trace_id)


def new_request_id(now: float) -> str:
    """A sortable id: 11 hex digits of milliseconds, then 13 random ones."""
    return f"{int(now * 1000):011x}{random.getrandbits(52):013x}"
