"""What people and the door ask of a store, in the terms of this room: no tables, no bytes, no SQL.

A change of several records is handed over as a function. The store reads what the function is about, keeps everybody
else from it, has the function alter it in place and writes the result, all in one transaction. It may run the function
again on newer records, so the function does nothing besides. What it raises passes through, and nothing is kept. Every
method raises StoreError where the store cannot be asked or written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from pool_server.users.models import (
    AdminToken,
    AuditRow,
    Code,
    Key,
    NewPerson,
    Session,
    Ticket,
    Tries,
    User,
    UserChange,
)

T = TypeVar("T")


class Person(msgspec.Struct):
    """A user and all their keys: what changes together."""

    user: User
    keys: list[Key] = []


class Trail(NamedTuple):
    """What a change leaves besides its records: lines of the audit log, and what every worker must take in."""

    audit: Sequence[AuditRow]
    changes: Sequence[UserChange] = ()


class Arrival(NamedTuple):
    """What else happens when somebody new comes, in the same transaction. `code`: one use of the code with this prefix
    is spent ("" = none); `counted`: they are added to the new people of the last day, or it raises RefusedError;
    `identity`, by which another party vouches for them, leads to them from now on (empty = none)."""

    code: str = ""
    counted: Callable[[list[NewPerson]], list[NewPerson]] | None = None
    identity: bytes = b""


class PeopleNews(NamedTuple):
    """What changed of people from one number of the store's to another: records as they are now, and what has ended.
    From 0: everything there is."""

    since: int
    upto: int
    people: list[User]
    keys: list[Key]
    ended_keys: list[tuple[str, str]]  # (user, key)
    codes: list[Code]
    ended_codes: list[str]
    tokens: list[AdminToken]
    ended_tokens: list[str]
    choices: Sequence[tuple[str, str, bytes | None]] = ()  # user, kind, what they decided
    secret: bytes = b""  # the pool's, sealed


class PeoplePort(Protocol):
    """People with their keys, codes and the operator's tokens. A change is durable when its method returns."""

    async def create(self, person: Person, trail: Trail, arrival: Arrival) -> None:
        """Somebody new. RefusedError 409 when the name, or one that looks like it, is taken; 401 when the code is used
        up; and what `arrival.counted` raises."""

    async def change(self, user_id: str, change: Callable[[Person], Trail]) -> Person:
        """Alter a living person. RefusedError 404 when there is none, 409 for a name that is taken. Whoever is
        `deleted` by it is listed under no name any more."""

    async def link(self, identity: bytes, user_id: str) -> None:
        """An identity leads to this person from now on."""

    async def linked(self, identity: bytes) -> str | None:
        """The id of the person an identity leads to."""

    async def code_make(self, code: Code, trail: Trail) -> None:
        """RefusedError 409 when there is one with its prefix."""

    async def code_change(self, prefix: str, change: Callable[[Code], T]) -> T | None:
        """What `change` returns; None when there is no such code."""

    async def code_end(self, prefix: str, trail: Trail) -> None:
        """RefusedError 404 when there is none."""

    async def token_make(self, token: AdminToken, most: int, trail: Trail) -> None:
        """RefusedError 400 when there are `most` already."""

    async def token_end(self, token_id: str, trail: Trail) -> None:
        """RefusedError 404 when there is none."""

    async def choose(self, user_id: str, kind: str, value: bytes | None, trail: Trail, *, anew: bool = True) -> None:
        """Keep what somebody decided for themselves (`CHOICES` has the kinds), None = no more. Not `anew`: what they
        had decided stays."""

    async def tell(self, trail: Trail) -> None:
        """Keep what was done elsewhere."""

    async def audit_page(
        self, before: int | None, limit: int, *, actor: str, action: str, target: str
    ) -> tuple[list[AuditRow], int | None]:
        """The newest lines first, at most `limit` with a number under `before`, by this user id or name, of actions
        that begin so, about this id ("" = any); and the number to go on with, None = no more."""

    async def catch_up(self) -> None:
        """Returns when this machine reads what was changed before the call, on any machine."""

    def follow(self, take_in: Callable[[], None]) -> None:
        """Has this process `take_in` what its machine has been told, and go by that from then on."""
        take_in()


class DoorPort(Protocol):
    """What the door keeps for a while: wrong tries, browser sessions, single-use tickets. Sessions, tickets and what
    is said once are known by the SHA-256 of their secret."""

    instant: bool  # whether no call gives way to anybody else in this process

    async def tries(self, keys: Sequence[bytes], change: Callable[[list[Tries]], T]) -> T:
        """Alter the records with these keys (absent = nothing yet); one that says nothing afterwards is dropped."""

    async def read_tries(self, keys: Sequence[bytes]) -> list[Tries]:
        """The same records as they are."""

    async def session_open(self, mark: bytes, session: Session, trail: Trail) -> None:
        """Durable when it returns."""

    async def session(self, mark: bytes) -> Session | None:
        """What is kept of a session, also of one that has run out."""

    async def session_end(self, mark: bytes, trail: Trail) -> None:
        """`trail` is kept when there was one."""

    async def ticket_make(self, mark: bytes, ticket: Ticket) -> None:
        """Somebody may take it, once."""

    async def ticket_take(self, mark: bytes) -> Ticket | None:
        """The ticket, for the first who asks."""

    async def once(self, mark: bytes, now: float, until: float) -> bool:
        """Whether nobody, in any process, has asked this since the `until` of who asked before has passed."""

    async def ticket_drop(self, mark: bytes) -> None:
        """Nobody may take it any more."""


class SecretPort(Protocol):
    """Where the secret is kept, where that is not this machine's folder."""

    def accepted(self) -> tuple[str, list[tuple[str, float]]]:
        """What signs, and what is accepted beside it until when, as this machine knows it. Raises ValueError,
        StoreError."""

    async def rotate(self, now: float, trail: Trail) -> None:
        """Another one signs, durable for all. Raises StoreError."""


class UserPorts(NamedTuple):
    """The stores that people and the door are kept in, where these are not this machine's own."""

    people: PeoplePort
    door: DoorPort
    secret: SecretPort | None = None  # None: in the settings, or in this machine's folder
