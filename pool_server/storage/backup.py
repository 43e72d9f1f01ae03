"""A copy of the data folder in one file, taken while the server runs, and the way back.

The file is a tar (compressed when its name ends in .zst): `manifest.json` first, then each environment's data file,
what its write-ahead logs hold besides, and the folder's own small files (the signing secret among them: the copy is as
secret as the folder, mode 0600). One whose name ends in .enc is encrypted with the first key of `POOL_STORE_KEY`; it
alone may hold credential files.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import zstandard

from pool_server.core.disk import create_private, sync_folder
from pool_server.storage import store_keys
from pool_server.storage.encrypted_stream import DecryptedFile, DecryptionError, encrypt, is_encrypted
from pool_server.storage.errors import StoreError, StoreFullError, StoreLockedError
from pool_server.storage.folder_lock import LOCK_FILE, lock_folder, wait_for_workers
from pool_server.storage.lmdb import log_file
from pool_server.storage.lmdb.engine import Engine
from pool_server.storage.lmdb.integrity import DATA_FILE, verify
from pool_server.storage.lmdb.store import MAP_SIZE, MAX_SIZE, Store
from pool_server.storage.scratch import scratch_folder, sweep

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

LEDGER, STATE = "ledger", "state"
ENVIRONMENTS = (LEDGER, STATE)
CREDENTIALS = "pool"  # a folder in a copy: the credential files
ENCRYPTED = ".enc"
MANIFEST = "manifest.json"
SCRATCH = ".backup-"
PROOF = "proof"  # a folder in it
LOGGED = f"{log_file.PREFIX}backup"  # a member beside an environment: what its write-ahead logs held
BACKUP_FORMAT = 1
MAX_SMALL_FILE = 1 << 20
_MAX_MANIFEST = 1 << 20
_BLOCK, _READ, _TAR_BUFFER = 1 << 20, 1 << 18, 1 << 18
_WORKERS_S = 5.0  # a restore waits so long for workers of a server that was killed


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds: member name → SHA-256, and when it was taken (unix seconds)."""

    format: int
    created: float
    files: dict[str, str]


class Restored(msgspec.Struct, frozen=True):
    """What a restore did. `previous` holds what was there before (None: nothing was)."""

    created: float
    keys: dict[str, int]
    previous: Path | None
    credentials: int = 0  # files


def backup(
    stores: Mapping[str, Store], data_dir: Path, dest: Path, *, now: float, pool_dir: Path | None = None
) -> Manifest:
    """Copy open stores (by environment name) and the folder's small files into `dest`, with the credential files of
    `pool_dir` where one is given. Blocks: use a thread.

    Raises StoreError; `dest` then is as it was before.
    """
    return _write(data_dir, dest, now, {name: store.copy for name, store in stores.items()}, pool_dir)


def rescue(stores: Mapping[str, Store], small: Mapping[str, bytes], data_dir: Path, *, now: float) -> Path:
    """Copy open stores whose folder is gone, and its small files (name → content), into a new file in the first place
    that takes it; returns that. Blocks: use a thread. Raises StoreError when no place does."""
    name = time.strftime("pool-server-rescued-%Y%m%d-%H%M%S.tar.zst", time.gmtime(now))
    copiers = {name: store.copy for name, store in stores.items()}
    last = StoreError("there is no place for it")
    for place in log_file.places(data_dir)[1:]:
        try:
            with scratch_folder(place, SCRATCH) as scratch:
                members = {}
                for inner, content in small.items():
                    members[inner] = scratch / "small" / inner
                    members[inner].parent.mkdir(mode=0o700, exist_ok=True)
                    create_private(members[inner], content)
                _pack(scratch, members, place / name, now, copiers)
            return place / name
        except (OSError, StoreError) as exc:
            last = exc if isinstance(exc, StoreError) else StoreError(str(exc.strerror))
    raise last


def backup_folder(data_dir: Path, dest: Path, *, now: float, pool_dir: Path | None = None) -> Manifest:
    """`backup` from another process than the server's: opens whatever environments the folder has."""
    engines = {
        name: Engine(data_dir / name, (), durable=True, map_size=MAP_SIZE, max_size=MAX_SIZE)
        for name in ENVIRONMENTS
        if (data_dir / name / DATA_FILE).exists()
    }
    if not engines:
        raise StoreError(f"there is nothing to back up in {data_dir}")
    try:
        return _write(data_dir, dest, now, {name: _copier(engine) for name, engine in engines.items()}, pool_dir)
    finally:
        for engine in engines.values():
            engine.close()


