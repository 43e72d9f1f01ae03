"""Copies of transcripts at another place, a folder or a bucket: what is to be sent and deleted there waits in an outbox
that outlives crashes, and is tried again until the place takes it.

`.outbox/` in the folder of transcripts holds a hard link of each file that is yet to be sent, its path's parts joined
by `~`, and a mark (`….delete`) for each conversation or person whose copies are to go. Blocks; one leader sends.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import Counter, Gauge

from pool_server.core.settings import TranscriptSettings
from pool_server.storage import store_keys
from pool_server.storage.encrypted_stream import encrypt
from pool_server.storage.object_store import ObjectStore, ObjectStoreError, open_place

log = logging.getLogger(__name__)

mirrored = Counter("pool_transcripts_mirrored_total", "Transcripts sent to or deleted at the mirror", ["result"])
waiting = Gauge("pool_transcripts_waiting", "Transcripts that wait to be mirrored", multiprocess_mode="max")

OUTBOX = ".outbox"
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 600.0
_DELETE = ".delete"
_ENCRYPTED = ".enc"
_DRAFT = ".encrypting"
_READ = 1 << 20


class Outbox:
    """What waits to be mirrored."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._folder = folder / OUTBOX

    def send(self, path: Path) -> None:
        """A new transcript is to be copied. Raises OSError."""
        self._folder.mkdir(exist_ok=True, mode=0o700)
        waits = self._folder / "~".join(path.relative_to(self._root).parts)
        os.link(path, waits)
        if not path.exists():  # its person deleted it just now
            waits.unlink(missing_ok=True)

    def delete(self, *parts: str) -> None:
        """What is mirrored of a person (one part) or of a conversation (person, agent, conversation) is to go, and what
        waits is not sent. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        prefix = "".join(f"{part}~" for part in parts)
        (self._folder / f"{prefix}{_DELETE}").touch(mode=0o600)
        for path in self.files():
            if path.name.startswith(prefix):
                path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """What waits to be sent, in order of name."""
        return [path for path in self._names() if not path.name.endswith((_DELETE, _DRAFT))]

    def marks(self) -> list[Path]:
        """What waits to be deleted."""
        return [path for path in self._names() if path.name.endswith(_DELETE)]

    def prune(self, most_bytes: int) -> int:
        """Lets go of the oldest where more waits than may lie here → how many."""
        kept, dropped = 0, 0
        found = [(facts.st_mtime, facts.st_size, path) for path in self.files() if (facts := _facts(path)) is not None]
        for _, size, path in sorted(found, reverse=True):
            kept += size
            if kept > most_bytes:
                path.unlink(missing_ok=True)
                dropped += 1
        mirrored.labels("dropped").inc(dropped)
        return dropped

    def _names(self) -> list[Path]:
        try:
            return sorted(self._folder.iterdir())
        except OSError:
            return []


def _facts(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


class Mirror:
    """Sends what waits. `clock` in seconds, of any beginning."""

    def __init__(
        self,
        outbox: Outbox,
        settings: Callable[[], TranscriptSettings],
        *,
        clock: Callable[[], float],
        keys: Callable[[], Mapping[str, bytes]] = store_keys.from_environment,
        opened: Callable[[str, Mapping[str, str]], ObjectStore] = open_place,
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._clock = clock
        self._keys = keys
        self._opened = opened
        self._store: tuple[str, dict[str, str], ObjectStore] | None = None
        self._not_before = 0.0
        self._pause = 0.0
        self.last_error = ""  # why the place took nothing at the last try, "" when it did

    def run(self) -> None:
        """One round: deletions, then copies. What fails is tried again later, ever more seldom."""
        files, marks = self._outbox.files(), self._outbox.marks()
        waiting.set(len(files))
        if not self._settings().mirror or not (files or marks) or self._clock() < self._not_before:
            return
        try:
            store = self._open()
            for mark in marks:
                self._delete(store, mark)
            for path in files:
                self._send(store, path)
        except (ObjectStoreError, OSError, ValueError) as error:
            self._failed(str(error))
            return
        self._pause = self._not_before = 0.0
        if self.last_error:
            log.info("the mirror of transcripts takes them again")
        self.last_error = ""
        waiting.set(len(self._outbox.files()))

    def _failed(self, why: str) -> None:
        mirrored.labels("failed").inc()
        self._pause = min(max(FIRST_RETRY_S, self._pause * 2), LAST_RETRY_S)
        self._not_before = self._clock() + self._pause
        if why != self.last_error:
            log.warning("the mirror of transcripts takes nothing; what waits is tried again: %s", why)
        self.last_error = why

    def _open(self) -> ObjectStore:
        wanted = self._settings()
        if self._store is None or self._store[:2] != (wanted.mirror, wanted.mirror_options):
            options = dict(wanted.mirror_options)
            self._store = (wanted.mirror, options, self._opened(wanted.mirror, options))
        return self._store[2]

    def _delete(self, store: ObjectStore, mark: Path) -> None:
        prefix = mark.name.removesuffix(_DELETE).rstrip("~").replace("~", "/")
        for one in store.list(prefix):
            if one.name.startswith(f"{prefix}/"):
                store.delete(one.name)
                mirrored.labels("deleted").inc()
        mark.unlink(missing_ok=True)

    def _send(self, store: ObjectStore, path: Path) -> None:
        name, source = path.name.replace("~", "/"), path
        keys = self._keys()
        if not path.exists():  # deleted by its person meanwhile
            return
        if keys:
            source = path.with_name(f"{path.name}{_DRAFT}")
            _encrypted(path, source, keys)
            name += _ENCRYPTED
        try:
            store.put(name, source)
        finally:
            if source is not path:
                source.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        mirrored.labels("sent").inc()


def _encrypted(source: Path, target: Path, keys: Mapping[str, bytes]) -> None:
    name, key = next(iter(keys.items()))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with source.open("rb") as plain, os.fdopen(descriptor, "wb") as file:
        for piece in encrypt(iter(lambda: plain.read(_READ), b""), name, key):
            file.write(piece)
