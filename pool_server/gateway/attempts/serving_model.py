"""Which model serves a request where it is not the one that was asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pool_server.core.settings import Limits, Models
from pool_server.users import model_allowed


def next_in_chain(
    models: Models, asked: str, served: str, start: int, reasons: tuple[bool, bool], held_to: Sequence[Limits]
) -> tuple[int, str] | None:
    """The next model of the operator's chain that is meant for these reasons (quota, overload) and that the caller may
    use, with the place after it; the chain is that of the name asked for, else that of the model it stands for."""
    quota, overload = reasons
    name = asked if asked in models.fallbacks else models.aliases.get(asked, asked)
    chain = models.following(name, start, quota=quota, overload=overload)
    allowed = (one for one in chain if all(model_allowed(limits, one[1]) for limits in held_to))
    return next((one for one in allowed if one[1] != served), None)
