from __future__ import annotations

import asyncio
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pool_server.alerts import AlertEvent, AlertFacts, AlertMonitor, AlertRule, Budget, Incident
from pool_server.alerts.notify import RETRY_AFTER_S, deliver, mail
from pool_server.alerts.rules import CALM_S, LEAST_REQUESTS, step
from pool_server.core.enums import AccountState
from pool_server.core.models import HttpAnswer, HttpRequest
from pool_server.core.settings import Alerts, Settings
from pool_server.language import lazy_of
from tests.ledger.ledger_kit import NOW, Clock, exchange, ledger_in, record_all

SETTINGS = Alerts()
WRONG = {
    AlertRule.BUDGET: AlertFacts(budgets=(Budget("ada", "cost_day", 0.85),)),
    AlertRule.NEEDS_LOGIN: AlertFacts(accounts={"claude:a": AccountState.NEEDS_LOGIN}),
    AlertRule.SUSPENDED: AlertFacts(accounts={"claude:a": AccountState.SUSPENDED}),
    AlertRule.SIGN_IN_ENDS: AlertFacts(sign_ins_end={"claude:a": NOW + 2 * 86400}),
    AlertRule.HEADROOM: AlertFacts(lasts_until={"claude": NOW + 3600}),
    AlertRule.ERROR_RATE: AlertFacts(requests=100, errors=30),
    AlertRule.DISK: AlertFacts(disk_free=100 << 20),
    AlertRule.LEDGER: AlertFacts(ledger_healthy=False),
    AlertRule.DATA_FOLDER: AlertFacts(data_folder="data was removed"),
    AlertRule.CERTIFICATE: AlertFacts(certificate="the TLS certificate ends at 2026-01-09 10:00 UTC"),
    AlertRule.POOL_FOLDER: AlertFacts(pool_folder={"pool/": lazy_of("cannot be read: Too many open files")}),
}
RIGHT = AlertFacts(
    budgets=(Budget("ada", "cost_day", 0.5),), accounts={"claude:a": AccountState.READY},
    sign_ins_end={"claude:a": NOW + 9 * 86400, "claude:gone": NOW - 1},
    lasts_until={"claude": None, "codex": NOW + 1e6}, requests=100, errors=1, disk_free=1 << 40,
    ledger_healthy=True, pool_folder={}, data_folder="", certificate="",
)  # fmt: skip


@pytest.mark.parametrize("rule", AlertRule)
def test_an_incident_is_told_once_and_its_end_once(rule: AlertRule) -> None:
    now, told = NOW, []
    state: dict[str, Incident] = {}
    for facts in [WRONG[rule]] * 3 + [RIGHT] * 12 + [WRONG[rule]]:
        state, events = step(state, facts, SETTINGS, now)
        told += [(e.incident.rule, e.over) for e in events]
        now += 60
    assert told == [(rule, False), (rule, True), (rule, False)]


@pytest.mark.parametrize("rule", AlertRule)
def test_what_was_not_looked_at_stays_open(rule: AlertRule) -> None:
    state, _ = step({}, WRONG[rule], SETTINGS, NOW)
    state, events = step(state, AlertFacts(), SETTINGS, NOW + 10 * CALM_S)
    assert (len(state), events) == (1, [])


def test_everything_right_says_nothing() -> None:
    assert step({}, RIGHT, SETTINGS, NOW) == ({}, [])


def test_a_value_around_its_limit_does_not_chatter() -> None:
    state: dict[str, Incident] = {}
    told = 0
    for i in range(30):
        state, events = step(
            state, (WRONG if i % 2 else {AlertRule.DISK: RIGHT})[AlertRule.DISK], SETTINGS, NOW + i * 60
        )
        told += len(events)
    assert told == 1


def test_the_next_step_of_a_budget_is_told() -> None:
    told = []
    state: dict[str, Incident] = {}
    for share in (0.5, 0.81, 0.9, 1.01, 1.5):
        state, events = step(state, AlertFacts(budgets=(Budget("ada", "cost_day", share),)), SETTINGS, NOW)
        told += [e.incident.level for e in events]
    assert told == [80, 100]


def test_few_requests_say_nothing_about_errors() -> None:
    assert step({}, AlertFacts(requests=LEAST_REQUESTS - 1, errors=LEAST_REQUESTS - 1), SETTINGS, NOW)[1] == []


def test_a_clock_that_went_back_still_ends_incidents() -> None:
    state, _ = step({}, WRONG[AlertRule.DISK], SETTINGS, NOW)
    state, _ = step(state, RIGHT, SETTINGS, NOW)
    state, _ = step(state, RIGHT, SETTINGS, NOW - 9000)
    state, events = step(state, RIGHT, SETTINGS, NOW - 9000 + CALM_S)
    assert [e.over for e in events] == [True]


EVENT = AlertEvent(Incident(AlertRule.DISK, "data", "only 1 MiB are free", NOW), False, NOW)


