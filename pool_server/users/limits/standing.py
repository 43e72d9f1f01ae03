"""What limits a person has and how they stand, as pages, the API and people themselves see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from pool_server.core.settings import Limits
from pool_server.users.limits import counters
from pool_server.users.limits.reservations import Reservations


class HasLimits(Protocol):
    """Somebody known, with the limits in effect for them."""

    @property
    def limits(self) -> Limits: ...


class UserLimits:
    """Reads the limits in effect and the counters under them; changes nothing. Raises StoreError.

    `view` finds somebody by their id, None for nobody.
    """

    def __init__(self, view: Callable[[str], HasLimits | None], book: Reservations) -> None:
        self._view = view
        self._book = book

    def of(self, user_id: str) -> dict[str, Any]:
        """{"limits", "used", "frees"} of one user, by the limits' names; somebody unknown has no limits."""
        limits, used, frees = self.standing(user_id)
        blank: dict[str, Any] = dict.fromkeys(Limits.__struct_fields__)
        return {"limits": msgspec.structs.asdict(limits), "used": blank | used, "frees": blank | frees}

    def standing(self, user_id: str) -> tuple[Limits, dict[str, float], dict[str, float | None]]:
        """The limits in effect for a user, and for each that is counted what is used and when it frees."""
        view = self._view(user_id)
        if view is None:
            return Limits(), dict.fromkeys(counters.COUNTED, 0), dict.fromkeys(counters.COUNTED)
        use, marks = self._book.read(user_id)
        return view.limits, counters.used_now(use), counters.frees_at(use, view.limits, marks)

    def allowed(self, user_id: str) -> tuple[list[str] | None, list[str] | None]:
        """The providers and the models a user may use at all, None = every one."""
        view = self._view(user_id)
        return (view.limits.providers, view.limits.models) if view is not None else (None, None)
