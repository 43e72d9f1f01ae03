"""One account in memory: its credential and options as the file has them, what was learnt, what is in flight."""

from __future__ import annotations

from pool_server.accounts.credentials.files import Options
from pool_server.accounts.health.state import AccountHealth
from pool_server.core.enums import AccountState
from pool_server.providers import Credential

NO_OPTIONS = Options()


class Account:
    """One account. Its order of choice is kept by the selection index, its file by the credential store.

    `owner` is the id of the user the file's owner stands for, `people` are the ids of those who may use the account,
    the owner among them (None = everybody), `refreshable` says whether its token can be refreshed under the present
    settings, `way` names the host its calls go to and the proxy they go over. `local` counts this process's exchanges
    in flight, `elsewhere` other workers'. `turn` is the account's place in a weighted round (the lower the sooner).

    Times are unix seconds: `refresh_retry_at` until when its token cannot be refreshed, `refused_until` until when it
    serves nobody because its token was refused and there is no other one yet, `rated_at` when it was last rated,
    `served_at` when it last answered here, `unreachable_until` until when the way to its provider is set aside.
    """

    __slots__ = (
        "credential",
        "elsewhere",
        "health",
        "id",
        "local",
        "options",
        "owner",
        "people",
        "provider",
        "rated_at",
        "refresh_retry_at",
        "refreshable",
        "refused_until",
        "served_at",
        "turn",
        "unreachable_until",
        "version",
        "way",
    )  # fmt: skip

    def __init__(
        self, credential: Credential, options: Options = NO_OPTIONS, health: AccountHealth | None = None
    ) -> None:
        self.id = credential.account
        self.provider = credential.provider
        self.credential = credential
        self.options = options
        self.owner = options.owner
        self.refreshable = False
        self.people: frozenset[str] | None = None
        self.way = ""
        self.health = health if health is not None else AccountHealth()
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
    def keeps(self) -> bool:
        """Whether a part of its windows is its owner's alone."""
        return bool(self.owner) and (self.options.reserve > 0 or bool(self.options.terms.share))

    @property
    def in_flight(self) -> int:
        return self.local + self.elsewhere

    @property
    def state(self) -> AccountState:
        """The state people see: the operator's DISABLED over what was learnt."""
        return AccountState.DISABLED if self.options.disabled else self.health.state
