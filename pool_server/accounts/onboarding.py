"""An account's one-time set-up (Code Assist's project discovery), written into its file so that it happens
once.

It runs in the server's own task, one flight an account: the background begins it, and a request that came to the
account sooner joins it.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from pool_server.accounts.credentials.refresh import Refresher, RefreshError, Save
from pool_server.accounts.credentials.store import ReplacedError
from pool_server.accounts.health import learning
from pool_server.accounts.registry import Registry
from pool_server.core.enums import FaultKind, Operation
from pool_server.core.models import OF_ACCOUNT, Fault, RequestScope, Send
from pool_server.providers import Credential, OnboardingRejectedError, SetupDone, provider_module
from pool_server.providers.evidence.table import EVIDENCE

log = logging.getLogger(__name__)

MAX_STEPS = 40
RETRY_S = 600.0  # after a failure, when no request asks sooner
PATIENCE_S = 20.0  # so long a request waits; the set-up itself goes on


class OnboardingUnfinishedError(Exception):
    """The set-up led nowhere within its steps."""


class OnboardingError(Exception):
    """An account's set-up brought nothing. `fault` is what a request makes of it; the account's state knows it
    already. `retry_at`: unix seconds, when the background tries again."""

    def __init__(self, fault: Fault, retry_at: float) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.retry_at = retry_at


class Onboarding:
    """Runs the set-ups of a worker's accounts."""

    def __init__(self, registry: Registry, refresher: Refresher, *, send: Send, save: Save) -> None:
        self._registry = registry
        self._refresher = refresher
        self._send = send
        self._save = save
        self._flights: dict[str, asyncio.Task[Credential]] = {}

    def wanted(self, account_id: str) -> bool:
        """Does this account still need its set-up?"""
        item = self._registry.credentials.items.get(account_id)
        if item is None or item.options.disabled:
            return False
        return provider_module(item.found.provider).setup_request(item.credential, self._registry.settings) is not None

    async def complete(self, account_id: str) -> Credential:
        """The account's credential, given its first token and set up before where that is still wanted.

        Waits for at most `PATIENCE_S`; a caller that leaves, or waits in vain, stops nothing. Raises KeyError for
        an unknown account, and SetupFailed.
        """
        known = self._registry.credentials.items[account_id].credential
        usable = known.secret or not known.can_refresh
        if usable and not self.wanted(account_id):
            return known
        task = self._flights.get(account_id)
        if task is None:
            task = self._flights[account_id] = asyncio.create_task(self._fly(account_id))
            task.add_done_callback(lambda done: self._landed(account_id, done))
        await asyncio.wait({task}, timeout=PATIENCE_S)
        if task.done() and not task.cancelled():
            return task.result()
        raise self._failed(account_id, _broken("the account's set-up takes too long"))

    async def timed(self, account_id: str) -> float | None:
        """`complete` for the background: returns when to try again, None when all is done."""
        try:
            await self.complete(account_id)
        except OnboardingError as failed:
            return failed.retry_at
        except KeyError:
            pass  # its file was removed meanwhile
        return None

    def _landed(self, account_id: str, task: asyncio.Task[Credential]) -> None:
        del self._flights[account_id]
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more

    async def _fly(self, account_id: str) -> Credential:
        registry = self._registry
        registry.reread(account_id)  # another worker may have been faster
        try:
            item = registry.credentials.items[account_id]
            cred = item.credential
            if cred.expires_at is not None and cred.expires_at <= registry.clock():
                await self._refresher.refresh(account_id, cred.secret)
            before = registry.credentials.items[account_id].credential
            try:
                digest = await self._run(account_id)
            except ReplacedError:
                registry.reread(account_id)
                before = registry.credentials.items[account_id].credential
                digest = await self._run(account_id)
            if digest is not None:
                registry.took(account_id, before, digest)
            return registry.credentials.items[account_id].credential
        except OnboardingRejectedError as exc:
            raise self._failed(account_id, exc.fault) from None
        except RefreshError as exc:  # the refresh has set the account's state
            fault = Fault(FaultKind.AUTH, OF_ACCOUNT, message=exc.reason)
            raise OnboardingError(fault, registry.clock() + RETRY_S) from None
        except (OnboardingUnfinishedError, ReplacedError, KeyError) as exc:
            log.warning("%s: its set-up did not finish: %s", account_id, exc)
            raise self._failed(account_id, _broken("the account's set-up did not finish")) from None

    def _failed(self, account_id: str, fault: Fault) -> OnboardingError:
        """Let the account's state know."""
        registry, now = self._registry, self._registry.clock()
        item = registry.credentials.items.get(account_id)
        if item is not None:
            known = fault
            if isinstance(fault.scope, RequestScope) and EVIDENCE[fault.kind].account is not None:
                known = msgspec.structs.replace(fault, scope=OF_ACCOUNT)  # the account's own call, not a friend's
            current = item.credential.fingerprint
            registry.update(
                account_id,
                lambda health: learning.fail(
                    health, known, now, model="", operation=Operation.OTHER, token="", current=current
                ),
            )
        return OnboardingError(fault, max(now + RETRY_S, fault.retry_at or 0.0))

    async def _run(self, account_id: str) -> str | None:
        """Ask step by step; returns the file's digest afterwards, None when there was nothing to do.

        Raises the provider's SetupFault, SetupUnfinished, ReplacedError and KeyError.
        """
        registry = self._registry
        item, settings = registry.credentials.items[account_id], registry.settings
        module = provider_module(item.found.provider)
        step = module.setup_request(item.credential, settings)
        if step is None:
            return None
        for _ in range(MAX_STEPS):
            if step.wait_s:
                await asyncio.sleep(step.wait_s)
            answer = await self._send(registry.credentials.bounded(account_id, step.request, settings))
            outcome = module.setup_answer(item.credential, step, answer, settings, now=registry.clock())
            if isinstance(outcome, SetupDone):
                digest = item.digest
                if outcome.updates:
                    digest = await self._save(account_id, outcome.updates, item.credential)
                return registry.credentials.adopt(account_id, outcome.credential, digest, registry.clock())
            step = outcome
        raise OnboardingUnfinishedError(f"{account_id}: the provider's set-up did not come to an end")

    async def close(self) -> None:
        """End what is under way; the next start begins it again."""
        flights = list(self._flights.values())
        for task in flights:
            task.cancel()
        if flights:
            await asyncio.wait(flights)


def _broken(message: str) -> Fault:
    return Fault(FaultKind.TRANSIENT, OF_ACCOUNT, code="setup", message=message)
