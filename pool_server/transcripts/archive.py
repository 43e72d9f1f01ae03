"""The folder of transcripts: `PERSON/AGENT/CONVERSATION/EXCHANGE.jsonl.zst`. Blocks; not for the event loop.

A name within it that came from outside is checked here, so that none leads out of the folder.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from pool_server.core.disk import DRAFT

FOLDER = "transcripts"  # in the data folder
ENDING = ".jsonl.zst"
NO_CONVERSATION = "none"
STALE_DRAFT_S = 7200.0  # a draft that nobody has added to for so long was left by a crash
_SHARED = ".shared"  # in a conversation's folder: its person lets the operator read it
_PART = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID = re.compile(r"([a-z0-9_-]{1,64})\.([A-Za-z0-9_-]{1,64})")
_PIECE = 1 << 20  # bytes read at once


class KeptConversation(msgspec.Struct):
    """The transcripts of one conversation with one agent. `id` names it within its person's; `session` is what the
    client calls it; times are unix seconds, `bytes` those on the disk."""

    id: str
    agent: str
    session: str
    exchanges: int
    bytes: int
    first: float
    last: float
    shared: bool


class KeptOfPerson(msgspec.Struct):
    """What is kept of one person."""

    user: str
    conversations: int
    exchanges: int
    bytes: int
    first: float | None
    last: float | None
    shared: int


class PersonWithTranscripts(msgspec.Struct):
    """The same for whoever may read what they shared, with their name."""

    user: str
    name: str
    conversations: int
    exchanges: int
    bytes: int
    first: float | None
    last: float | None
    shared: list[KeptConversation]


def slug(text: str, otherwise: str) -> str:
    """A name as a part of a path: `Claude Code/2.1` → claude-code-2-1."""
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:64] or otherwise


def agent_name(agent: str) -> str:
    """An agent's folder: its name without the version."""
    return slug(re.sub(r"[\s/]+v?\d[\w.+-]*$", "", agent), "unknown")


def place(folder: Path, user: str, agent: str, conversation: str, exchange: str) -> Path:
    """Where an exchange's transcript lies."""
    return folder / slug(user, "unknown") / agent_name(agent) / slug(conversation, NO_CONVERSATION) / (
        f"{slug(exchange, 'exchange')}{ENDING}"
    )  # fmt: skip


def conversations(folder: Path, user: str) -> list[KeptConversation]:
    """One person's, the one with the newest exchange first."""
    found = [_conversation(place) for place in _places(folder, user)]
    return sorted((one for one in found if one is not None), key=lambda one: -one.last)


def everybody(folder: Path) -> list[KeptOfPerson]:
    """That there are transcripts, and how many; nothing of what they hold."""
    people: list[KeptOfPerson] = []
    for home in folders(folder):
        kept = KeptOfPerson(home.name, 0, 0, 0, None, None, 0)
        for place in _places(folder, home.name):
            files = _files(place)
            if files:
                kept.conversations += 1
                kept.shared += (place / _SHARED).exists()
            for _, at, size in files:
                kept.exchanges += 1
                kept.bytes += size
                kept.first = at if kept.first is None else min(kept.first, at)
                kept.last = at if kept.last is None else max(kept.last, at)
        if kept.exchanges:
            people.append(kept)
    return people


def find(folder: Path, user: str, identifier: str) -> Path | None:
    """The folder of a conversation by its id, None where there is none."""
    parts = _ID.fullmatch(identifier)
    if parts is None or not _PART.fullmatch(user):
        return None
    place = folder / user / parts[1] / parts[2]
    return place if place.is_dir() and _files(place) else None


def read(place: Path) -> Iterator[bytes]:
    """A conversation's lines, oldest exchange first, in pieces of any length. A file that vanishes meanwhile is left
    out. Raises OSError, and ValueError for a file that is damaged."""
    for path, _, _ in sorted(_files(place)):
        try:
            with path.open("rb") as file:
                reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
                while piece := reader.read(_PIECE):
                    yield piece
        except FileNotFoundError:
            continue
        except zstandard.ZstdError as error:
            raise ValueError(f"{path.name} is damaged: {error}") from None


def remove(place: Path) -> list[Path]:
    """Deletes a conversation → the files that were."""
    files = [path for path, _, _ in _files(place)]
    shutil.rmtree(place, ignore_errors=True)
    return files


