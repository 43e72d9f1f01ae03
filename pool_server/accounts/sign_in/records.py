"""The records of sign-ins: what the store keeps, and their secrets, sealed under a key of the data folder."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


class SignInRecords:
    """Sign-ins by id. Several processes may have the store open. Methods raise StoreError."""

    def __init__(self, store: Store, folder: Path, clock: Callable[[], float]) -> None:
        self._store = store
        self._folder = folder
        self._clock = clock
        self._cipher: AESGCM | None = None

    def get(self, ident: str) -> AccountSignIn | None:
        """The record as it is now; one whose time is over is expired."""
        raw = self._store.get(TABLE, ident.encode()[:200])
        return self._aged(msgspec.msgpack.decode(raw, type=AccountSignIn)) if raw is not None else None

    def all(self) -> list[AccountSignIn]:
        with self._store.read() as txn:
            found = [msgspec.msgpack.decode(raw, type=AccountSignIn) for _, raw in txn.scan(TABLE)]
        return [self._aged(record) for record in found]

    def by_ticket(self, ticket: str) -> AccountSignIn | None:
        """The open sign-in of a ticket."""
        mark = ticket_mark(ticket)
        return next((one for one in self.all() if one.open and one.ticket and one.ticket == mark), None)

    def put(self, record: AccountSignIn) -> None:
        raw = msgspec.msgpack.encode(record)
        self._store.write(lambda txn: txn.put(TABLE, record.id.encode(), raw))

    def drop(self, ident: str) -> None:
        self._store.write(lambda txn: txn.delete(TABLE, ident.encode()))

    def change(self, ident: str, change: Callable[[AccountSignIn], bool]) -> AccountSignIn | None:
        """Change a record in one transaction; `change` says whether it did. None: it is gone, or it did not."""

        def work(txn: Txn) -> AccountSignIn | None:
            raw = txn.get(TABLE, ident.encode())
            if raw is None:
                return None
            record = self._aged(msgspec.msgpack.decode(raw, type=AccountSignIn))
            if not change(record):
                return None
            txn.put(TABLE, ident.encode(), msgspec.msgpack.encode(record))
            return record

        return self._store.write(work)

    def sweep(self) -> None:
        """Forget what ended long ago."""
        old = self._clock() - KEPT_S
        for record in self.all():
            if not record.open and record.deadline < old:
                self.drop(record.id)

    def _aged(self, record: AccountSignIn) -> AccountSignIn:
        now = self._clock()
        if record.open and not record.at_work and now >= record.deadline:
            end(record, SignInState.EXPIRED, "expired", lazy("the time for this sign-in is over; start again"))
        return record

    # -- secrets

    def seal(self, record: AccountSignIn, what: Secrets) -> None:
        nonce = secrets.token_bytes(_NONCE)
        plain = msgspec.json.encode(what)
        record.sealed = nonce + self._aes().encrypt(nonce, plain, record.id.encode())

    def opened(self, record: AccountSignIn) -> Secrets:
        """The secrets of a record; empty ones once they were erased, or when the key is another."""
        if len(record.sealed) <= _NONCE:
            return Secrets()
        from cryptography.exceptions import InvalidTag  # loaded with the first sign-in

        try:
            plain = self._aes().decrypt(record.sealed[:_NONCE], record.sealed[_NONCE:], record.id.encode())
        except InvalidTag:
            return Secrets()
        return msgspec.json.decode(plain, type=Secrets)

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


def end(record: AccountSignIn, state: SignInState, code: str = "", said: LazyText | None = None) -> None:
    """A sign-in is over: its secrets are erased."""
    record.state, record.code = state, code
    record.say(said)
    record.sealed, record.ticket, record.claimed = b"", b"", 0.0


def ticket_mark(ticket: str) -> bytes:
    """What the store knows of a ticket."""
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()
