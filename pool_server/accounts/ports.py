"""What this room asks of where accounts are kept: their live state and their credentials, in its own terms.

The live state is read and changed in memory, at once; where several processes or machines share it, a change is a pure
function that is run again on what another one wrote meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple, Protocol

from pool_server.accounts.credentials.source import CredentialSource
from pool_server.accounts.health.state import AccountHealth
from pool_server.providers import Credential
from pool_server.storage.leases import Duties, LeasesPort
from pool_server.storage.write_behind import SmallValues


class StateChange(Enum):
    """What a log entry tells."""

    HEALTH = b"L"
    FILE = b"F"  # the account's credential file was rewritten
    GONE = b"G"  # the account's credential file was taken out of the pool
    LOCK = b"K"  # the operator locked or unlocked the pool


class Learning(Protocol):
    """An account, as far as something is learnt of it."""

    health: AccountHealth

    @property
    def id(self) -> str: ...


class LiveBookPort(Protocol):
    """What was learnt of accounts, and what the processes of a pool tell each other of them."""

    notes: SmallValues
    many: bool  # others share it
    far: bool  # what they change is heard a moment later, not within the same transaction

    async def start(self) -> None:
        """Hear what others know; before anything is loaded. Raises StoreError."""

    def load(self, account: Learning) -> bool:
        """Take an account's record; False when there is none."""

    def update(self, account: Learning, change: Callable[[AccountHealth], bool]) -> bool:
        """Change an account's record, for all; True when `change` says that it changed anything. It may be asked again,
        on a record that another process wrote."""

    async def agreed(self, account: Learning, change: Callable[[AccountHealth], bool]) -> bool:
        """`update`; True when the change was made on the record that all have. Where nobody can be asked, this
        process alone says."""

    def announce(self, change: StateChange, account_id: str) -> None:
        """Tell the others of something they cannot read in the record."""

    def news(self) -> list[tuple[StateChange, str]] | None:
        """What others changed since the last call; None when too much did and all must be read anew."""

    def locked(self) -> str | None:
        """The account the operator locked the pool to at run time: "" = none; None = the settings decide."""

    def lock(self, account_id: str) -> None: ...

    def own_file(self, account_id: str) -> str:
        """The digest of the content the pool itself wrote last into this account's file, "" for none."""

    def note_own_file(self, account_id: str, digest: str) -> None: ...

    def spent_by(self, credential: Credential) -> str:
        """The account that has traded this sign-in's refresh token for a new one, "" for none."""

    async def look_up_spent(self, credentials: Iterable[Credential]) -> None:
        """See to it that `spent_by` knows of these. Raises StoreError."""

    def note_spent(self, account_id: str, credential: Credential, now: float) -> None:
        """The account has traded this refresh token for a new one; an old copy of its file must not show it again."""

    def sweep(self, now: float) -> None:
        """Forget a part of what is of no use any more."""

    def share(self, another: bool) -> None:
        """Another server shares the store from now on, or one that did has ended."""

    def publish(self, counts: dict[str, int]) -> None:
        """Tell the others what this process has under way; cheap when nothing changed."""

    def elsewhere(self) -> dict[str, int]:
        """What the other living processes have under way, summed by account."""

    async def flush(self) -> None:
        """Returns when what was changed here is kept, or cannot be now."""

    async def close(self) -> None:
        """This process ends: nothing of it is under way any more, and what is owed is tried once more."""

    def settle(self) -> None:
        """Write what a failing store could not take, if it can now."""


class AccountPorts(NamedTuple):
    """Where accounts are kept, where that is not this machine's own store and folder."""

    live: LiveBookPort
    leases: LeasesPort
    duties: Duties
    source: CredentialSource