def remove_older(folder: Path, user: str, place: Path | None, before: float) -> int:
    """Deletes of one person's, or of one conversation, what was kept before then → how many exchanges."""
    places = [place] if place is not None else list(_places(folder, user))
    return sum(_removed(path) for one in places for path, at, _ in _files(one) if at < before)


def remove_person(folder: Path, user: str) -> int:
    """Deletes all of one person's → how many exchanges that were."""
    if not _PART.fullmatch(user):
        return 0
    number = sum(len(_files(place)) for place in _places(folder, user))
    shutil.rmtree(folder / user, ignore_errors=True)
    return number


def share(place: Path, shared: bool) -> None:
    """Lets the operator read a conversation, or no longer. Raises OSError."""
    if shared:
        (place / _SHARED).touch(mode=0o600)
    else:
        (place / _SHARED).unlink(missing_ok=True)


def is_shared(place: Path) -> bool:
    return (place / _SHARED).exists()


def people(folder: Path) -> list[str]:
    """Of whom there is anything."""
    return [home.name for home in folders(folder)]


def prune(folder: Path, now: float, *, keep_days: float, most_bytes: int) -> int:
    """Removes what is too old, what is too much (the oldest of whoever has most), and drafts of crashed servers → how
    many exchanges."""
    removed = 0
    by_person: dict[str, list[tuple[float, int, Path]]] = defaultdict(list)
    for home in folders(folder):
        for place in _places(folder, home.name):
            _sweep_drafts(place, now)
            for path, at, size in _files(place):
                if at < now - keep_days * 86_400:
                    removed += _removed(path)
                else:
                    by_person[home.name].append((at, size, path))
    sums = {user: sum(size for _, size, _ in files) for user, files in by_person.items()}
    for files in by_person.values():
        files.sort(key=lambda file: file[0], reverse=True)  # the oldest last
    while sum(sums.values()) > most_bytes:
        user = max(sums, key=lambda one: sums[one])
        _, size, path = by_person[user].pop()
        sums[user] -= size
        removed += _removed(path)
    return removed


def _removed(path: Path) -> int:
    """Also the folders that are empty then."""
    path.unlink(missing_ok=True)
    place = path.parent
    if not _files(place):
        (place / _SHARED).unlink(missing_ok=True)
        for empty in (place, place.parent, place.parent.parent):
            try:
                empty.rmdir()
            except OSError:
                break
    return 1


def _sweep_drafts(place: Path, now: float) -> None:
    for path in place.glob(f".*{DRAFT}"):
        try:
            if path.stat().st_mtime < now - STALE_DRAFT_S:
                path.unlink()
        except OSError:
            continue


def _conversation(place: Path) -> KeptConversation | None:
    files = sorted(_files(place))
    if not files:
        return None
    times = [at for _, at, _ in files]
    head = _head(files[-1][0])
    return KeptConversation(
        id=f"{place.parent.name}.{place.name}",
        agent=str(head.get("agent") or place.parent.name),
        session=str(head.get("session") or ""),
        exchanges=len(files),
        bytes=sum(size for _, _, size in files),
        first=min(times),
        last=max(times),
        shared=is_shared(place),
    )


def _head(path: Path) -> dict[str, Any]:
    """The first line of a transcript, {} where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = zstandard.ZstdDecompressor().stream_reader(file).read(256 << 10)
        return msgspec.json.decode(start.partition(b"\n")[0], type=dict[str, Any])
    except (OSError, zstandard.ZstdError, msgspec.DecodeError):
        return {}


def _places(folder: Path, user: str) -> Iterator[Path]:
    """The folders of a person's conversations."""
    if _PART.fullmatch(user):
        for agent in folders(folder / user):
            yield from folders(agent)


def folders(folder: Path) -> list[Path]:
    """What lies in a folder as folders, hidden ones left out."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _files(place: Path) -> list[tuple[Path, float, int]]:
    """(file, when it was kept, bytes) of each transcript."""
    found = []
    try:
        for path in place.iterdir():
            if path.name.endswith(ENDING) and not path.name.startswith("."):
                facts = path.stat()
                found.append((path, facts.st_mtime, facts.st_size))
    except OSError:
        pass
    return found
