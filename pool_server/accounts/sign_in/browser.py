"""The vendor that is signed in to from the page: its address, its device code, a code's exchange for tokens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from typing import Any, Protocol

import msgspec

from pool_server.accounts.sign_in.pasted import PastedCode, read_code
from pool_server.accounts.sign_in.records import AccountSignIn, Secrets, SignInRecords, end
from pool_server.core.enums import SignInFlow, SignInState, SignInStep
from pool_server.core.models import HttpAnswer, HttpRequest, Send
from pool_server.core.settings import Settings
from pool_server.language import LazyText, lazy, lazy_of
from pool_server.providers import SignInRefusedError, provider_module
from pool_server.providers import page_sign_in as vendor

MOST_FAILURES = 5  # polls in a row that brought no answer
CALL_S = 30.0


class SignInHost(Protocol):
    """What the steps of a sign-in need of the service."""

    records: SignInRecords
    settings: Callable[[], Settings]
    send: Send
    worker: str

    @property
    def now(self) -> float: ...

    async def exchange(self, record: AccountSignIn, code: str, what: Secrets) -> AccountSignIn: ...


async def opening(at: SignInHost, record: AccountSignIn, workspace: str) -> Secrets:
    """What a sign-in from the page begins with. Raises SignInRefusedError."""
    if not provider_module(record.provider).spec.page_sign_in:
        raise SignInRefusedError(
            "no_page", lazy("this vendor's sign-in is made on the person's own machine, with the line")
        )
    record.step = SignInStep.CODE
    settings = at.settings()
    if record.flow is SignInFlow.BROWSER:
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
        url = vendor.authorize_url(settings, state=state, verifier=verifier, workspace=workspace)
        return Secrets(state=state, verifier=verifier, url=url)
    started = vendor.device_started(await _ask(at, record, vendor.device_request(settings)), settings)
    record.interval = started.interval
    record.poll_at = record.created + started.interval
    record.deadline = min(record.deadline, record.created + started.expires_in)
    return Secrets(device_id=started.device_id, user_code=started.user_code, url=started.url)


def read(settings: Settings, text: str, state: str | None, others: Collection[str]) -> PastedCode:
    """The code in what was pasted; `state` None: of any sign-in. Raises PastedCodeError."""
    return read_code(text, redirects=vendor.redirects(settings), state=state, others=[one for one in others if one])


def refused(found: PastedCode) -> SignInRefusedError:
    """What the vendor's page said instead of a code."""
    return vendor.refused_in_browser(found.error, found.description)


async def exchange(
    at: SignInHost, record: AccountSignIn, code: str, what: Secrets
) -> tuple[dict[str, Any], dict[str, str]]:
    """The credential file for a code, and who signed in. Raises SignInRefusedError. It is sent once: an answer that
    does not come may have spent the code. Where no connection was made, as while a worker that has just begun is too
    busy to see in time that there is one, it is tried once more."""
    device = record.flow is SignInFlow.DEVICE
    request = vendor.exchange_request(at.settings(), code=code, verifier=what.verifier, device=device)
    answer = await _ask(at, record, request)
    if answer.unsent:
        answer = await _ask(at, record, request)
    data = vendor.exchanged(answer, now=at.now)
    return data, {name: value for name, value in vendor.workspace_of(data).items() if value}


async def poll(at: SignInHost, record: AccountSignIn) -> None:
    """Ask once whether the person has typed the code, and go on when they have. Of several machines one asks at a
    time."""
    if await at.records.change(record.id, lambda found: _asked(found, at.now)) is None:
        return
    what = at.records.opened(record)
    answer = await _ask(at, record, vendor.poll_request(at.settings(), what.device_id, what.user_code))
    try:
        grant = vendor.polled(answer)
    except SignInRefusedError as failed:
        code, said = failed.code, lazy_of(failed)
        await at.records.change(record.id, lambda found: _no_answer(found, at.now, code, said))
        return
    if grant is None:
        await at.records.change(record.id, lambda found: _later(found, at.now))
        return
    claimed = await at.records.change(record.id, lambda found: _claimed(found, at.worker, at.now + CALL_S * 4))
    if claimed is not None:
        await at.exchange(claimed, grant.code, msgspec.structs.replace(what, verifier=grant.verifier))


def _asked(record: AccountSignIn, now: float) -> bool:
    if not record.open or record.step is not SignInStep.CODE or now < record.poll_at:
        return False
    record.poll_at = now + record.interval
    return True


def _later(record: AccountSignIn, now: float) -> bool:
    record.poll_at, record.failures = now + record.interval, 0
    return record.open


def _no_answer(record: AccountSignIn, now: float, code: str, said: LazyText) -> bool:
    if not record.open:
        return False
    record.poll_at, record.failures = now + record.interval, record.failures + 1
    if record.failures >= MOST_FAILURES:
        end(record, SignInState.FAILED, code, said)
    return True


def _claimed(record: AccountSignIn, worker: str, until: float) -> bool:
    if not record.open or record.step is not SignInStep.CODE:
        return False
    record.step, record.claimed, record.claimer = SignInStep.EXCHANGE, until, worker
    return True


async def _ask(at: SignInHost, record: AccountSignIn, request: HttpRequest) -> HttpAnswer:
    """Over the proxy that the account will have, or not at all."""
    bounds = vendor.egress(at.settings())
    return await at.send(msgspec.structs.replace(request, egress=bounds, proxy_url=record.proxy_url, timeout_s=CALL_S))
