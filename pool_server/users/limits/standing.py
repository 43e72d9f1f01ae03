"""What limits people and keys have and how they stand, as pages, the API and people themselves see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import msgspec

from pool_server.core.settings import Limits
from pool_server.users.limits import counters
from pool_server.users.limits.admission_port import AdmissionPort


class HasLimits(Protocol):
    """Somebody known, with the limits in effect for them."""

    @property
    def limits(self) -> Limits: ...


class HasOwnLimits(HasLimits, Protocol):
    """A key, with what its counters are kept under."""

    @property
    def owner(self) -> str: ...
    @property
    def label(self) -> str: ...


class LimitStanding(NamedTuple):
    """Limits, and for each that is counted what is used and when it frees, by the limits' names. `key` is the label of
    the key whose own limits they are, "" for a user's."""

    limits: Limits
    used: dict[str, float]
    frees: dict[str, float | None]
    key: str = ""

    def described(self) -> dict[str, Any]:
        """{"limits", "used", "frees"}, each with all names."""
        blank: dict[str, Any] = dict.fromkeys(Limits.__struct_fields__)
        return {
            "limits": msgspec.structs.asdict(self.limits),
            "used": blank | self.used,
            "frees": blank | self.frees,
        }


class UserLimits:
    """Reads the limits in effect and the counters under them; changes nothing. Raises StoreError.

    `view` finds somebody by their id, `key` a key by its own; None for nobody and for no such key.
    """

    def __init__(
        self,
        view: Callable[[str], HasLimits | None],
        key: Callable[[str], HasOwnLimits | None],
        counters_of: AdmissionPort,
    ) -> None:
        self._view = view
        self._key = key
        self._counters = counters_of

    async def fetch(self, people: Iterable[str], keys: Iterable[str] = ()) -> None:
        """Returns when what is told of these users and keys is how they stand now."""
        found = [self._key(key) for key in keys]
        await self._counters.fetch([*people, *(key.owner for key in found if key is not None)])

    def of(self, user_id: str) -> dict[str, Any]:
        """{"limits", "used", "frees"} of one user, by the limits' names; somebody unknown has no limits."""
        return self.standing(user_id).described()

    def of_key(self, key_id: str) -> dict[str, Any] | None:
        """The same of one key's own limits; None where it has none, or is no more."""
        found = self.key_standing(key_id)
        return None if found is None else found.described()

    def standing(self, user_id: str) -> LimitStanding:
        """How a user's limits stand."""
        view = self._view(user_id)
        if view is None:
            return LimitStanding(Limits(), dict.fromkeys(counters.COUNTED, 0), dict.fromkeys(counters.COUNTED))
        return self._standing(user_id, view.limits)

    def of_caller(self, user_id: str, key_id: str) -> list[LimitStanding]:
        """What a caller is held to: their own limits, and those of the key they use ("" = none) where it has any."""
        of_key = self.key_standing(key_id) if key_id else None
        return [self.standing(user_id)] + ([of_key] if of_key is not None else [])

    def allowed(self, user_id: str, key_id: str) -> list[Limits]:
        """The limits that say which providers and models a caller may use at all."""
        found: list[Limits] = []
        view = self._view(user_id)
        if view is not None and (view.limits.providers is not None or view.limits.models is not None):
            found.append(view.limits)
        key = self._key(key_id) if key_id else None
        if key is not None and (key.limits.providers is not None or key.limits.models is not None):
            found.append(key.limits)
        return found

    def key_standing(self, key_id: str) -> LimitStanding | None:
        """How a key's own limits stand; None where it has none, or is no more."""
        key = self._key(key_id)
        return None if key is None or key.limits == Limits() else self._standing(key.owner, key.limits, key.label)

    def _standing(self, owner: str, limits: Limits, key: str = "") -> LimitStanding:
        use, marks = self._counters.read(owner)
        return LimitStanding(limits, counters.used_now(use), counters.frees_at(use, limits, marks), key)
