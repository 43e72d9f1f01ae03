"""Alert rules: pure functions over facts. Each incident is reported when it begins and when it ends.

A rule that no longer holds ends its incident only after CALM_S: a value that crosses its limit back and forth is one
incident. Facts that were not gathered (None) leave open incidents as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from pool_server.core.enums import AccountState
from pool_server.core.settings import COUNTED_LIMITS, Alerts
from pool_server.language import LazyText, marked

CALM_S = 300.0
LEAST_REQUESTS = 20  # fewer say nothing about an error rate
WARNED_S = 3 * 86400.0  # before a sign-in ends
_HOUR = 3600.0
_MIB = 1 << 20
_LIMITS = {limit.name: limit.words for limit in COUNTED_LIMITS}


class AlertRule(StrEnum):
    """The conditions that are watched."""

    BUDGET = "budget"  # a user has used a configured share of a limit
    NEEDS_LOGIN = "needs_login"  # an account's owner must sign in
    SIGN_IN_ENDS = "sign_in_ends"  # a sign-in ends within days, and no refresh puts that off
    SUSPENDED = "suspended"  # a provider stopped an account
    HEADROOM = "room"  # a provider runs out soon; the value is what webhooks carry
    ERROR_RATE = "error_rate"
    DISK = "disk"
    DATA_FOLDER = "data_folder"  # it was removed or replaced under the server
    LEDGER = "ledger"  # usage records are kept in memory only
    CERTIFICATE = "certificate"  # the TLS certificate ends, or the new one in its files cannot be served
    POOL_FOLDER = "pool_folder"  # credential files that are known cannot be read, or a folder of them was emptied


class Budget(msgspec.Struct, frozen=True):
    """How much of one of a user's limits is used; `share` 0.0 to above 1.0."""

    user: str
    limit: str
    share: float


class AlertFacts(msgspec.Struct, frozen=True):
    """What the rules are evaluated on; None = not known this time.

    `accounts` maps account id to state, `sign_ins_end` account id to when its sign-in ends, `lasts_until` provider to
    unix seconds (or None: no end in sight); errors and requests are those of the last minutes, without those clients
    caused. `pool_folder` maps a file or folder to what is wrong with it, `data_folder` says what is wrong with the data
    folder and `certificate` with the TLS certificate ("": nothing).
    """

    budgets: tuple[Budget, ...] | None = None
    accounts: Mapping[str, AccountState] | None = None
    sign_ins_end: Mapping[str, float] | None = None
    lasts_until: Mapping[str, float | None] | None = None
    requests: int | None = None
    errors: int | None = None
    disk_free: int | None = None
    ledger_healthy: bool | None = None
    pool_folder: Mapping[str, LazyText] | None = None
    data_folder: str | None = None
    certificate: str | None = None


class Incident(msgspec.Struct):
    """Something that is wrong since `since`. `subject` names whom or what; `quiet_since` when it stopped. `text` is
    English, for mails, chats and webhooks; a page words `message` with `values` in its reader's language."""

    rule: AlertRule
    subject: str
    text: str
    since: float
    quiet_since: float | None = None
    level: int = 0  # for budgets: the percent that was reached
    message: str = ""  # "" from a version that kept none
    values: dict[str, LazyText | str] = {}

    @property
    def key(self) -> str:
        return f"{self.rule.value}:{self.subject}"


class AlertEvent(msgspec.Struct, frozen=True):
    """An incident that began (`over` False) or ended."""

    incident: Incident
    over: bool
    at: float

    def payload(self) -> dict[str, Any]:
        """The webhook's JSON."""
        incident = self.incident
        return {
            "event": "resolved" if self.over else "firing", "id": f"{incident.key}:{incident.since:.0f}",
            "rule": incident.rule.value, "subject": incident.subject, "text": incident.text,
            "since": incident.since, "at": self.at,
        }  # fmt: skip


def step(
    open_now: Mapping[str, Incident], facts: AlertFacts, settings: Alerts, now: float
) -> tuple[dict[str, Incident], list[AlertEvent]]:
    """The incidents after looking at `facts`, and the events to report."""
    wrong = {incident.key: incident for incident in _wrong(facts, settings, now)}
    looked = _looked_at(facts)
    after: dict[str, Incident] = {}
    events: list[AlertEvent] = []
    for key, incident in wrong.items():
        before = open_now.get(key)
        if before is None or incident.level > before.level:
            after[key] = incident
            events.append(AlertEvent(incident, False, now))
        else:
            after[key] = msgspec.structs.replace(incident, since=before.since, level=before.level)
    for key, incident in open_now.items():
        if key in wrong:
            continue
        if incident.rule not in looked:
            after[key] = incident
        elif incident.quiet_since is None or now < incident.quiet_since:
            after[key] = msgspec.structs.replace(incident, quiet_since=now)
        elif now - incident.quiet_since < CALM_S:
            after[key] = incident
        else:
            events.append(AlertEvent(incident, True, now))
    return after, events


