"""The records of sign-ins: what the store keeps, and their secrets, sealed under a key of the data folder."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pool_server.core import processes
from pool_server.core.disk import create_private
from pool_server.core.enums import Provider, SignInFlow, SignInState, SignInStep
from pool_server.language import LazyText, lazy, localized
from pool_server.storage import Store, Txn

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TABLE = "accounts.sign_ins"  # id → AccountSignIn
KEPT_S = 3600.0  # how long an ended sign-in is remembered
KEY_FILE = "sign_in_key"
_NONCE = 12


class AccountSignIn(msgspec.Struct):
    """One sign-in. `starter` is the user id of whoever began it, `owner` whom the account will belong to ("" = the
    pool), `target` the account that gets a new sign-in, `claimed` until when (unix seconds) a worker is at it, at the
    longest, and `claimer` its name. `code` is the machine's reason of an end, `message` the one for people in
    English and `said` the same for pages, `found` who signed in, `test` the trial's row."""

    id: str
    provider: Provider
    flow: SignInFlow
    starter: str
    owner: str
    created: float
    deadline: float
    target: str = ""
    name: str = ""
    label: str = ""
    proxy_url: str | None = None
    state: SignInState = SignInState.WAITING
    step: SignInStep = SignInStep.OPEN
    ticket: bytes = b""
    sealed: bytes = b""
    used: list[str] = []
    tries: int = 0
    interval: float = 5.0
    poll_at: float = 0.0
    failures: int = 0
    claimed: float = 0.0
    claimer: str = ""
    account: str = ""
    code: str = ""
    message: str = ""
    found: dict[str, str] = {}
    test: dict[str, Any] | None = None
    consent: str = ""
    invitation: str = ""
    said: LazyText | None = None

    def say(self, said: LazyText | None) -> None:
        """What people are told of it now."""
        self.said, self.message = said, str(said) if said else ""

    @property
    def told(self) -> str:
        """What people are told of it, in the language of this task."""
        return localized(self.said or self.message)

    @property
    def open(self) -> bool:
        return self.state is SignInState.WAITING

    @property
    def at_work(self) -> bool:
        """Whether a worker is at it, or was when it died: then its code may be spent, and no time ends it."""
        return self.open and self.step in (SignInStep.EXCHANGE, SignInStep.CHECK, SignInStep.TEST)

    def abandoned(self, now: float) -> bool:
        """Whether the worker that was at it is gone."""
        return self.at_work and self.claimed > 0 and (now >= self.claimed or processes.ended(self.claimer))


class Secrets(msgspec.Struct):
    """What of a sign-in nobody may read in the store. `data` is the credential file its tokens make."""

    ticket: str = ""
    state: str = ""
    verifier: str = ""
    device_id: str = ""
    user_code: str = ""
    url: str = ""
    data: dict[str, Any] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AccountSignIn).decode


class SignInStore(Protocol):
    """Where sign-ins are kept, packed, by their ids; several processes or machines may share it. Methods raise
    StoreError."""

    async def get(self, ident: str) -> bytes | None: ...
    async def all(self) -> list[bytes]: ...

    async def change(self, ident: str, work: Callable[[bytes | None], bytes | None]) -> bool:
        """Puts what `work` makes of what is there (None: nothing), all at one moment; it may be asked again. False
        where it makes nothing."""

    async def drop(self, ident: str) -> None: ...

    def seal(self, ident: str, plain: bytes) -> bytes: ...

    def opened(self, ident: str, sealed: bytes) -> bytes | None:
        """What was sealed for this id; None where it cannot be read."""