class Hook:
    """A webhook that answers with the given statuses, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[HttpRequest] = []
        self.slept: list[float] = []

    async def send(self, request: HttpRequest) -> HttpAnswer:
        self.got.append(request)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return HttpAnswer(status, {})

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def tell(self, *events: AlertEvent) -> bool:
        return asyncio.run(deliver(events, Alerts(webhook_url="http://127.0.0.1/hook"), self.send, sleep=self.sleep))


def test_the_webhook_gets_json() -> None:
    hook = Hook(204)
    assert hook.tell(EVENT)
    (request,) = hook.got
    assert (request.method, request.url) == ("POST", "http://127.0.0.1/hook")
    body = json.loads(request.body)
    assert (body["event"], body["rule"], body["subject"]) == ("firing", "disk", "data")


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_failing_webhook_is_tried_again(status: int) -> None:
    hook = Hook(status, status, 200)
    assert hook.tell(EVENT)
    assert hook.slept == list(RETRY_AFTER_S[:2])
    hook = Hook(status)
    assert not hook.tell(EVENT)
    assert len(hook.got) == len(RETRY_AFTER_S) + 1


def test_a_webhook_that_is_not_there_is_given_up() -> None:
    hook = Hook(404)
    assert not hook.tell(EVENT)
    assert len(hook.got) == 1


def test_nothing_to_tell_or_nowhere_to_tell_it() -> None:
    hook = Hook(200)
    assert hook.tell()
    assert asyncio.run(deliver([EVENT], Alerts(), hook.send))
    assert hook.got == []


class _Smtp(socketserver.StreamRequestHandler):
    """As much of a mail server as one message needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        data = False
        for line in self.rfile:
            self.server.lines.append(line.decode().rstrip())  # type: ignore[attr-defined]
            if data:
                data = line != b".\r\n"
                if not data:
                    self.wfile.write(b"250 taken\r\n")
            elif line.upper().startswith(b"DATA"):
                data = True
                self.wfile.write(b"354 go on\r\n")
            elif line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


@contextmanager
def smtp_server() -> Iterator[tuple[int, list[str]]]:
    with socketserver.TCPServer(("127.0.0.1", 0), _Smtp) as server:
        server.lines = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], server.lines  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def test_a_mail_tells_all_events() -> None:
    with smtp_server() as (port, lines):
        settings = Alerts(
            smtp_host="127.0.0.1", smtp_port=port, smtp_tls=False, mail_from="pool@example.org",
            mail_to=["op@example.org"],
        )  # fmt: skip
        over = AlertEvent(EVENT.incident, True, NOW)
        assert asyncio.run(deliver([EVENT, over], settings, Hook(500).send))
    assert "Subject: pool-server: 1 new, 1 resolved" in lines
    assert "New: only 1 MiB are free" in lines
    assert "Resolved: only 1 MiB are free" in lines


def test_a_mail_server_that_is_not_there_is_said_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    settings = Alerts(
        smtp_host="127.0.0.1", smtp_port=1, smtp_user="u", smtp_password="hunter2", mail_to=["op@example.org"]
    )
    assert not mail([EVENT], settings)
    assert "could not be sent" in caplog.text
    assert "hunter2" not in caplog.text
    assert "op@example.org" not in caplog.text


def test_the_watch_looks_tells_and_remembers(tmp_path: Path) -> None:
    clock = Clock()
    hook = Hook(200)
    settings = Settings(alerts=Alerts(webhook_url="http://127.0.0.1/hook", disk_free_mb=0))
    facts = AlertFacts(accounts={"claude:a": AccountState.NEEDS_LOGIN})
    with ledger_in(tmp_path, settings, clock) as book:
        bad = [exchange(f"b{i}", at=NOW - 60, outcome="upstream") for i in range(30)]
        denied = [exchange(f"d{i}", at=NOW - 60, outcome="denied") for i in range(300)]
        record_all(book, bad + denied)

        async def gather() -> AlertFacts:
            return facts

        async def go() -> None:
            watch = AlertMonitor(book, hook.send, gather, clock=clock)
            assert len(await watch.look()) == 2
            assert {i.rule for i in watch.incidents} == {AlertRule.NEEDS_LOGIN, AlertRule.ERROR_RATE}
            again = AlertMonitor(book, hook.send, gather, clock=clock)  # after a restart
            assert len(again.incidents) == 2
            assert await again.look() == []
            await asyncio.gather(*watch._telling)
            await watch.close()

        asyncio.run(go())
    assert {json.loads(r.body)["rule"] for r in hook.got} == {"needs_login", "error_rate"}


def test_the_watch_starts_and_ends(tmp_path: Path) -> None:
    looked = asyncio.Event()

    async def gather() -> AlertFacts:
        looked.set()
        return AlertFacts()

    async def go() -> None:
        with ledger_in(tmp_path) as book:
            watch = AlertMonitor(book, Hook(200).send, gather, clock=Clock())
            await watch.start()
            await looked.wait()
            await watch.close()

    asyncio.run(go())
