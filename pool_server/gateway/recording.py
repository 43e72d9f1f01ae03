"""The end of an exchange: its record, made durable before the last byte is released, and what its user is charged."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from pool_server import dialects
from pool_server.core.enums import Outcome, Transport
from pool_server.core.models import MoveCost, Usage, UsageRecord
from pool_server.gateway import metrics
from pool_server.gateway.attempts.counting import CallFacts, Counted, count, price_facts
from pool_server.gateway.exchange import Exchange
from pool_server.ledger import JobState, PriceFacts, Quote, job_key
from pool_server.providers import redact

log = logging.getLogger("pool_server.gateway")

_UNPRICED = Quote(None)
_CUT = str(Outcome.CUT)


async def record(x: Exchange, outcome: Outcome, status: int, message: str = "", *, partial: bool = False) -> None:
    """Settles the exchange's reservation and makes its record durable; the second call does nothing."""
    if x.recorded:
        return
    x.recorded = True
    if x.attempts and not x.attempts[-1].ms:  # it is still under way
        x.time_attempt()
    job, asked = _job(x)
    keeping = _keep(x, outcome, status, message, partial, job, asked)
    if asked and not x.services.ledger.port.instant:  # whoever leaves while it is looked up is recorded all the same
        await asyncio.shield(keeping)
    else:
        await keeping


async def _keep(x: Exchange, outcome: Outcome, status: int, message: str, partial: bool, job: str, asked: bool) -> None:
    ledger = x.services.ledger
    counted = _count(x, outcome, await ledger.ask(ledger.job, job) if asked else None)
    usage = x.usage = counted.usage
    quote = ledger.price(_model(x), usage, _price_facts(x)) if usage.counted else _UNPRICED
    sheet = _ended(x, outcome, status, redact(message)[:300] if message else "", quote, partial)
    sheet.job, sheet.reserved = job, counted.reserved
    _follow_cache(x, sheet)
    x.services.traced(x, sheet)
    saved = ledger.record(sheet, priced=True)
    metrics.exchange_ended(sheet.provider, sheet.dialect, sheet.outcome).inc()
    try:
        await saved  # cancelled, it is written all the same
    except Exception as error:  # a full disk must not take the answer away from the client
        log.warning("exchange %s is not recorded: %s", x.id, redact(str(error)))
    finally:  # counters of a process that is killed are made up from its records: they must not be ahead of these
        _settle(x, counted, quote)
    await x.services.users.admission.port.settled()


def _follow_cache(x: Exchange, sheet: UsageRecord) -> None:
    """Notes what the conversation's last change of account cost, and where its cache is now."""
    session, usage = x.peek.session, x.usage
    if not session or not x.account or not usage.counted or not usage.prompt:
        return
    warmth, user = x.services.accounts.warmth, x.principal.user
    before = warmth.find(user, session, x.at)
    pinned = x.decision.pinned if x.decision is not None else None
    if before is not None and before.account != x.account:
        lost = before.lost_by(usage, x.at)
        sheet.move = MoveCost(before.account, lost, x.services.ledger.prices.reread(_model(x), lost))
    elif before is None and pinned not in (None, x.account):
        sheet.move = MoveCost(pinned or "")
    warmth.note(user, session, x.account, usage, time.time())


def begun(x: Exchange, told: Usage | None = None, sent: int = 0) -> None:
    """Notes what is under way: should the process be killed, the next start records it as cut, with the usage that was
    `told`, else with an estimate by the size of the request and the `sent` bytes of the answer."""
    if x.recorded:
        return
    sheet = _sheet(x)
    if told is not None and told.known:
        sheet.usage = told
    else:
        streamed = x.transport is not Transport.BUFFERED
        sheet.usage = dialects.estimate(x.route.operation, x.request_bytes, sent, streamed=streamed)
    sheet.response_bytes = sent
    x.services.ledger.begin(sheet)