def _looked_at(facts: AlertFacts) -> set[AlertRule]:
    """The rules whose facts are known, so that their incidents may end."""
    seen = {
        AlertRule.BUDGET: facts.budgets, AlertRule.NEEDS_LOGIN: facts.accounts, AlertRule.SUSPENDED: facts.accounts,
        AlertRule.SIGN_IN_ENDS: facts.sign_ins_end,
        AlertRule.HEADROOM: facts.lasts_until, AlertRule.ERROR_RATE: facts.errors, AlertRule.DISK: facts.disk_free,
        AlertRule.LEDGER: facts.ledger_healthy, AlertRule.POOL_FOLDER: facts.pool_folder,
        AlertRule.DATA_FOLDER: facts.data_folder, AlertRule.CERTIFICATE: facts.certificate,
    }  # fmt: skip
    return {rule for rule, value in seen.items() if value is not None}


def _incident(rule: AlertRule, subject: str, now: float, message: str, **values: LazyText | str) -> Incident:
    return Incident(rule, subject, message.format_map(values), now, message=message, values=values)


def _wrong(facts: AlertFacts, settings: Alerts, now: float) -> Iterable[Incident]:
    yield from _budgets(facts, settings, now)
    yield from _accounts(facts, settings, now)
    yield from _requests(facts, settings, now)
    yield from _stores(facts, settings, now)
    if facts.certificate:
        yield _incident(AlertRule.CERTIFICATE, "tls", now, "{what}", what=facts.certificate)


def _accounts(facts: AlertFacts, settings: Alerts, now: float) -> Iterable[Incident]:
    for account, state in (facts.accounts or {}).items():
        if state is AccountState.NEEDS_LOGIN:
            said = marked("{account} needs its owner to sign in again")
            yield _incident(AlertRule.NEEDS_LOGIN, account, now, said, account=account)
        elif state is AccountState.SUSPENDED:
            said = marked("{account} was suspended by its provider")
            yield _incident(AlertRule.SUSPENDED, account, now, said, account=account)
    for account, ends in (facts.sign_ins_end or {}).items():
        if now < ends <= now + WARNED_S:
            left = max(1, round((ends - now) / (24 * _HOUR)))
            one = marked("the sign-in of {account} ends in 1 day: its owner must sign in again")
            several = marked("the sign-in of {account} ends in {days} days: its owner must sign in again")
            said = one if left == 1 else several
            yield _incident(AlertRule.SIGN_IN_ENDS, account, now, said, account=account, days=str(left))
    for provider, end in (facts.lasts_until or {}).items():
        if end is not None and end - now < settings.room_hours * _HOUR:
            said, hours = marked("{provider} runs out in {hours} h at this pace"), max(0.0, end - now) / _HOUR
            yield _incident(AlertRule.HEADROOM, provider, now, said, provider=provider, hours=f"{hours:.1f}")


def _requests(facts: AlertFacts, settings: Alerts, now: float) -> Iterable[Incident]:
    if facts.errors is not None and facts.requests is not None and facts.requests >= LEAST_REQUESTS:
        percent = 100 * facts.errors / facts.requests
        if percent >= settings.error_rate_percent:
            said = marked("{percent} % of {requests} requests failed")
            figures = {"percent": f"{percent:.0f}", "requests": str(facts.requests)}
            yield _incident(AlertRule.ERROR_RATE, "pool", now, said, **figures)


def _stores(facts: AlertFacts, settings: Alerts, now: float) -> Iterable[Incident]:
    if facts.disk_free is not None and facts.disk_free < settings.disk_free_mb * _MIB:
        said = marked("only {free} MiB are free for the data folder")
        yield _incident(AlertRule.DISK, "data", now, said, free=str(facts.disk_free // _MIB))
    if facts.ledger_healthy is False:
        said = marked("usage records are kept in memory: the store cannot be written")
        yield _incident(AlertRule.LEDGER, "ledger", now, said)
    if facts.data_folder:
        said = marked("{what}: nothing is recorded any more, the server stops")
        yield _incident(AlertRule.DATA_FOLDER, "data", now, said, what=facts.data_folder)
    for name, wrong in (facts.pool_folder or {}).items():
        yield _incident(AlertRule.POOL_FOLDER, name, now, "{name} {wrong}", name=name, wrong=wrong)


def _budgets(facts: AlertFacts, settings: Alerts, now: float) -> Iterable[Incident]:
    for budget in facts.budgets or ():
        reached = [level for level in settings.budget_percent if budget.share * 100 >= level]
        if reached:
            said, percent = marked("{user} has used {percent} % of the limit of {limit}"), f"{budget.share * 100:.0f}"
            values = {"user": budget.user, "percent": percent, "limit": _LIMITS.get(budget.limit, budget.limit)}
            incident = _incident(AlertRule.BUDGET, f"{budget.user}/{budget.limit}", now, said, **values)
            yield msgspec.structs.replace(incident, level=max(reached))
