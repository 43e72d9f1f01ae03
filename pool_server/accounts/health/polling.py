"""Usage endpoints, asked seldom and evenly: one call an account, spread over the interval, backing off for
long."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from pool_server.accounts.credentials.back_off import BackOff, Pause
from pool_server.accounts.credentials.refresh import RefreshError
from pool_server.accounts.credentials.store import CredentialStore
from pool_server.core import deadlines
from pool_server.core.enums import FaultKind
from pool_server.core.models import Send
from pool_server.core.settings import Settings
from pool_server.providers import SPECS, Credential, UsageAnswer, provider_module

LEAST_S = {provider: spec.usage_least_s for provider, spec in SPECS.items() if spec.usage_least_s}
FIRST_WITHIN_S = 30.0  # a new account is asked soon, so that its windows are known
BACK_OFF_S = 3600.0
BACK_OFF_LONGEST_S = 6 * 3600.0
FORBIDDEN_S = 24 * 3600.0  # a setup token may not ask
JITTER = 0.1
LONGEST_S = FORBIDDEN_S * (1 + JITTER)


class Poller:
    """Asks one account at a time, told when by `Timers`. What it learns goes to `learn`, whatever it is."""

    def __init__(
        self,
        credentials: CredentialStore,
        back_off: BackOff,
        settings: Settings,
        *,
        send: Send,
        clock: Callable[[], float],
        rng: random.Random,
        refresh: Callable[[str, str], Awaitable[Credential]],
        learn: Callable[[str, UsageAnswer], None],
    ) -> None:
        self.settings = settings
        self._credentials = credentials
        self._back_off = back_off
        self._send = send
        self._clock = clock
        self._rng = rng
        self._refresh = refresh
        self._learn = learn

    def first(self, account_id: str) -> float | None:
        """When to ask for the first time since the start, not before it would have been time without one; None =
        never."""
        interval = self._interval(account_id)
        if interval is None:
            return None
        if (pause := self._back_off.get(account_id, self._clock())) is not None:
            return pause.until
        # a pool of hundreds must not ask for all at once
        spread = max(min(FIRST_WITHIN_S, interval), min(interval, 0.25 * len(self._credentials.items)))
        return self._clock() + self._rng.uniform(0.0, spread)

    def soon(self, account_id: str) -> float | None:
        """When to look whether a refused account really has no room: sooner than the next round, not at once."""
        interval = self._interval(account_id)
        if interval is None or self._tries(account_id):
            return None
        wait = 90.0 if self._credentials.items[account_id].found.provider not in LEAST_S else interval
        return self._clock() + min(wait, interval) * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _interval(self, account_id: str) -> float | None:
        item = self._credentials.items.get(account_id)
        if item is None or item.options.disabled or self.settings.usage_polling.interval_s <= 0:
            return None
        if provider_module(item.found.provider).usage_request(item.credential, self.settings) is None:
            return None
        return max(self.settings.usage_polling.interval_s, LEAST_S.get(item.found.provider, 0.0))

    async def poll(self, account_id: str) -> float | None:
        """Ask once; returns when to ask again. Changes no account's state for a fault of the endpoint itself."""
        interval = self._interval(account_id)
        if interval is None:
            return None
        again = self._next(account_id, await self.ask(account_id), interval)
        return deadlines.within(again, self._clock(), LONGEST_S)

    def _next(self, account_id: str, answer: UsageAnswer | None, interval: float) -> float:
        now = self._clock()
        if answer is None:
            return now + interval
        if answer.fault is None:
            self._learn(account_id, answer)
            again, tries = now + interval * self._rng.uniform(1 - JITTER, 1 + JITTER), 0
        else:
            tries = self._tries(account_id) + 1
            again = self._after(answer, interval, tries, now)
        self._back_off.set(account_id, Pause(again, tries))
        return again

    def _tries(self, account_id: str) -> int:
        last = self._back_off.last(account_id)
        return 0 if last is None else last.tries

    def _after(self, answer: UsageAnswer, interval: float, tries: int, now: float) -> float:
        """When to ask again after so many faults in a row."""
        fault = answer.fault
        if fault is not None and fault.kind is FaultKind.PERMISSION:
            wait = longest = FORBIDDEN_S
        else:
            limited = fault is not None and (fault.status == 429 or fault.kind in (FaultKind.RATE, FaultKind.QUOTA))
            wait = BACK_OFF_S * 2.0 ** min(tries - 1, 6) if limited else interval * 2.0 ** min(tries, 6)
            longest = BACK_OFF_LONGEST_S
        return max(now + min(wait, longest) * self._rng.uniform(1.0, 1 + JITTER), answer.retry_at or 0.0)

    async def ask(self, account_id: str) -> UsageAnswer | None:
        """One usage call, with one refresh when the token was refused; None when it cannot be asked now."""
        for last in (False, True):
            item = self._credentials.items.get(account_id)
            if item is None:
                return None
            module = provider_module(item.found.provider)
            request = module.usage_request(item.credential, self.settings)
            if request is None:
                return None
            request = self._credentials.bounded(account_id, request, self.settings)
            answer = module.usage_answer(item.credential, await self._send(request), now=self._clock())
            if answer.fault is None or answer.fault.kind is not FaultKind.AUTH or last:
                return answer
            try:
                await self._refresh(account_id, item.credential.secret)
            except (RefreshError, KeyError):
                return answer
        return None
