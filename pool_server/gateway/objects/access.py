"""May this caller touch these objects, and which account holds them?

A person reaches what their own calls made. Admins, the caller of local mode and the owner of the account that holds
an object reach it too. To everybody else a foreign id is one that does not exist, and nothing goes upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from pool_server.accounts.objects.owners import Owned, OwnersPort, Reference
from pool_server.core.enums import ApiFamily, ErrorKind, ObjectKind, Provider
from pool_server.core.models import ClientError
from pool_server.storage import StoreError
from pool_server.users import Principal

_WORDS = {
    ObjectKind.VECTOR_STORE: "vector store",
    ObjectKind.COMPLETION: "chat completion",
    ObjectKind.CACHE: "cached content",
    ObjectKind.SEARCH_STORE: "file search store",
}


class Claim(msgspec.Struct):
    """What was found. `account` holds the objects, "" when any account may serve; `mine` are the caller's own, `batch`
    the ledger's key of the batch whose results one of the files holds.

    `unknown` are ids the pool has not seen made, of a caller who may reach everything: whoever answers holds them.
    """

    account: str = ""
    error: ClientError | None = None
    mine: list[tuple[Owned, Reference]] = []
    unknown: list[Reference] = []
    batch: str = ""


class ObjectAccess:
    """`holds(principal, account)`: is the caller the account's owner, or somebody to whom every account is open?
    `owned_by(principal, providers)`: the accounts of these providers that a caller owns."""

    def __init__(
        self,
        owners: OwnersPort,
        *,
        holds: Callable[[Principal, str], bool],
        owned_by: Callable[[Principal, Iterable[Provider]], Iterable[str]],
    ) -> None:
        self.owners = owners
        self._holds = holds
        self.owned_by = owned_by

    def claim(
        self, principal: Principal, family: ApiFamily, references: Iterable[Reference], providers: Iterable[Provider]
    ) -> Claim:
        """Looks up what a call names. An error in the claim ends the call; nothing has gone upstream."""
        found = Claim()
        try:
            for reference in references:
                holder = self._holder(principal, family, reference, found, providers)
                if holder is None or (holder and Provider(holder.partition(":")[0]) not in providers):
                    found.error = missing(reference)
                    return found
                if holder and found.account and holder != found.account:
                    found.error = _apart()
                    return found
                found.account = found.account or holder
        except StoreError:
            message = "The pool cannot look up whose objects these are; try again in a moment."
            found.error = ClientError(ErrorKind.NO_ACCOUNT, message, 503)
        return found

    def refused_at(
        self, principal: Principal, family: ApiFamily, references: Iterable[Reference], account: str
    ) -> ClientError | None:
        """Why this account may not be asked about these objects, None where it may."""
        found = self.claim(principal, family, references, (Provider(account.partition(":")[0]),))
        return found.error or (None if found.account in ("", account) else _apart())

    def _holder(
        self,
        principal: Principal,
        family: ApiFamily,
        reference: Reference,
        found: Claim,
        providers: Iterable[Provider],
    ) -> str | None:
        """The account to ask, "" when any may be asked, None when to this caller the object is not there."""
        own = self.owners.get(principal.user, family, reference)
        if own is not None:
            found.mine.append((own, reference))
            found.batch = found.batch or own.batch
            return own.account
        others = self.owners.everybodys(family, reference)
        for owned in others:
            if self._holds(principal, owned.account):
                found.batch = found.batch or owned.batch
                return owned.account
        if principal.admin or principal.local:
            found.unknown.append(reference)
            return ""
        if others:
            return None
        # An account's owner may have made it at the provider itself.
        return next(iter(self.owned_by(principal, providers)), None)


def missing(reference: Reference) -> ClientError:
    """What is told of an id that does not exist, and of one that is somebody else's."""
    kind, ident = reference
    shown = "".join(c for c in ident[:100] if c.isprintable())
    if kind is ObjectKind.RESPONSE:
        message = f"Response with id '{shown}' not found."
    else:
        message = f"No such {_WORDS.get(kind, kind.value)}: '{shown}'."
    return ClientError(ErrorKind.NOT_FOUND, message, 404)


def _apart() -> ClientError:
    message = "The request names objects that different accounts hold; no single account can serve it."
    return ClientError(ErrorKind.BAD_REQUEST, message, 400)