class EmbeddedSignIns(SignInStore):
    """In this machine's store, sealed under a key of the data folder."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._cipher: AESGCM | None = None

    async def get(self, ident: str) -> bytes | None:
        return self._store.get(TABLE, ident.encode()[:200])

    async def all(self) -> list[bytes]:
        with self._store.read() as txn:
            return [raw for _, raw in txn.scan(TABLE)]

    async def change(self, ident: str, work: Callable[[bytes | None], bytes | None]) -> bool:
        def write(txn: Txn) -> bool:
            made = work(txn.get(TABLE, ident.encode()))
            if made is not None:
                txn.put(TABLE, ident.encode(), made)
            return made is not None

        return self._store.write(write)

    async def drop(self, ident: str) -> None:
        self._store.write(lambda txn: txn.delete(TABLE, ident.encode()))

    def seal(self, ident: str, plain: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._aes().encrypt(nonce, plain, ident.encode())

    def opened(self, ident: str, sealed: bytes) -> bytes | None:
        from cryptography.exceptions import InvalidTag  # loaded with the first sign-in

        try:
            return self._aes().decrypt(sealed[:_NONCE], sealed[_NONCE:], ident.encode())
        except InvalidTag:
            return None

    def _aes(self) -> AESGCM:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            path = self._folder / KEY_FILE
            try:
                create_private(path, secrets.token_bytes(32))
            except FileExistsError:
                pass
            self._cipher = AESGCM(path.read_bytes())
        return self._cipher


class SignInRecords:
    """Sign-ins by id. Methods raise StoreError."""

    def __init__(self, store: SignInStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def get(self, ident: str) -> AccountSignIn | None:
        """The record as it is now; one whose time is over is expired."""
        raw = await self._store.get(ident)
        return self._aged(_decode(raw)) if raw is not None else None

    async def all(self) -> list[AccountSignIn]:
        return [self._aged(_decode(raw)) for raw in await self._store.all()]

    async def by_ticket(self, ticket: str) -> AccountSignIn | None:
        """The open sign-in of a ticket."""
        mark = ticket_mark(ticket)
        return next((one for one in await self.all() if one.open and one.ticket and one.ticket == mark), None)

    async def put(self, record: AccountSignIn) -> None:
        raw = _encode(record)
        await self._store.change(record.id, lambda _: raw)

    async def drop(self, ident: str) -> None:
        await self._store.drop(ident)

    async def change(self, ident: str, change: Callable[[AccountSignIn], bool]) -> AccountSignIn | None:
        """Change a record at one moment; `change` says whether it did, and may be asked again. None: it is gone, or it
        did not."""
        made: AccountSignIn | None = None

        def work(raw: bytes | None) -> bytes | None:
            nonlocal made
            made = self._aged(_decode(raw)) if raw is not None else None
            return _encode(made) if made is not None and change(made) else None

        return made if await self._store.change(ident, work) else None

    async def sweep(self) -> None:
        """Forget what ended long ago."""
        old = self._clock() - KEPT_S
        for record in await self.all():
            if not record.open and record.deadline < old:
                await self.drop(record.id)

    def _aged(self, record: AccountSignIn) -> AccountSignIn:
        now = self._clock()
        if record.open and not record.at_work and now >= record.deadline:
            end(record, SignInState.EXPIRED, "expired", lazy("the time for this sign-in is over; start again"))
        return record

    # -- secrets

    def seal(self, record: AccountSignIn, what: Secrets) -> None:
        record.sealed = self._store.seal(record.id, msgspec.json.encode(what))

    def opened(self, record: AccountSignIn) -> Secrets:
        """The secrets of a record; empty ones once they were erased, or when the key is another."""
        plain = self._store.opened(record.id, record.sealed) if record.sealed else None
        return Secrets() if plain is None else msgspec.json.decode(plain, type=Secrets)


def end(record: AccountSignIn, state: SignInState, code: str = "", said: LazyText | None = None) -> None:
    """A sign-in is over: its secrets are erased."""
    record.state, record.code = state, code
    record.say(said)
    record.sealed, record.ticket, record.claimed = b"", b"", 0.0


def ticket_mark(ticket: str) -> bytes:
    """What the store knows of a ticket."""
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
