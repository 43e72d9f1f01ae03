"""Who holds this key: the check of a pool key, remembered until the key or its user changes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from pool_server.core.enums import Denial
from pool_server.core.models import Denied, Principal
from pool_server.language import marked
from pool_server.storage import Store
from pool_server.users.identity.directory import Directory
from pool_server.users.identity.imported.aliases import Aliases, ImportedSecret
from pool_server.users.identity.tokens import Signer

REMEMBERED = 50_000

NO_KEY = Denied(Denial.NO_KEY, marked("a pool key is needed; sign in to the pool to get one"), 401)
BAD_KEY = Denied(Denial.BAD_KEY, marked("this is not a key of this pool"), 401)
EXPIRED_KEY = Denied(Denial.EXPIRED_KEY, marked("this pool key has expired; make a new one"), 401)
REVOKED_KEY = Denied(Denial.REVOKED_KEY, marked("this pool key was revoked; make a new one"), 401)
USER_DISABLED = Denied(
    Denial.USER_DISABLED, marked("your access to this pool is switched off; ask whoever runs it"), 403
)


class _Known(msgspec.Struct, frozen=True):
    principal: Principal
    expires: float  # unix seconds, inf = never


class KeyRing:
    """Checks keys. A known key costs a dictionary lookup; a new one a signature and two reads."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        signer: Signer,
        clock: Callable[[], float],
        imported: list[ImportedSecret],
    ) -> None:
        self._store = store
        self._aliases = Aliases(store, imported)
        self._directory = directory
        self._signer = signer
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._tokens: dict[str, set[str]] = {}  # user id → tokens remembered
        self.last_used: dict[str, float] = {}  # jti → when, since the last flush

    def authenticate(self, token: str | None) -> Principal | Denied:
        """The caller behind a token. Never raises for a bad one; StoreError when the store cannot be read."""
        if not token:
            return NO_KEY
        known = self._known.get(token)
        now = self._clock()
        if known is None or known.expires <= now:
            return self._verify(token, now)
        self.last_used[known.principal.key] = now
        return known.principal

    def forget(self, user: str, key: str = "") -> None:
        """A key was revoked, or anything about the user changed (no `key`)."""
        tokens = self._tokens.get(user, set())
        for token in [t for t in tokens if not key or self._known[t].principal.key == key]:
            tokens.discard(token)
            del self._known[token]
        if not tokens:
            self._tokens.pop(user, None)

    def forget_all(self, signer: Signer | None = None, imported: list[ImportedSecret] | None = None) -> None:
        """Every key is checked again; `signer` and `imported` replace the secrets."""
        self._known.clear()
        self._tokens.clear()
        self._signer = signer or self._signer
        if imported is not None:
            self._aliases.secrets = imported

    def remembered(self) -> list[Principal]:
        """The callers seen lately, for checking them again after lost changes."""
        return [known.principal for known in self._known.values()]

    def stands(self, user: str, key: str) -> Denied | None:
        """Whether user and key are still good, None = yes."""
        facts = self._directory.key(key)
        if facts is None or facts.user != user:
            return REVOKED_KEY
        if facts.expires is not None and facts.expires <= self._clock():
            return EXPIRED_KEY
        view = self._directory.view(user)
        if view is None:
            return REVOKED_KEY
        if view.disabled:
            return USER_DISABLED
        return None if view.active else REVOKED_KEY

    def resume(self, user: str, key: str) -> Principal | Denied:
        """The caller behind a key that was checked before and is not shown now."""
        denied, view = self.stands(user, key), self._directory.view(user)
        if denied is not None or view is None:
            return denied or REVOKED_KEY
        return Principal(user, view.name, key)

    def _verify(self, token: str, now: float) -> Principal | Denied:
        own = self._signer.claims(token, now)
        claims = own or self._aliases.claims(token, now)
        if claims is None:
            return BAD_KEY
        facts, view = self._directory.key(claims.key), self._directory.view(claims.user)
        expires = claims.expires
        if own is not None and facts is not None and facts.moved:  # the end in a token cannot be
            expires = facts.expires
        if expires is not None and expires <= now:
            return EXPIRED_KEY
        denied = self.stands(claims.user, claims.key)
        if denied is not None or view is None:
            return denied or REVOKED_KEY
        principal = Principal(claims.user, view.name, claims.key)
        self._remember(token, _Known(principal, expires if expires is not None else float("inf")))
        self.last_used[claims.key] = now
        return principal

    def _remember(self, token: str, known: _Known) -> None:
        if len(self._known) >= REMEMBERED:
            self.forget_all()  # rare: more keys in use than fit; they are checked again
        self._known[token] = known
        self._tokens.setdefault(known.principal.user, set()).add(token)
