"""Trying a credential: its one-time set-up, one real minimal request, and what is told of its quota."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from pool_server.core.enums import FaultKind
from pool_server.core.models import OF_ACCOUNT, Fault, HttpAnswer, HttpRequest, Send
from pool_server.core.origins import origin, shown
from pool_server.core.settings import Settings
from pool_server.language import lazy, marked
from pool_server.providers import (
    Credential,
    OnboardingRejectedError,
    ProviderModule,
    RefreshRejectedError,
    SetupDone,
    UsageAnswer,
    minimal_requests,
    network_fault,
    provider_module,
)
from pool_server.providers import minimal_answers as answers
from pool_server.providers.json_fields import merged

MAX_STEPS = 12
CALL_S = 30.0
# The account is accepted and cannot serve at this very moment: it is kept all the same.
ACCEPTED = frozenset({FaultKind.QUOTA, FaultKind.RATE, FaultKind.CAPACITY, FaultKind.OVERLOAD})
NO_MODEL = marked("no model to ask is known: name one in its models")
_OTHER_MODEL = frozenset({FaultKind.NOT_FOUND, FaultKind.MODEL_UNSUPPORTED, FaultKind.PLAN, FaultKind.REQUEST})


class TrialResult(msgspec.Struct):
    """What a trial showed. `call` is "request", or "usage" where the quota endpoint proves the account; `status` None:
    nothing came back. `updates` are fields the set-up gave, nested as in the file; `usage` is what was told of quota.
    """

    account: str
    host: str
    call: str = "request"
    model: str = ""
    status: int | None = None
    ms: float = 0.0
    ok: bool = False
    fault: str | None = None
    message: str = ""
    updates: dict[str, Any] = {}
    usage: UsageAnswer = UsageAnswer()

    @property
    def accepted(self) -> bool:
        """Whether the vendor took the credential, though it may have no headroom now."""
        return self.ok or self.fault in ACCEPTED

    def row(self) -> dict[str, Any]:
        """For people and programs."""
        names = ("account", "host", "call", "model", "status", "ms", "ok", "fault", "message")
        return {name: getattr(self, name) for name in names}


class Trial:
    """One credential being tried. Over `proxy_url` where one is given, never around it."""

    def __init__(
        self,
        cred: Credential,
        settings: Settings,
        *,
        send: Send,
        clock: Callable[[], float],
        proxy_url: str | None,
        whose: bool = False,
    ) -> None:
        """`whose`: also ask whose sign-in it is, where only the vendor tells."""
        self._cred = cred
        self._module: ProviderModule = provider_module(cred.provider)
        self._settings = settings
        self._send = send
        self._clock = clock
        self._proxy = proxy_url
        self._whose = whose
        addresses = self._module.addresses(cred, settings)
        self.result = TrialResult(cred.account, shown(origin(addresses[0])) if addresses else "")

    async def run(self) -> TrialResult:
        """Try it. Raises nothing that is the vendor's doing."""
        began = time.perf_counter()
        fault = await self._set_up() or await self._prove()
        result = self.result
        result.ms = round((time.perf_counter() - began) * 1000, 1)
        result.ok = fault is None
        if fault is not None:
            result.fault, result.message = fault.kind.value, self._cred.hide_text(fault.message)
        if fault is None or fault.kind in ACCEPTED:
            await self._quota()
            await self._profile()
        return result

    async def _ask(self, request: HttpRequest) -> HttpAnswer:
        egress = self._module.egress(self._cred, self._settings)
        answer = await self._send(
            msgspec.structs.replace(request, proxy_url=self._proxy, egress=egress, timeout_s=CALL_S)
        )
        self.result.status = answer.status or None
        return msgspec.structs.replace(answer, body=self._cred.hide(answer.body))

    async def _set_up(self) -> Fault | None:
        """The account's one-time set-up, where it has one that is still wanted."""
        step = self._module.setup_request(self._cred, self._settings)
        for _ in range(MAX_STEPS if step is not None else 0):
            assert step is not None
            await asyncio.sleep(step.wait_s)
            answer = await self._ask(step.request)
            if not answer.status:
                return network_fault(answer.error)
            try:
                outcome = self._module.setup_answer(self._cred, step, answer, self._settings, now=self._clock())
            except OnboardingRejectedError as refused:
                return refused.fault
            if isinstance(outcome, SetupDone):
                self._cred = outcome.credential
                self.result.updates = merged(self.result.updates, outcome.updates)
                return None
            step = outcome
        unfinished = Fault(FaultKind.TRANSIENT, OF_ACCOUNT, message=marked("its set-up did not come to an end"))
        return unfinished if step is not None else None

    async def _prove(self) -> Fault | None:
        usage = self._module.usage_request(self._cred, self._settings) if self._module.quota_proves else None
        if usage is not None:
            self.result.call = "usage"
            return await self._by_quota(usage)
        model = minimal_requests.known_model(self._cred, self._module)
        fault = await self._request(model) if model else None
        if model and (fault is None or fault.kind not in _OTHER_MODEL):
            return fault
        listed = await self._listed()
        other = answers.first_model(listed, self._cred) if listed is not None else ""
        if other and other != model:
            return await self._request(other)
        return fault or self._unlisted(listed) or Fault(FaultKind.NOT_FOUND, OF_ACCOUNT, message=NO_MODEL)

    async def _request(self, model: str) -> Fault | None:
        self.result.model = model
        request = minimal_requests.minimal_request(self._module, self._cred, model, self._settings)
        answer, now = await self._ask(request), self._clock()
        dialect = minimal_requests.dialect_of(self._cred, model)
        fault = answers.fault_of(self._module, answer, dialect, now=now, model=model)
        seen = tuple(self._module.quota_headers(answer.headers, now=now, model=model)) or (
            fault.windows if fault else ()
        )
        self.result.usage = UsageAnswer(windows=seen)
        return fault

    async def _listed(self) -> HttpAnswer | None:
        """The vendor's list of models, where it has one."""
        request = self._module.models_request(self._cred, self._settings)
        return await self._ask(request) if request is not None else None

    def _unlisted(self, listed: HttpAnswer | None) -> Fault | None:
        """Why no model is known, where it is not that the endpoint lists none: it is away. (A key that may not
        list models may well ask one.)"""
        if listed is None or 0 < listed.status < 500:
            return None
        if not listed.status:
            return network_fault(listed.error)
        return self._module.classify(listed.status, listed.headers, listed.body, now=self._clock(), model="")

    async def _by_quota(self, request: HttpRequest) -> Fault | None:
        answer = await self._ask(request)
        if not answer.status:
            return network_fault(answer.error)
        said = self._module.usage_answer(self._cred, answer, now=self._clock())
        if said.fault is None:
            self.result.usage = said
        return said.fault

    async def _profile(self) -> None:
        """Learn whose sign-in it is, where only the vendor tells."""
        request = self._module.profile_request(self._cred, self._settings) if self._whose else None
        if request is not None:
            status = self.result.status
            told = self._module.profile_updates(self._cred, await self._ask(request))
            self.result.updates, self.result.status = merged(self.result.updates, told), status

    async def _quota(self) -> None:
        """Ask for the windows that the request's own answer did not tell of."""
        request = self._module.usage_request(self._cred, self._settings)
        if self.result.usage.windows or self.result.call == "usage" or request is None:
            return
        status = self.result.status
        await self._by_quota(request)
        self.result.status = status


async def renewed(
    cred: Credential, data: dict[str, Any], settings: Settings, send: Send, *, now: float, proxy_url: str | None
) -> dict[str, Any]:
    """The fields that a refresh of a sign-in gives, nested as in its file `data`; {} where it needs none.

    Raises RefreshRejectedError. The refresh token that `cred` has is spent afterwards.
    """
    module = provider_module(cred.provider)
    if not cred.can_refresh or cred.expires_at is None or cred.expires_at > now:
        return {}
    request = module.refresh_request(cred, settings, now=now)
    if request is None:
        raise RefreshRejectedError(lazy("its access token has ended, and this server cannot renew it"))
    egress = module.egress(cred, settings)
    answer = await send(msgspec.structs.replace(request, proxy_url=proxy_url, egress=egress))
    return module.refresh_answer(cred, answer, now=now).updates
