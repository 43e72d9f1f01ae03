"""What the outcome of each request teaches of its account, and who hears of the windows that were seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pool_server.accounts.health import learning, state
from pool_server.accounts.health.verifying import Verifier
from pool_server.accounts.registry import Registry
from pool_server.core.enums import FaultKind, Operation
from pool_server.core.models import Fault, Send, WindowObservation

Observer = Callable[[str, WindowObservation], None]


class Outcomes:
    """Reported by exchanges; unknown account ids are ignored, as an account may have been removed meanwhile.

    `poll_soon` asks for an account's usage before its turn. `on_observation` hears of each window that was seen.
    """

    def __init__(self, registry: Registry, *, send: Send, poll_soon: Callable[[str], None]) -> None:
        self._registry = registry
        self._index = registry.index
        self._poll_soon = poll_soon
        self.on_observation: list[Observer] = []
        self.own_calls = Verifier(
            registry.credentials, lambda: registry.settings, send=send, clock=registry.clock, served_at=self._served_at,
            learn=lambda account_id, fault, token: self.fail(account_id, fault, "", Operation.OTHER, token),
        )  # fmt: skip

    def observe(self, account_id: str, observations: Iterable[WindowObservation]) -> None:
        """Quota windows were seen in an answer."""
        seen, now = list(observations), self._registry.clock()
        if not seen:
            return
        self._registry.update(account_id, lambda known: learning.absorb(known, seen, now))
        self.tell(account_id, seen)

    def succeed(self, account_id: str, model: str, operation: Operation, first_byte_s: float | None = None) -> None:
        """A real request was answered, after `first_byte_s` seconds (None: not known)."""
        account = self._index.accounts.get(account_id)
        if account is None:
            return
        now, provider = self._registry.clock(), account.provider
        account.served_at = now
        if first_byte_s is None and not (
            account.health.cooldowns or account.health.doubts or self._registry.shared.many
        ):
            return  # nothing is learnt

        def learnt(known: state.AccountHealth) -> bool:
            known_scopes = known.cooldowns or known.doubts  # these alone go by scopes
            scopes = self._index.scopes(provider, model, operation) if known_scopes else ()
            return learning.succeed(known, scopes, first_byte_s, now)

        self._registry.update(account_id, learnt)
        if first_byte_s is not None:
            self._index.note_latency(account, first_byte_s)

    def fail(
        self, account_id: str, fault: Fault, model: str, operation: Operation, token_fingerprint: str = ""
    ) -> None:
        """A real request met a fault that is evidence by itself, or was confirmed. `token_fingerprint` names the
        credential it went out with."""
        self._learn(learning.fail, account_id, fault, model, operation, token_fingerprint)
        self.tell(account_id, fault.windows)
        if fault.kind in (FaultKind.QUOTA, FaultKind.RATE):
            self._poll_soon(account_id)

    def _learn(
        self, learn: learning.LearnStep, account_id: str, fault: Fault, model: str, operation: Operation, token: str
    ) -> None:
        item = self._registry.credentials.items.get(account_id)
        if item is None:
            return
        now, current = self._registry.clock(), item.credential.fingerprint
        self._registry.update(
            account_id,
            lambda known: learn(known, fault, now, model=model, operation=operation, token=token, current=current),
        )

    def contrast(self, account_id: str, fault: Fault, model: str, operation: Operation, token: str) -> None:
        """Another account served what this one refused."""
        self._learn(learning.contrast, account_id, fault, model, operation, token)

    def acquit(self, account_id: str, kind: FaultKind, since: float) -> None:
        """A refusal of this kind, met since then, was the request's: another account refused it in the same way."""
        self.own_calls.drop(account_id)
        now = self._registry.clock()
        self._registry.update(account_id, lambda known: learning.acquit(known, kind, since, now))

    def withdraw(self, account_id: str, model: str, operation: Operation) -> None:
        """What was learnt of a model turned out to be the request's mistake."""
        scope = learning.scope_key(operation, model)
        self._registry.update(account_id, lambda known: known.cooldowns.pop(scope, None) is not None)

    def _served_at(self, account_id: str) -> float:
        account = self._index.accounts.get(account_id)
        return account.served_at if account is not None else 0.0

    def tell(self, account_id: str, seen: Iterable[WindowObservation]) -> None:
        """Let those who follow the windows hear of these; nothing is learnt."""
        for observation in seen:
            for hear in self.on_observation:
                hear(account_id, observation)

    def return_answered(self, account_id: str, scopes: tuple[str, ...]) -> None:
        """An account that is back from a limit only now has answered a request of these scopes."""
        now = self._registry.clock()
        self._registry.update(account_id, lambda known: state.return_answered(known, scopes, now))

    def probe_lost(self, account_id: str) -> None:
        """A request ended that may have been the one that finds out whether a cooling account is back: another may."""
        account, now = self._index.accounts.get(account_id), self._registry.clock()
        for scope, cooldown in account.health.cooldowns.items() if account is not None else ():
            if cooldown.probing:
                self._registry.update(account_id, partial(state.probe_lost, scope=scope, now=now))
                break