def _copier(engine: Engine) -> Callable[[Path], None]:
    def copy(dest: Path) -> None:
        dest.mkdir(parents=True, mode=0o700)
        engine.copy(dest)

    return copy


def _write(
    data_dir: Path, dest: Path, now: float, copiers: Mapping[str, Callable[[Path], None]], pool_dir: Path | None
) -> Manifest:
    if not dest.parent.is_dir():
        raise StoreError(f"the folder {dest.parent} does not exist")
    if dest.exists() and not dest.is_file():  # root would put a file in the place of /dev/null
        raise StoreError(f"{dest} is there already and is not a file")
    if pool_dir is not None and dest.suffix != ENCRYPTED:
        raise StoreError(f"credentials are only put into an encrypted copy, whose name ends in {ENCRYPTED}")
    sweep_scratch(dest.parent)
    try:
        with scratch_folder(dest.parent, SCRATCH) as scratch:
            members = dict(small_files(data_dir))
            # The logs first: what they lose meanwhile to the environments is copied with those.
            for name in copiers:
                if logged := log_file.pending(data_dir / name):
                    members[f"{name}/{LOGGED}"] = scratch / f"{name}.log"
                    log_file.write_for_copy(scratch / f"{name}.log", logged)
            if pool_dir is not None:
                members |= _credentials(pool_dir, scratch / CREDENTIALS)
            return _pack(scratch, members, dest, now, copiers)
    except OSError as exc:
        raise StoreFullError(f"the backup {dest} could not be written: {exc.strerror}") from exc


def _pack(
    scratch: Path, members: dict[str, Path], dest: Path, now: float, copiers: Mapping[str, Callable[[Path], None]]
) -> Manifest:
    for name, copy in copiers.items():
        copy(scratch / name)
        members[f"{name}/{DATA_FILE}"] = scratch / name / DATA_FILE
    manifest = Manifest(BACKUP_FORMAT, now, {name: _digest(path) for name, path in members.items()})
    unfinished = scratch / "backup"
    keys = _keys() if dest.suffix == ENCRYPTED else {}
    with _writer(unfinished, compressed=".zst" in dest.suffixes[-2:]) as tar:
        _add_bytes(tar, MANIFEST, msgspec.json.encode(manifest), now)
        for name, path in members.items():
            tar.add(path, arcname=name, recursive=False, filter=_private)
    if keys:
        unfinished = _sealed(unfinished, scratch / "sealed", keys)
    os.replace(unfinished, dest)
    sync_folder(dest.parent)
    return manifest


def _keys() -> dict[str, bytes]:
    try:
        keys = store_keys.from_environment()
    except ValueError as wrong:
        raise StoreError(str(wrong)) from None
    if not keys:
        raise StoreError(f"an encrypted copy needs a key in {store_keys.ENVIRONMENT}")
    return keys


def _sealed(plain: Path, target: Path, keys: Mapping[str, bytes]) -> Path:
    name, key = next(iter(keys.items()))
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with plain.open("rb") as source, os.fdopen(descriptor, "wb") as file:
        for piece in encrypt(iter(lambda: source.read(1 << 20), b""), name, key):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return target


def _credentials(pool_dir: Path, into: Path) -> dict[str, Path]:
    """Copies of the credential files as they are at one moment each: a refresh may replace them meanwhile."""
    members: dict[str, Path] = {}
    for path in sorted((*pool_dir.glob("*.json"), *pool_dir.glob("*/*.json"))):
        inner = path.relative_to(pool_dir)
        if path.is_file() and not any(part.startswith(".") for part in inner.parts):
            target = into / inner
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            create_private(target, path.read_bytes())
            members[f"{CREDENTIALS}/{inner.as_posix()}"] = target
    return members


def sweep_scratch(folder: Path) -> int:
    """Remove from `folder` what killed backups left there; returns how many."""
    return sweep(
        folder,
        SCRATCH,
        (*ENVIRONMENTS, *(f"{name}.log" for name in ENVIRONMENTS), "small", "backup", "sealed", CREDENTIALS, PROOF),
    )


Forward = Callable[[Path, Path], None]  # brings a restored store forward by its log; with an empty folder for that
Tell = Callable[[str], None]  # what is being done, in words


def _silent(_: str) -> None:
    return None


