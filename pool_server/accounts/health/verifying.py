"""Whether a refusal is about the account: its own cheap call, made with the credential that was refused.

A 401 or 403 may speak of the request alone. Only an account whose own call is refused as well is taken out of use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

import msgspec

from pool_server.accounts.credentials.store import CredentialStore
from pool_server.core.enums import FaultKind
from pool_server.core.models import OF_ACCOUNT, Fault, Send
from pool_server.core.settings import Settings
from pool_server.providers import Credential, provider_module

CALL_S = 10.0  # the longest an own call may take
VALID_S = 60.0  # a good answer holds so long: one client's refused requests make no call each
KEPT = 4096

_ALIKE: dict[FaultKind, frozenset[FaultKind]] = {
    FaultKind.AUTH: frozenset({FaultKind.AUTH, FaultKind.SUSPENDED, FaultKind.NEEDS_USER}),
    FaultKind.PERMISSION: frozenset({FaultKind.AUTH, FaultKind.PERMISSION, FaultKind.SUSPENDED, FaultKind.NEEDS_USER}),
    FaultKind.CHALLENGE: frozenset({FaultKind.CHALLENGE}),
}


class CallVerdict(Enum):
    """What an own call said."""

    VALID = "valid"
    REFUSED = "refused"
    UNKNOWN = "unknown"  # nothing came back, or something else went wrong


class Verifier:
    """Makes own calls, one at a time for each credential. `learn` hears of the fault once it is the account's;
    `served_at` gives the unix seconds of an account's last answered request."""

    def __init__(
        self,
        credentials: CredentialStore,
        settings: Callable[[], Settings],
        *,
        send: Send,
        clock: Callable[[], float],
        served_at: Callable[[str], float],
        learn: Callable[[str, Fault, str], None],
    ) -> None:
        self._credentials = credentials
        self._settings = settings
        self._send = send
        self._clock = clock
        self._served_at = served_at
        self._learn = learn
        self._valid: dict[tuple[str, str], float] = {}
        self._calls: dict[tuple[str, str], asyncio.Task[Fault | None]] = {}
        self._doubts: dict[asyncio.Task[None], str] = {}

    async def verdict(self, account_id: str, kind: FaultKind, token: str) -> tuple[CallVerdict, Fault | None]:
        """What the account's own call says of a refusal of this kind; the fault where it is refused too.

        `token` is the fingerprint of the credential that was refused: what one that came after it is worth says
        nothing of it.
        """
        item = self._credentials.items.get(account_id)
        if item is None or item.credential.fingerprint != token:
            return CallVerdict.UNKNOWN, None
        key = (account_id, token)
        if self._clock() - self._valid.get(key, -VALID_S) < VALID_S:
            return CallVerdict.VALID, None
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = asyncio.create_task(self._call(account_id, item.credential))
            call.add_done_callback(lambda _: self._calls.pop(key, None))
        fault = await asyncio.shield(call)
        if fault is None:
            self._valid[key] = self._clock()
            while len(self._valid) > KEPT:
                del self._valid[next(iter(self._valid))]
            return CallVerdict.VALID, None
        return (CallVerdict.REFUSED if fault.kind in _ALIKE.get(kind, ()) else CallVerdict.UNKNOWN), fault

    async def valid(self, account_id: str, kind: FaultKind, token: str) -> bool:
        """Does the account's own call succeed, although a request with the credential of this fingerprint was refused
        with this kind of fault?"""
        said, _ = await self.verdict(account_id, kind, token)
        return said is CallVerdict.VALID

    async def answers(self, account_id: str, within_s: float) -> bool:
        """Does anything come back from the account's host within so many seconds, whatever it says?"""
        item, settings = self._credentials.items.get(account_id), self._settings()
        if item is None:
            return True
        request = provider_module(item.found.provider).test_request(item.credential, settings)
        request = self._credentials.bounded(account_id, request, settings)
        answer = await self._send(msgspec.structs.replace(request, timeout_s=within_s))
        return answer.status != 0

    async def _call(self, account_id: str, credential: Credential) -> Fault | None:
        """The fault of the account's own call; None when it was answered."""
        module = provider_module(credential.provider)
        request = module.test_request(credential, self._settings())
        request = self._credentials.bounded(account_id, request, self._settings())
        answer = await self._send(msgspec.structs.replace(request, timeout_s=CALL_S))
        if not answer.status:
            return Fault(FaultKind.NETWORK, message=answer.error)
        if 200 <= answer.status < 300:
            return None
        body = credential.hide(answer.body)
        return module.classify(answer.status, answer.headers, body, now=self._clock(), model="")

    def doubt(self, account_id: str, fault: Fault, token: str) -> None:
        """Find out in the background whether a refusal (of the credential with this fingerprint) is the account's."""
        work = self._settle(account_id, fault, token, self._clock())
        task = asyncio.get_running_loop().create_task(work)
        self._doubts[task] = account_id
        task.add_done_callback(lambda done: self._doubts.pop(done, None))

    def drop(self, account_id: str) -> None:
        """The refusal was not the account's after all: what its own call would say no longer matters."""
        for task in [task for task, owner in self._doubts.items() if owner == account_id]:
            task.cancel()

    async def _settle(self, account_id: str, fault: Fault, token: str, since: float) -> None:
        said, own = await self.verdict(account_id, fault.kind, token)
        if said is not CallVerdict.REFUSED or own is None or self._served_at(account_id) >= since:
            return
        if own.kind in (FaultKind.SUSPENDED, FaultKind.NEEDS_USER):
            fault = own
        self._learn(account_id, msgspec.structs.replace(fault, scope=OF_ACCOUNT, bare=own.bare), token)

    async def settled(self, within_s: float) -> None:
        """Wait until every doubt is settled, but no longer than so many seconds."""
        if self._doubts:
            await asyncio.wait(set(self._doubts), timeout=within_s)

    async def close(self) -> None:
        """End the calls under way."""
        tasks = [*self._doubts, *self._calls.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
