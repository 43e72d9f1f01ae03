"""Do a user's limits let in what has no single model in view: batches, and calls that name no model? Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from pool_server.core.enums import Denial, ErrorKind
from pool_server.core.models import ClientError
from pool_server.users import LimitStanding

_TOKENS = ("tokens_5h", "tokens_day", "tokens_week", "tokens_month")
_COSTS = ("cost_day", "cost_week", "cost_month")


def unnamed_model(held_to: Iterable[LimitStanding]) -> ClientError | None:
    """What is told of a call that names no model although one is to work for it."""
    for one in held_to:
        if one.limits.models is not None:
            message = f"{_access(one)} is limited to certain models, and this call names none; name the model."
            return ClientError(ErrorKind.FORBIDDEN, message, 403, code=Denial.MODEL.value)
    return None


def beside_refused(models: Iterable[str], held_to: Iterable[LimitStanding]) -> ClientError | None:
    """What is told of a call that sets models to work which the caller may not use."""
    held = list(held_to)
    for model in models:
        for one in held:
            if one.limits.models is not None and not _matches(model, one.limits.models):
                return _no_access(model, one)
    return None


def batch_refused(
    models: Mapping[str, int], held_to: Iterable[LimitStanding], price: Callable[[str, int], float | None]
) -> ClientError | None:
    """What is told of a batch that goes beyond the limits. `models`: each with the most tokens its requests may use;
    `price` is what so many tokens of a model may cost, None = not known."""
    found = (_batch_refused(models, one, price) for one in held_to)
    return next((error for error in found if error is not None), None)


def _batch_refused(
    models: Mapping[str, int], held: LimitStanding, price: Callable[[str, int], float | None]
) -> ClientError | None:
    limits, used, frees, _ = held
    for model in models:
        if limits.models is not None and not _matches(model, limits.models):
            return _no_access(model, held)
    tokens = sum(models.values())
    costs = [price(model, most) for model, most in models.items()]
    cost = sum(one for one in costs if one is not None)
    for name in (*_TOKENS, *_COSTS):
        most = getattr(limits, name)
        asked = tokens if name in _TOKENS else cost
        if most is not None and used.get(name, 0) + asked > most:
            return _too_much(name, asked, most, used.get(name, 0), frees.get(name), held.key)
    return None


def _access(held: LimitStanding) -> str:
    return f"Your key “{held.key}”" if held.key else "Your access"


def _no_access(model: str, held: LimitStanding) -> ClientError:
    named = f"the model {model[:100]}" if model else "a request that names no model"
    message = f"{_access(held)} does not include {named}."
    return ClientError(ErrorKind.FORBIDDEN, message, 403, code=Denial.MODEL.value)


def _too_much(name: str, asked: float, most: float, used: float, frees: float | None, key: str) -> ClientError:
    kind, _, window = name.partition("_")
    unit = "tokens" if kind == "tokens" else "dollars"
    left = f"{max(0.0, most - used):,.0f} are left"
    whose = f"the {most:,.0f} a {window} of your key “{key}”" if key else f"your {most:,.0f} a {window}"
    message = f"This batch may use {asked:,.0f} {unit}; of {whose} {left}."
    later = frees if asked <= most else None  # what never fits need not wait
    return ClientError(ErrorKind.LIMIT, message, 429, later, code=name)


def file_not_read() -> ClientError:
    """What is told of a batch whose requests are in a file the pool has not read."""
    message = (
        "The pool has not read this file as a batch's input. Send the requests with the call, or upload the file "
        "with purpose=batch in one piece."
    )
    return ClientError(ErrorKind.BAD_REQUEST, message, 400)


def _matches(model: str, patterns: list[str]) -> bool:
    return bool(model) and any(fnmatchcase(model.lower(), pattern.lower()) for pattern in patterns)