def _sheet(x: Exchange) -> UsageRecord:
    """The exchange's record as it stands, one from its beginning to its end: until the end is known, that of an
    exchange that was cut."""
    sheet = x.sheet
    if sheet is None:
        sheet = x.sheet = UsageRecord(
            id=x.id,
            at=x.at,
            user=x.principal.user,
            key=x.principal.key,
            dialect=str(x.route.dialect),
            operation=str(x.route.operation),
            outcome=_CUT,
            message="the server was killed while it was under way",
            partial=True,
            agent=x.agent,
            project=x.project,
            session=x.continuity.session_hash(x.peek.session),
        )
    if x.account is not sheet.account or not sheet.provider:
        sheet.provider, sheet.account = _provider(x), x.account
    sheet.model = x.peek.model or x.answered_model
    sheet.transport = str(x.transport)
    sheet.first_byte_ms = x.first_byte_ms
    sheet.total_ms = x.since_start()
    sheet.request_bytes = x.request_bytes
    sheet.tier = x.served.tier or x.peek.tier
    return sheet


def _ended(x: Exchange, outcome: Outcome, status: int, message: str, quote: Quote, partial: bool) -> UsageRecord:
    """The record with the exchange's end."""
    sheet = _sheet(x)
    sheet.status = status
    sheet.outcome = str(outcome)
    sheet.message = message
    sheet.usage = x.usage
    sheet.cost = quote.dollars
    sheet.cost_basis = str(quote.basis)
    sheet.partial = partial
    sheet.attempts = x.attempts
    sheet.response_bytes = x.response_bytes
    sheet.speed = x.served.speed
    sheet.geo = x.served.geo
    sheet.answered = x.answered_model if x.answered_model != sheet.model else ""
    sheet.decision = _decision_record(x)
    return sheet


def _decision_record(x: Exchange) -> dict[str, Any]:
    record = x.decision.record() if x.decision is not None else {}
    if x.asked != x.peek.model:
        record["asked"] = x.asked
    if x.sent and x.sent != x.peek.model:
        record["sent"] = x.sent
    return record | x.translation.record() if x.translation is not None else record


def _model(x: Exchange) -> str:
    return x.peek.model or x.answered_model


def _price_facts(x: Exchange) -> PriceFacts:
    return price_facts(x.at, x.upstream_url, x.served, x.peek.tier, x.answered_model)


def _settle(x: Exchange, counted: Counted, quote: Quote) -> None:
    """Charges the user's limits; an exchange nobody answered costs nothing."""
    if x.reservation is None:
        return
    charged = counted.charged
    if charged is None:
        x.services.users.admission.release(x.reservation)
        return
    cost = quote.dollars
    if charged is not counted.usage:  # of a job, before or after its usage is known
        cost = x.services.ledger.price(_model(x), charged, _price_facts(x)).dollars
    x.services.users.admission.settle(x.reservation, charged, cost)


def _job(x: Exchange) -> tuple[str, bool]:
    """The job the exchange is about, "" for none, and whether it fetches it: the ledger knows of it then."""
    method, path = _call(x)
    identity = dialects.identity(method, path, x.response_id, stored=x.peek.stored)
    if x.usage.known and not identity:
        return "", False
    job = (x.objects.batch if identity and method == "GET" else "") or job_key(x.account, identity)
    return job, bool(job) and method == "GET"


def _call(x: Exchange) -> tuple[str, str]:
    return "POST" if x.route.websocket else x.client_call.method, x.route.path


def _count(x: Exchange, outcome: Outcome, job: JobState | None) -> Counted:
    if x.usage.known and x.usage.prompt and job is None:
        return Counted(x.usage, x.usage)
    method, path = _call(x)
    call = CallFacts(
        x.route.operation,
        method,
        path,
        x.request_bytes,
        x.response_bytes,
        streamed=x.transport is not Transport.BUFFERED,
        answered=x.first_byte_ms is not None,
        outcome=outcome,
        pending=x.pending,
        expected=x.objects.expected,
    )
    return count(x.usage, call, job)


def _provider(x: Exchange) -> str:
    if x.account:
        return x.account.partition(":")[0]
    return str(x.providers[0]) if x.providers else ""