def restore(source: Path, data_dir: Path, forward: Forward | None = None, tell: Tell = _silent) -> Restored:
    """Put a backup in the place of what `data_dir` holds, after checking all of it and bringing its ledger `forward`.

    What was there is moved into a folder `before-restore-…` beside it. Raises StoreLocked while a server holds the
    folder, StoreDamaged or StoreError when the file is not a whole backup; nothing is changed then.
    """
    with lock_folder(data_dir), scratch_folder(data_dir, ".restore-") as fresh:
        if not wait_for_workers(data_dir, _WORKERS_S):
            raise StoreLockedError(f"a worker of a server that was killed still uses {data_dir}: try again in a minute")
        manifest, keys = _tried(source, fresh, forward, tell)
        tops = sorted({name.partition("/")[0] for name in manifest.files})
        previous = _move_aside(data_dir, tops)
        for name in tops:
            os.replace(fresh / name, data_dir / name)
        sync_folder(data_dir)
    held = sum(name.startswith(f"{CREDENTIALS}/") for name in manifest.files)
    return Restored(manifest.created, keys, previous, held)


def prove(source: Path, forward: Forward | None = None, tell: Tell = _silent) -> Restored:
    """Restore a backup for a trial: into a temporary folder beside it, every sum compared, its ledger brought
    `forward`, every page of its stores looked at. Blocks. Raises StoreFullError without room for that, else StoreError
    when it is not whole."""
    with scratch_folder(source.parent, SCRATCH) as scratch:
        fresh = scratch / PROOF
        fresh.mkdir(mode=0o700)
        manifest, keys = _tried(source, fresh, forward, tell)
    return Restored(manifest.created, keys, None)


def _tried(source: Path, fresh: Path, forward: Forward | None, tell: Tell) -> tuple[Manifest, dict[str, int]]:
    """Unpack a backup and look at every page; how many keys each store has."""
    manifest = _unpack(source, fresh, tell)
    if forward is not None and f"{LEDGER}/{DATA_FILE}" in manifest.files:
        with scratch_folder(fresh, ".log-") as fetched:
            forward(fresh / LEDGER, fetched)
    tell("Reading every page")
    keys = {name: verify(fresh / name) for name in ENVIRONMENTS if f"{name}/{DATA_FILE}" in manifest.files}
    return manifest, keys


def _unpack(source: Path, into: Path, tell: Tell) -> Manifest:
    try:
        with _reader(source, tell) as (tar, stream):
            members = iter(tar)
            manifest = _read_manifest(tar, next(members, None), source)
            for member in members:
                _take(stream, member, manifest, into, source)
    except FileNotFoundError:
        raise StoreError(f"there is no backup {source}") from None
    except DecryptionError as exc:
        raise StoreError(f"{source}: {exc}") from None
    except tarfile.ReadError as exc:  # its words for what ends before its first entry: "empty file"
        raise StoreError(f"{source} is not a whole backup: it ends too soon, or is none") from exc
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as exc:
        raise StoreError(f"{source} is not a whole backup: {exc}") from exc
    except OSError as exc:
        raise StoreFullError(f"the backup {source} could not be unpacked: {exc.strerror}") from exc
    missing = [name for name in manifest.files if not (into / name).exists()]
    if missing:
        raise StoreError(f"{source} is not a whole backup: {missing[0]} is missing")
    return manifest


