"""What the keys of a chart or table are called, and the colour each keeps wherever it is shown."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from pool_server.core.enums import Provider
from pool_server.users import RefusedError
from pool_server.web.base import labels
from pool_server.web.base.context import WebContext
from pool_server.web.dashboard.query_params import Viewer

COLOURS = 10  # --line-0 … of the token sheet
OTHER = "other"  # the ledger's word for all groups beyond the largest
OTHERS = "others"  # everybody but the viewer


class Names:
    """Turns the ledger's keys into words for one viewer. Reads users, so it is made for one answer only."""

    def __init__(self, ctx: WebContext, who: Viewer) -> None:
        self._ctx = ctx
        self._who = who

    def __call__(self, field: str | None, key: str) -> str:
        """`field` is what the key is a name of: provider, account, user, model, or None for all together."""
        if key == OTHER:
            return "all the rest"
        match field:
            case "user":
                return self.user(key)
            case "provider":
                return provider(key)
            case "account":
                return account(key)
            case "model":
                return key or "no model named"
            case "program" | "project" | "conversation":
                return key
            case "key":
                return self._keys().get(key, key)
        return "all together"

    def _keys(self) -> dict[str, str]:
        """The viewer's own keys by what they are for; others' keep their id."""
        if self._who.admin:
            return {}
        return {key["id"]: key["label"] for key in self._ctx.users.list_keys(self._who.user)}

    def user(self, key: str) -> str:
        """A person's name; a friend is "you" to themselves."""
        if key == OTHERS:
            return "everybody else"
        if key == self._who.user and not self._who.admin:
            return "you"
        if key in ("local", "admin"):
            return "this machine" if key == "local" else "the operator"
        if not key:
            return "not known who"
        try:
            return str(self._ctx.users.get_user(key)["name"])
        except RefusedError:
            return "somebody no longer known"


def provider(key: str) -> str:
    try:
        return labels.PROVIDERS[Provider(key)]
    except ValueError:
        return key or "no provider"


def account(key: str) -> str:
    """ "claude:work" → "work"; what never reached an account says so."""
    name, _, stem = key.partition(":")
    return stem or (f"{provider(name)}, no account" if name else "no account")


def colours(field: str | None, keys: Iterable[str]) -> dict[str, str]:
    """A CSS class a key, by its name and not by its place: the same name has the same colour on every chart, unless
    two that stand side by side would share one. What stands for many ("other") stays without colour."""
    found: dict[str, str] = {}
    taken: set[int] = set()
    for key in sorted(keys):
        if key in (OTHER, OTHERS):
            found[key] = ""
        elif field == "provider":
            found[key] = key
        else:
            slot = zlib.crc32(key.encode()) % COLOURS
            while slot in taken and len(taken) < COLOURS:
                slot = (slot + 1) % COLOURS
            taken.add(slot)
            found[key] = f"line-{slot}"
    return found
