"""One account as the choice sees it: what its file says, what the pool learnt, what is under way."""

from __future__ import annotations

from typing import Any

import msgspec

from pool_server.accounts.health.state import AccountHealth
from pool_server.core.enums import AccountState, CredentialKind, Dialect, Provider


class AccountFacts(msgspec.Struct, frozen=True):
    """What the credential file says, without anything secret.

    `cohort` holds everything a provider looks at to tell which models and operations an account serves: accounts
    with equal cohorts are alike for that question. In the dialects `guessed` it is asked only where no other
    account serves them. `reserve` (0–1) is the share of room kept for `owner`, `people` who may use it, the owner
    among them; None = everybody. `way` is the host its calls go to and the proxy they go over. `expires_at` (unix
    seconds) is the access token's end. `priority`: lower goes first. `weight` > 0.
    """

    id: str
    provider: Provider
    kind: CredentialKind = CredentialKind.OAUTH
    cohort: tuple[Any, ...] = ()
    guessed: tuple[Dialect, ...] = ()
    plan: str = ""
    label: str = ""
    owner: str = ""
    reserve: float = 0.0
    people: frozenset[str] | None = None
    priority: int = 100
    weight: float = 1.0
    disabled: bool = False
    proxy_url: str | None = None
    way: str = ""
    expires_at: float | None = None
    can_refresh: bool = False


class Account:
    """One account in memory. `local` counts this process's exchanges under way, `elsewhere` other workers'.

    `turn` is the account's place in a weighted round (the lower the sooner), `refresh_retry_at` until when its
    token cannot be refreshed, `refused_until` until when it serves nobody because its token was refused and there is
    no other one yet, `rated_at` when it was last placed in the view, `served_at` when it last answered here,
    `unreachable_until` until when the way to its provider is set aside.
    """

    __slots__ = (
        "elsewhere", "facts", "live", "local", "rated_at", "refresh_retry_at", "refused_until", "served_at", "turn",
        "unreachable_until", "version",
    )  # fmt: skip

    def __init__(self, facts: AccountFacts, live: AccountHealth | None = None) -> None:
        self.facts = facts
        self.live = live if live is not None else AccountHealth()
        self.version = 0
        self.local = 0
        self.elsewhere = 0
        self.turn = 0.0
        self.refresh_retry_at = 0.0
        self.refused_until = 0.0
        self.rated_at = 0.0
        self.served_at = 0.0
        self.unreachable_until = 0.0

    @property
    def in_flight(self) -> int:
        return self.local + self.elsewhere

    @property
    def state(self) -> AccountState:
        """The state people see: the operator's DISABLED over what was learnt."""
        return AccountState.DISABLED if self.facts.disabled else self.live.state