def _read_manifest(tar: tarfile.TarFile, member: tarfile.TarInfo | None, source: Path) -> Manifest:
    file = tar.extractfile(member) if member is not None and member.name == MANIFEST else None
    if file is None:
        raise StoreError(f"{source} is not a backup of this program")
    try:
        manifest = msgspec.json.decode(file.read(_MAX_MANIFEST), type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise StoreError(f"{source} has an unreadable manifest: {exc}") from None
    if manifest.format != BACKUP_FORMAT:
        raise StoreError(f"{source} has backup format {manifest.format}, this program knows {BACKUP_FORMAT}")
    return manifest


def _take(stream: _Forward, member: tarfile.TarInfo, manifest: Manifest, into: Path, source: Path) -> None:
    """Unpack one member: only what the manifest names, only plain files, only in the folders a copy has."""
    folder, _, name = member.name.rpartition("/")
    inner = folder.removeprefix(f"{CREDENTIALS}/")  # a provider's folder
    known = folder in ("", *ENVIRONMENTS, CREDENTIALS) or (inner != folder and re.fullmatch(r"[\w-]+", inner))
    plain = known and name not in ("", ".", "..")
    if not plain or not member.isreg() or member.issparse() or member.name not in manifest.files:
        raise StoreError(f"{source} holds {member.name!r}, which no backup has")
    target = into / folder / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        _pass_on(stream, member.size, lambda block: _keep(digest, out, block))
        os.fsync(out.fileno())
    if digest.hexdigest() != manifest.files[member.name]:
        raise StoreError(f"{source} is damaged: {member.name} is not what was backed up")


def _pass_on(stream: _Forward, size: int, keep: Callable[[memoryview], None]) -> None:
    """Hand on the next `size` bytes, block after block: what one holds is kept while the next one is unpacked. Two
    blocks are used in turns, since memory that is always new costs as much as what is done with it."""
    blocks = memoryview(bytearray(_BLOCK)), memoryview(bytearray(_BLOCK))
    with ThreadPoolExecutor(1) as beside:
        kept: Future[None] | None = None
        for number in range(-(-size // _BLOCK)):
            block = blocks[number % 2][: min(_BLOCK, size - number * _BLOCK)]
            stream.fill(block)
            if kept is not None:
                kept.result()
            kept = beside.submit(keep, block)
        if kept is not None:
            kept.result()


def _keep(digest: hashlib._Hash, out: io.FileIO, block: memoryview) -> None:
    digest.update(block)
    while block:
        block = block[out.write(block) :]


def _move_aside(data_dir: Path, names: list[str]) -> Path | None:
    there = [name for name in names if (data_dir / name).exists()]
    if not there:
        return None
    aside = data_dir / time.strftime("before-restore-%Y%m%d-%H%M%S")
    aside.mkdir(mode=0o700)
    for name in there:
        os.replace(data_dir / name, aside / name)
    return aside


def small_files(data_dir: Path) -> Iterator[tuple[str, Path]]:
    """The folder's own plain files, none of them large; no locks, no leftovers of unfinished writes."""
    for path in sorted(data_dir.iterdir()):
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or path.name == LOCK_FILE or path.name.startswith("."):
            continue
        if info.st_size <= MAX_SMALL_FILE and path.name != MANIFEST:
            yield path.name, path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without this machine's user names; for the owner only."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes, now: float) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), int(now)
    tar.addfile(_private(member), io.BytesIO(data))


@contextmanager
def _writer(path: Path, *, compressed: bool) -> Iterator[tarfile.TarFile]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        packed = zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False) if compressed else None
        with (
            packed or nullcontext(),
            tarfile.open(fileobj=packed or raw, mode="w|", bufsize=_TAR_BUFFER, format=tarfile.PAX_FORMAT) as tar,
        ):
            yield tar
        raw.flush()
        os.fsync(raw.fileno())


class _Told(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: Path, tell: Tell) -> None:
        super().__init__(path)
        self._told = 0
        self._size = max(1, os.fstat(self.fileno()).st_size)
        self._say = tell

    def readinto(self, into: Buffer) -> int | None:
        read = super().readinto(into)
        if (percent := 100 * self.tell() // self._size) != self._told:
            self._told = percent
            self._say(f"Unpacking the copy: {percent} %")
        return read


class _Forward:
    """A stream as the file that `tarfile` wants: it is read from its beginning to its end and never goes back."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> int:
        while self._at < to and self.read(min(_BLOCK, to - self._at)):
            pass
        return self._at

    def read(self, size: int) -> bytes:
        into = bytearray(size)
        return bytes(into[: self._readinto(memoryview(into))])

    def fill(self, block: memoryview) -> None:
        """Raises tarfile.ReadError where the stream ends before the block is full."""
        if self._readinto(block) < len(block):
            raise tarfile.ReadError("unexpected end of data")

    def _readinto(self, into: memoryview) -> int:
        done = 0
        while done < len(into) and (read := self._stream.readinto(into[done:])):
            done += read
        self._at += done
        return done


@contextmanager
def _reader(path: Path, tell: Tell) -> Iterator[tuple[tarfile.TarFile, _Forward]]:
    """The copy's members, and the stream that stands at the content of the one that was read last."""
    with io.BufferedReader(_Told(path, tell), 1 << 20) as raw:
        stream: Any = raw
        if is_encrypted(raw.peek(16)):
            stream = io.BufferedReader(DecryptedFile(raw.read, _keys()), 1 << 20)
        if stream.peek(4)[:4] == zstandard.FRAME_HEADER:
            stream = zstandard.ZstdDecompressor().stream_reader(stream, read_size=_READ)
        forward = _Forward(stream)
        with tarfile.open(fileobj=forward, mode="r:") as tar:  # type: ignore[call-overload]
            yield tar, forward
