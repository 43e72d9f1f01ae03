"""What binds a conversation to an account: response ids, turn states, and reasoning that one account has sealed."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Iterable

from pool_server.accounts import Accounts
from pool_server.core.enums import Dialect, Provider
from pool_server.core.models import ClientCall, Peek
from pool_server.dialects import SPECS

_TURN_STATE = "x-codex-turn-state"
_DAY = 86_400.0
_WEEK = 7 * _DAY
# How long it is remembered which account an id belongs to, in seconds. "unsealed": the account was not shown what is
# sealed in the conversation, and is not to be.
_OWNED_S = {"response": _WEEK, "turn_state": 3_600.0, "encrypted": _WEEK, "unsealed": _WEEK, "live_session": _DAY}


class Continuity:
    """One exchange's bonds. `shed`: it goes on without what only a lost account could read."""

    def __init__(self, accounts: Accounts, user: str, dialect: Dialect) -> None:
        self._accounts = accounts
        self._user = user
        self._by_id = SPECS[dialect].continues_by_id
        self._seals: tuple[str, ...] = ()
        self.shed = False
        self._session_hash = ("", "")  # of which session, and its hash

    def session_hash(self, session: str | None) -> str:
        """What stands for the conversation in records, "" for none: never the client's own identifier."""
        if session and session != self._session_hash[0]:
            text = f"{self._user}|{session}".encode()
            self._session_hash = session, hashlib.blake2b(text, digest_size=6).hexdigest()
        return self._session_hash[1] if session else ""

    def look(self, peek: Peek) -> None:
        self._seals = tuple(thing for kind, thing in peek.hard if kind == "encrypted")

    def recall(self, peek: Peek, providers: Iterable[Provider]) -> Awaitable[None] | None:
        """What fetches what is known of the conversation's bonds, once it is awaited or with the admission that is
        asked for meanwhile; None where a read of it needs nothing before."""
        if not self._accounts.pins_elsewhere:
            return None
        things = (*peek.hard, *(("unsealed", seal) for seal in self._seals))
        return self._accounts.fetch_pins(providers, self._user, peek.session, things)

    async def recalled(self, peek: Peek, providers: Iterable[Provider]) -> None:
        """The same to its end."""
        recalling = self.recall(peek, providers)
        if recalling is not None:
            await recalling

    def foreign(self, account: str, pinned: str | None) -> bool:
        """Was the conversation so far had with another account than this? Its sealed reasoning and item ids mean
        nothing to this one, on this turn and on those that follow. `pinned`: whom the conversation was bound to."""
        if not self._by_id and not self._seals:
            return False
        return self.shed or pinned not in (None, account) or any(self._owns("unsealed", account, self._seals))

    def _owns(self, kind: str, account: str, things: tuple[str, ...]) -> list[bool]:
        return [self._accounts.owner_of(self._user, kind, thing) == account for thing in things]

    def own(self, account: str, kind: str, identifier: str) -> None:
        """Remembers that only this account can serve an id (response, turn state)."""
        self._accounts.own(self._user, kind, identifier, account, _OWNED_S[kind])

    def answered(self, account: str, peek: Peek, response_id: str, *, unsealed: bool) -> None:
        """The account has served the request, and so proved what is its own. `unsealed`: without being shown what is
        sealed."""
        if response_id and self._by_id:
            self.own(account, "response", response_id)
        for kind, identifier in peek.hard:
            if kind == "encrypted":
                self.own(account, kind, identifier)
        for seal in self._seals if unsealed else ():
            self.own(account, "unsealed", seal)

    def leave_turn_state(self, call: ClientCall, account: str) -> None:
        """The echo of a turn state goes to the account that issued it and to no other."""
        if self._by_id:
            echoed = tuple(value for name, value in call.headers if name.lower() == _TURN_STATE)
            if not all(self._owns("turn_state", account, echoed)):
                drop_turn_state(call)


def drop_turn_state(call: ClientCall) -> None:
    call.headers = [pair for pair in call.headers if pair[0].lower() != _TURN_STATE]
