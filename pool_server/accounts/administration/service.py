"""What the operator, and an account's owner, do with one account."""

from __future__ import annotations

from typing import Any

from pool_server.accounts.credentials.refresh import Refresher
from pool_server.accounts.health import learning
from pool_server.accounts.health.verifying import Verifier
from pool_server.accounts.registry import Registry
from pool_server.providers import Credential


class Administration:
    """Changes of accounts by people. Unknown account ids raise KeyError."""

    def __init__(self, roster: Registry, refresher: Refresher, verifier: Verifier) -> None:
        self._roster = roster
        self._refresher = refresher
        self._verifier = verifier

    def set_disabled(self, account_id: str, disabled: bool) -> None:
        """Enable or disable an account, in its file. Raises KeyError, OSError or CredentialRejectedError."""
        self._roster.write(account_id, {"disabled": disabled})

    def set_priority(self, account_id: str, priority: int) -> None:
        """Lower goes first; written into the account's file. Raises KeyError, OSError or CredentialRejectedError."""
        self._roster.write(account_id, {"priority": priority})

    def reset(self, account_id: str) -> None:
        """Forget rests, faults and full windows of an account."""
        self._roster.account(account_id)
        now = self._roster.clock()
        self._roster.update(account_id, lambda known: learning.reset(known, now))

    def lock(self, account_id: str | None) -> None:
        """Send everything of its provider to this account alone; None ends that."""
        if account_id is not None:
            self._roster.account(account_id)
        self._roster.shared.lock(account_id or "")
        self._roster.relock()

    async def refresh_now(self, account_id: str) -> Credential:
        """Refresh at once. Raises KeyError and RefreshError."""
        token = self._roster.vault.items[account_id].credential.secret
        return await self._refresher.refresh(account_id, token, force=True)

    async def test(self, account_id: str) -> dict[str, Any]:
        """One minimal real call with the account's credential, and what came back; `status` None: nothing did. Raises
        KeyError."""
        return await self._verifier.test(account_id)
