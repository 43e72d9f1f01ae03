"""What admission needs of a person and of a key, remembered in memory until they change."""

from __future__ import annotations

from collections import defaultdict
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import msgspec

from pool_server.core.enums import Denial, Provider
from pool_server.core.models import group_names
from pool_server.core.settings import COUNTED_LIMITS, Limits
from pool_server.language import gettext as _
from pool_server.storage import Store
from pool_server.users.models import KEYS, PEOPLE, Denied, KeyFacts, User, bad_value, decode_key, decode_user, id_key

REMEMBERED = 50_000


class UserFacts(msgspec.Struct, frozen=True):
    """The few facts of a user that requests need; `limits` are the effective ones."""

    id: str
    name: str
    active: bool  # neither disabled nor deleted
    disabled: bool
    limits: Limits
    weight: float
    epoch: int
    groups: frozenset[str] = frozenset()


class Directory:
    """Users by id, read from the store once. Everything is a lookup: nothing is loaded at start."""

    def __init__(self, store: Store, defaults: Limits) -> None:
        self._store = store
        self._defaults = defaults
        self._views: dict[str, UserFacts] = {}
        self._keys: dict[str, KeyFacts] = {}

    def view(self, user_id: str) -> UserFacts | None:
        """The user, None when the store does not know the id."""
        found = self._views.get(user_id)
        return found if found is not None else self._read(user_id)

    def key(self, key_id: str) -> KeyFacts | None:
        """The key, None when it is no more. Whose it is, the caller compares."""
        found = self._keys.get(key_id)
        if found is None and (raw := self._store.get(KEYS, id_key(key_id))) is not None:
            key = decode_key(raw)
            counted = any(limit.name in key.limits for limit in COUNTED_LIMITS)
            found = KeyFacts(
                key.id, key.user, key.label, effective(Limits(), key.limits), counted, key.expires, key.moved, key.wait
            )
            if len(self._keys) >= REMEMBERED:
                self._keys.clear()
            self._keys[key_id] = found
        return found

    def user(self, user_id: str) -> User | None:
        """The whole record, fresh from the store."""
        raw = self._store.get(PEOPLE, id_key(user_id))
        return decode_user(raw) if raw is not None else None

    def forget(self, user_id: str, key_id: str = "") -> None:
        """The user changed, or that key of theirs."""
        self._views.pop(user_id, None)
        self._keys.pop(key_id, None)

    def forget_all(self, defaults: Limits | None = None) -> None:
        """Anything may have changed; `defaults` replaces the default limits."""
        self._views.clear()
        self._keys.clear()
        self._defaults = defaults or self._defaults

    def _read(self, user_id: str) -> UserFacts | None:
        user = self.user(user_id)
        if user is None:
            return None
        active = not user.disabled and user.deleted is None
        limits = effective(self._defaults, user.limits)
        groups = frozenset(user.groups)
        view = UserFacts(user.id, user.name, active, user.disabled, limits, user.weight, user.epoch, groups)
        if len(self._views) >= REMEMBERED:
            self._views.clear()  # rare, and cheaper than an order of use
        self._views[user_id] = view
        return view


class Groups:
    """Who is in which group: each person's record names theirs. A group that nobody is in does not exist."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    def of(self, user: str) -> frozenset[str]:
        """The groups a person is in; none for somebody unknown, disabled or deleted."""
        view = self._directory.view(user)
        return view.groups if view is not None and view.active else frozenset()

    def all(self) -> dict[str, list[str]]:
        """Every group's members, by id. Reads everybody: for pages and commands."""
        found: dict[str, list[str]] = defaultdict(list)
        with self._store.read() as txn:
            for _, raw in txn.scan(PEOPLE):
                user = decode_user(raw)
                for name in user.groups if user.deleted is None else ():
                    found[name].append(user.id)
        return dict(found)


def effective(defaults: Limits, override: dict[str, Any]) -> Limits:
    """The default limits with a user's own over them: absent = the default, None = none."""
    return msgspec.structs.replace(defaults, **override) if override else defaults


def checked_limits(given: Any) -> dict[str, Any]:
    """A `limits` object as it came from outside, checked. Raises RefusedError (400) naming the field.

    >>> checked_limits({"tokens_day": 1000, "models": None})
    {'tokens_day': 1000, 'models': None}
    """
    if not isinstance(given, dict):
        raise bad_value("limits must be an object")
    for name, value in given.items():
        if name not in Limits.__struct_fields__:
            raise bad_value(
                _(
                    "limits: {name} is not a limit; allowed are {known}",
                    name=repr(name),
                    known=", ".join(Limits.__struct_fields__),
                )
            )
        try:
            msgspec.convert({name: value}, Limits)
        except msgspec.ValidationError as exc:
            raise bad_value(_("limits: {name}: {error}", name=name, error=str(exc).partition(" - ")[0])) from exc
    unknown = set(given.get("providers") or ()) - {provider.value for provider in Provider}
    if unknown:
        raise bad_value(_("limits: providers: {name} is not a provider", name=repr(sorted(unknown)[0])))
    return dict(given)


def checked_groups(given: Any) -> list[str]:
    """Groups as they came from outside. Raises RefusedError 400."""
    try:
        return list(group_names(given))
    except ValueError as wrong:
        raise bad_value(str(wrong)) from None


def forbidden(limits: Limits, key: KeyFacts | None, provider: str, models: tuple[str, ...]) -> Denied | None:
    """Why somebody with these limits, and this key, may not use this provider or one of these models; "" = not
    known."""
    for caps in (limits, key.limits) if key is not None else (limits,):
        whose = "your access" if caps is limits or key is None else f"your key “{key.label}”"
        if provider and not provider_allowed(caps, provider):
            return Denied(Denial.PROVIDER, f"{whose} does not include {provider}", 403)
        for model in models if caps.models is not None else ():
            if not model_allowed(caps, model):
                return Denied(Denial.MODEL, f"{whose} does not include the model {model}", 403)
    return None


def provider_allowed(limits: Limits, provider: str) -> bool:
    """Whether the user may use this provider at all."""
    return limits.providers is None or provider in limits.providers


def model_allowed(limits: Limits, model: str) -> bool:
    """Whether the user may use this model; patterns are fnmatch, case does not matter. No model = nothing to
    forbid.
    """
    return limits.models is None or not model or _matches(tuple(limits.models), model)


@lru_cache(maxsize=4096)
def _matches(patterns: tuple[str, ...], model: str) -> bool:
    name = model.lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns)
