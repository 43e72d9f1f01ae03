"""The refusals one exchange met: what they prove of the accounts, and which of them is the request's own."""

from __future__ import annotations

import time

from pool_server.accounts import Accounts, Decision
from pool_server.core.enums import Conduct, FaultKind, Operation, Provider, Refusal
from pool_server.core.models import AccountScope, ClientError, Fault, ModelScope, ProviderScope, RequestScope
from pool_server.gateway import final_error
from pool_server.providers.evidence.table import EVIDENCE, Confirm, NextStep, ToldAs

_SPENT = frozenset(
    {Refusal.EXHAUSTED, Refusal.MODEL_EXHAUSTED, Refusal.COOLING, Refusal.MODEL_COOLING, Refusal.RATE_LIMITED}
)
_OVERLOADED = frozenset({FaultKind.OVERLOAD, FaultKind.CAPACITY, FaultKind.TRANSIENT, FaultKind.NETWORK})
_SETTLED_S = 5.0  # how long the last word waits for what the accounts' own calls say


class Refusals:
    """`faults` are all that were met, in their order. What proves nothing yet waits here for its confirmation."""

    def __init__(self, accounts: Accounts, operation: Operation) -> None:
        self._accounts = accounts
        self._operation = operation
        self.faults: list[Fault] = []
        self._blamed: list[tuple[str, Fault]] = []
        self._doubts: dict[str, tuple[Fault, str]] = {}  # account → fault, fingerprint of its credential
        self._since = time.time()
        self._passed: Fault | None = None
        self._own: Fault | None = None

    def weigh(self, account: str, token: str, fault: Fault, model: str) -> None:
        """Has the account's health learn what the fault proves. `token` is its credential's fingerprint."""
        if fault is self._passed:
            return
        evidence = EVIDENCE[fault.kind]
        needed = evidence.account if isinstance(fault.scope, AccountScope) else evidence.model
        asks_on = evidence.next is NextStep.SECOND_OPINION and isinstance(fault.scope, RequestScope)
        if not asks_on and (needed is Confirm.ANSWER or not (evidence.account or evidence.model)):
            self._blamed.append((account, fault))
            self._accounts.fail(account, fault, model, self._operation, token)
            if isinstance(fault.scope, ProviderScope):
                self._doubts[account] = (fault, token)
            return
        self._doubts[account] = (fault, token)
        if evidence.account is Confirm.OWN_CALL:
            self._accounts.own_calls.doubt(account, fault, token)

    def wanting(self, decision: Decision | None) -> tuple[bool, bool]:
        """Whether it is quota that the request found none of, and whether it is strength."""
        kind = self.faults[-1].kind if self.faults else None
        spent = decision is not None and not _SPENT.isdisjoint(decision.refused)
        return kind in (FaultKind.QUOTA, FaultKind.RATE) or spent, kind in _OVERLOADED

    def passes_on(self, account: str, fault: Fault) -> bool:
        """Is the refusal the request's, so that the client gets it as it is? The client's own mistakes are, and what
        another account refused in the same way."""
        evidence = EVIDENCE[fault.kind]
        if evidence.next is not NextStep.SECOND_OPINION or isinstance(fault.scope, ModelScope):
            return evidence.next is NextStep.PASS_ON
        alike = [other for other, (known, _) in self._doubts.items() if other != account and _alike(fault, known)]
        for other in alike:
            self._accounts.acquit(other, fault.kind, self._since)
        self._passed = fault if alike else None
        return bool(alike)

    def served_by(self, account: str, model: str) -> None:
        """This account serves what others refused: that is evidence against them."""
        for other, (fault, token) in self._doubts.items():
            shared = EVIDENCE[fault.kind].model is Confirm.OTHER_ACCOUNT or isinstance(fault.scope, ProviderScope)
            if other != account and shared:
                self._accounts.contrast(other, fault, model, self._operation, token)
        self._doubts.clear()

    async def settled(self) -> bool:
        """Settles which refusal was the request's: its account's own call succeeds, or it says nothing of an account.
        True when an account's standing may have changed by that."""
        asked = any(EVIDENCE[fault.kind].account is Confirm.OWN_CALL for fault, _ in self._doubts.values())
        if asked:
            await self._accounts.own_calls.settled(_SETTLED_S)
        for account, (fault, token) in self._doubts.items():
            evidence = EVIDENCE[fault.kind]
            if evidence.next is not NextStep.SECOND_OPINION:
                continue
            if evidence.account is not Confirm.OWN_CALL or await self._accounts.own_calls.valid(
                account, fault.kind, token
            ):
                self._own = fault
        return asked

    def last_word(
        self, decision: Decision, providers: tuple[Provider, ...], model: str, conduct: Conduct
    ) -> ClientError:
        """What the client is told when no account is left; `conduct` is what its program does then."""
        self._withdraw(decision)
        home = bool(providers) and self._accounts.has(providers[0])
        if self._operation is Operation.REALTIME and not home:
            return final_error.not_live(providers)
        return final_error.unserved(
            decision,
            self.faults,
            providers,
            model,
            time.time(),
            refusal=self._own,
            repeats=conduct is Conduct.REPEATS,
            home=home,
        )

    def _withdraw(self, decision: Decision) -> None:
        """A model that every account there is refuses is the request's mistake: none of them rests for it."""
        if decision.account is not None or decision.retry_at is not None:
            return
        for account, fault in self._blamed:
            if isinstance(fault.scope, ModelScope) and EVIDENCE[fault.kind].told is ToldAs.MODEL:
                self._accounts.withdraw(account, fault.scope.model, self._operation)


def _alike(fault: Fault, other: Fault) -> bool:
    """Did two accounts refuse the same way? The words may name the account, so kind, status and code decide."""
    return (fault.kind, fault.status, fault.code) == (other.kind, other.status, other.code)
