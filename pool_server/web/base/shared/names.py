"""What the keys of a chart or table are called, and the colour each keeps wherever it is shown."""

from __future__ import annotations

import asyncio
import os
import threading
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from pool_server.language import gettext as _
from pool_server.ledger import Ledger
from pool_server.texts import labels
from pool_server.users import RefusedError
from pool_server.web.base.context import WebContext
from pool_server.web.base.shared.query_params import Viewer

COLOURS = 8  # --line-0 … of the token sheet
MOST_COLOURED = 10_000  # names whose colour is kept
OTHER = "other"  # the ledger's word for all groups beyond the largest
OTHERS = "others"  # everybody but the viewer
LOOKS = 100  # pages of the log that are read for what is not known yet
PER_LOOK = 100  # requests a page
OVERLAP_S = 900.0  # a request is recorded when it ends, after others that began later
CONVERSATION_NAME = 64  # characters, as the sums of conversations know them
MOST_CONVERSATIONS = 20_000  # that are remembered


def conversations(ctx: WebContext) -> ConversationBook:
    """What is known of conversations, up to the newest request. Blocks; in any thread."""
    book: ConversationBook = ctx.conversation_book(ConversationBook)
    book.read(ctx.ledger)
    return book


class Names:
    """Turns the ledger's keys into words for one viewer. Reads users, so it is made for one answer only."""

    def __init__(self, ctx: WebContext, who: Viewer) -> None:
        self._ctx = ctx
        self._who = who
        self.book = ctx.colour_book(lambda: ColourBook(Path(ctx.settings.data_dir) / "colours.json"))
        self._talks: ConversationBook | None = None
        self._labels: dict[str, dict[str, str]] = {}

    @classmethod
    async def of(cls, ctx: WebContext, who: Viewer, field: str | None) -> Names:
        """Names of a chart by `field`: of conversations it takes a look at the log."""
        names = cls(ctx, who)
        if field == "conversation":
            names._talks = await asyncio.to_thread(conversations, ctx)
        return names

    def __call__(self, field: str | None, key: str) -> str:
        """`field` is what the key is a name of: provider, account, user, model, or None for all together."""
        if key == OTHER:
            return _("everything else")
        match field:
            case "user":
                return self.user(key)
            case "provider":
                return labels.provider_name(key)
            case "account":
                return labels.account_name(key)
            case "model":
                return key or _("no model")
            case "program" | "project":
                return key
            case "conversation":
                return self._conversation(key)
            case "key":
                return self._key(key)
        return _("all together")

    def _conversation(self, key: str) -> str:
        title = self._talks.get(key, "" if self._who.admin else self._who.user).title if self._talks else ""
        return f"{title} {key[:8]}" if title else key

    def _key(self, key: str) -> str:
        """What a key is for: a friend's own by its label, anybody's to the operator with the person."""
        people = self._ctx.users.people
        owner = people.owner(key) if self._who.admin else self._who.user
        if owner is None:
            return key
        if owner not in self._labels:
            self._labels[owner] = {row["id"]: row["label"] for row in people.list_keys(owner)}
        label = self._labels[owner].get(key, key)
        return f"{label} ({self.user(owner)})" if self._who.admin else label

    def user(self, key: str) -> str:
        """A person's name; a friend is "you" to themselves."""
        if key == OTHERS:
            return _("everybody else")
        if key == self._who.user and not self._who.admin:
            return _("you")
        if key in ("local", "admin"):
            return _("this machine") if key == "local" else _("the operator")
        if not key:
            return _("unknown")
        try:
            return str(self._ctx.users.people.get(key)["name"])
        except RefusedError:
            return _("deleted user")


class KnownConversation(NamedTuple):
    """What a conversation is known by, as of its latest request: what is said in it is nobody's to see."""

    user: str
    program: str  # without its version
    model: str
    at: float  # unix seconds

    @property
    def title(self) -> str:
        """ "Claude Code with claude-opus-5"; "" where nothing is known of it."""
        if self.program and self.model:
            return _("{program} with {model}", program=self.program, model=self.model)
        return self.program or self.model


UNKNOWN = KnownConversation("", "", "", 0.0)


class ConversationBook:
    """The conversations of the newest requests, remembered by this process: a look reads what came since the last."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], KnownConversation] = {}  # (user, conversation), and ("", conversation)
        self._read_to = 0.0
        self._lock = threading.Lock()

    def read(self, ledger: Ledger) -> None:
        """Takes in what the log has anew. Blocks; in any thread."""
        with self._lock:
            newest, cursor = self._read_to, None
            for _look in range(LOOKS):
                records, cursor = ledger.log.page(PER_LOOK, cursor)
                for one in records:
                    newest = max(newest, one.at)
                    if name := one.session[:CONVERSATION_NAME].strip():
                        found = KnownConversation(one.user, without_version(one.agent), one.model, one.at)
                        self._keep((one.user, name), found)
                        self._keep(("", name), found)
                if cursor is None or (records and records[-1].at < self._read_to - OVERLAP_S):
                    break
            self._read_to = newest
            for key in list(self._known)[: max(0, len(self._known) - 2 * MOST_CONVERSATIONS)]:
                del self._known[key]

    def _keep(self, key: tuple[str, str], found: KnownConversation) -> None:
        if found.at >= self._known.get(key, UNKNOWN).at:
            self._known.pop(key, None)  # the latest stand last
            self._known[key] = found

    def get(self, conversation: str, user: str = "") -> KnownConversation:
        """As this user had it; "" = whoever had it last."""
        return self._known.get((user, conversation), UNKNOWN)


def without_version(program: str) -> str:
    """ "Claude Code 2.1.332" → "Claude Code"; a product token, "name/1.2", too."""
    name, space, version = program.rpartition(" ")
    return (name if space and version[:1].isdigit() else program).partition("/")[0]


class ColourBook:
    """Which of the COLOURS a name has: the next one at its first appearance, and the same ever after. Kept in a small
    file beside the stores, which several workers share; a name that is not in it when it cannot be written keeps its
    colour as long as this process runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slots: dict[str, int] = {}

    def slots(self, keys: Iterable[str]) -> dict[str, int]:
        """Name → colour, 0 to COLOURS - 1."""
        wanted = sorted(set(keys))
        if any(key not in self._slots for key in wanted):
            self._slots = self._read() | self._slots
            fresh = [key for key in wanted if key not in self._slots]
            for key in fresh[: MOST_COLOURED - len(self._slots)]:
                self._slots[key] = len(self._slots) % COLOURS
            if fresh:
                self._write()
        return {key: self._slots.get(key, zlib.crc32(key.encode()) % COLOURS) for key in wanted}

    def _read(self) -> dict[str, int]:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=dict[str, int])
        except (OSError, msgspec.DecodeError):
            return {}
        return {key: slot for key, slot in found.items() if 0 <= slot < COLOURS}

    def _write(self) -> None:
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(self._slots))
            temporary.replace(self._path)


def colours(field: str | None, keys: Sequence[str], book: ColourBook) -> dict[str, str]:
    """A CSS class a key: the same name has the same colour on every chart, in every range and company. What stands
    for many ("other") stays without colour."""
    several = [key for key in keys if key in (OTHER, OTHERS)]
    single = [key for key in keys if key not in (OTHER, OTHERS)]
    if field == "provider":
        return dict.fromkeys(several, "") | {key: key for key in single}
    slots = book.slots(f"{field}/{key}" for key in single)
    return dict.fromkeys(several, "") | {key: f"line-{slots[f'{field}/{key}']}" for key in single}
