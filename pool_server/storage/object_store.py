"""A place for files by name: a folder, or an object store (S3, GCS, Azure) through obstore. Blocks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pool_server.core.disk import DRAFT, write_private

WITHIN = timedelta(seconds=60)  # for one call, its repetitions included
CONNECT = timedelta(seconds=10)
_SCHEMES = ("s3://", "gs://", "az://", "abfs://", "abfss://")


class ObjectStoreError(Exception):
    """The place takes or gives nothing just now; one line, without a secret."""


class StoredObject(NamedTuple):
    """`modified` in unix seconds."""

    name: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """Names have `/` between their parts. Everything raises ObjectStoreError."""

    def put(self, name: str, source: Path | bytes) -> None:
        """Keeps a file, or bytes, in place of what had the name; whole or not at all."""

    def fetch(self, name: str, target: Path) -> None:
        """Writes what is kept into a new file."""

    def delete(self, name: str) -> None:
        """Nothing has the name afterwards."""

    def list(self, prefix: str) -> list[StoredObject]:
        """What is kept under a prefix of whole parts, "" = all."""


def is_address(place: str) -> bool:
    """Whether this names a bucket; else it is a folder."""
    return place.startswith(_SCHEMES)


def open_place(place: str, options: Mapping[str, str], within: timedelta = WITHIN) -> ObjectStore:
    """The store at a folder or an address like `s3://bucket/prefix`; `options` are obstore's, such as `aws_endpoint`;
    credentials may also stand in the environment (`AWS_ACCESS_KEY_ID` …). Raises ObjectStoreError."""
    return _Bucket(place, options, within) if is_address(place) else _Folder(Path(place))


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, source: Path | bytes) -> None:
        target = self._path(name)
        draft = target.with_name(f".{target.name}{DRAFT}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if isinstance(source, bytes):
                write_private(target, source)
                return
            shutil.copyfile(source, draft)
            draft.chmod(0o600)
            os.replace(draft, target)
        except OSError as error:
            raise _failed(error) from None

    def fetch(self, name: str, target: Path) -> None:
        try:
            shutil.copyfile(self._path(name), target)
        except OSError as error:
            raise _failed(error) from None

    def delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
            for empty in path.parents:
                if empty == self._root or any(empty.iterdir()):
                    break
                empty.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed(error) from None

    def list(self, prefix: str) -> list[StoredObject]:
        start = self._path(prefix) if prefix else self._root
        try:
            paths = [path for path in start.rglob("*") if path.is_file() and not path.name.endswith(DRAFT)]
            facts = [(path.relative_to(self._root).as_posix(), path.stat()) for path in paths]
        except OSError as error:
            raise _failed(error) from None
        return [StoredObject(name, found.st_size, found.st_mtime) for name, found in sorted(facts)]

    def _path(self, name: str) -> Path:
        return self._root.joinpath(*name.split("/"))


class _Bucket:
    def __init__(self, address: str, options: Mapping[str, str], within: timedelta) -> None:
        try:
            import obstore
            from obstore import store as stores
        except ImportError:
            why = 'needs obstore: pip install "pool-server[object-storage]"'
            raise ObjectStoreError(f"{address.partition('://')[0]} {why}") from None
        self._obstore: Any = obstore
        from_url: Any = stores.from_url
        plain = options.get("aws_endpoint", "").startswith("http://")
        try:
            self._store: Any = from_url(
                address,
                config=dict(options),
                client_options={"timeout": within, "connect_timeout": min(within, CONNECT), "allow_http": plain},
                retry_config={"max_retries": 2, "retry_timeout": within},
            )
        except Exception as error:
            raise _failed(error) from None

    def put(self, name: str, source: Path | bytes) -> None:
        try:
            if isinstance(source, bytes):
                self._obstore.put(self._store, name, source)
                return
            with source.open("rb") as file:
                self._obstore.put(self._store, name, file)
        except Exception as error:
            raise _failed(error) from None

    def fetch(self, name: str, target: Path) -> None:
        try:
            with target.open("wb") as file:
                for piece in self._obstore.get(self._store, name).stream(min_chunk_size=1 << 20):
                    file.write(piece)
        except Exception as error:
            raise _failed(error) from None

    def delete(self, name: str) -> None:
        try:
            self._obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _failed(error) from None

    def list(self, prefix: str) -> list[StoredObject]:
        try:
            batches = self._obstore.list(self._store, prefix=prefix or None)
            found = [one for batch in batches for one in batch]
        except Exception as error:
            raise _failed(error) from None
        return [StoredObject(one["path"], one["size"], one["last_modified"].timestamp()) for one in found]


def _failed(error: Exception) -> ObjectStoreError:
    """The first line of what went wrong; what follows in obstore's texts is for its developers."""
    if isinstance(error, OSError) and error.strerror:
        return ObjectStoreError(error.strerror)
    return ObjectStoreError(str(error).strip().partition("\n")[0][:300] or type(error).__name__)
