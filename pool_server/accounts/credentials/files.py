"""The credential files in the pool folder: reading, judging and carefully rewriting them.

The files are the truth. The pool changes only the fields it owns and keeps everything else in them. What is sealed
stays sealed, and what is plain stays plain: its own program may read it too.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pool_server.accounts.credentials import sealing
from pool_server.accounts.credentials.scan import CredentialFile, because
from pool_server.core.disk import folder_held
from pool_server.core.models import group_names
from pool_server.language import LazyText, lazy, lazy_of
from pool_server.providers import Credential, CredentialRejectedError, provider_module, refuse_unnamed
from pool_server.providers.credential import Fields
from pool_server.providers.json_fields import TOO_DEEP, merge_into, named_twice
from pool_server.providers.times import moment, number

MAX_BYTES = 1 << 20
TEMPORARY = ".pool-tmp"
_PROXIES = ("http", "https", "socks5", "socks5h")
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_HOURS = re.compile(rf"{_CLOCK}-(?:{_CLOCK}|24:00)")
_SPANS = 12
_WINDOW = re.compile(r"[0-9]{1,4}[smhd]")


class UnreadFileError(CredentialRejectedError):
    """A file that could not be read now. It tells nothing of what the file holds."""


class BrokenFileError(CredentialRejectedError):
    """A file that is not JSON: damaged, or somebody is still writing it."""


class SharingTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an account's owner gives. `own_first`: the owner's own requests go there first; `until`: when the pool's
    part ends (unix seconds; the owner goes on), None = it does not; `hours`: when of a day others are served, as
    "22:00-07:00" in the pool's time zone, () = always; `share`: the percent of each window that others may use, by the
    window's name, "" = of every window, {} = all."""

    own_first: bool = True
    until: float | None = None
    hours: tuple[str, ...] = ()
    share: dict[str, float] = {}

    def kept(self, window: str) -> float:
        """Percent of a window that is its owner's alone."""
        return 100.0 - self.share.get(window, self.share.get("", 100.0))

    def spans(self) -> tuple[tuple[int, int], ...]:
        """`hours` in minutes of a day: from, to; the end is left out, and one before its beginning is of the next
        day."""
        return tuple((_minute(one[:5]), _minute(one[6:])) for one in self.hours)


class Options(msgspec.Struct, frozen=True):
    """What any credential file may say beside the credential. `reserve` is a share, 0 to 1. `people` are the ids of
    those who may use it beside its owner, `groups` the groups whose members may; None of either = everybody."""

    disabled: bool = False
    priority: int = 100
    weight: float = 1.0
    label: str = ""
    plan_type: str = ""
    proxy_url: str | None = None
    owner: str = ""
    reserve: float = 0.0
    people: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    terms: SharingTerms = SharingTerms()


def read(path: Path) -> tuple[dict[str, Any], str]:
    """A credential file's JSON object and the digest of its bytes. Raises CredentialRejectedError with one clear line;
    its kinds here are UnreadFileError and BrokenFileError."""
    data, raw, _ = _read(path)
    return data, digest(raw)


def sealed_with(path: Path) -> str | None:
    """The name of the key a file is sealed with, None for a plain one. Raises CredentialRejectedError."""
    data = _object(_read_bytes(path))
    return sealing.key_name(data) if sealing.is_sealed(data) else None


def _read(path: Path) -> tuple[dict[str, Any], bytes, bool]:
    """A file's JSON object, its bytes, and whether they are sealed."""
    raw = _read_bytes(path)
    data = _object(raw)
    if not sealing.is_sealed(data):
        return data, raw, False
    try:
        return _object(sealing.environment_keys().open(data)), raw, True
    except sealing.SealError as exc:
        raise UnreadFileError(lazy_of(exc)) from exc


def _object(raw: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(raw.removeprefix(codecs.BOM_UTF8))  # which Windows editors and PowerShell write
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BrokenFileError(_not_json(raw)) from None
    except RecursionError:
        raise CredentialRejectedError(TOO_DEEP) from None
    if not isinstance(data, dict):
        raise CredentialRejectedError(lazy("not a JSON object"))
    if twice := named_twice(raw.decode("utf-8-sig")):
        raise CredentialRejectedError(twice)
    return data


def _content(data: dict[str, Any], *, sealed: bool) -> bytes:
    """The bytes of a file. Raises CredentialRejectedError where it is to be sealed and cannot be."""
    if sealed:
        data = sealing.environment_keys().seal(json.dumps(data, ensure_ascii=False).encode())
    raw = json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n"
    if len(raw) > MAX_BYTES:
        raise CredentialRejectedError(lazy("larger than 1 MiB"))
    return raw


def _not_json(raw: bytes) -> LazyText:
    """Why `raw` is no JSON text: PowerShell's `>` writes UTF-16."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:4]:
        return lazy("not JSON: it is UTF-16 text; save it as UTF-8")
    if not raw.strip():
        return lazy("empty")
    try:
        raw.decode()
    except UnicodeDecodeError:
        return lazy("not JSON: it is no UTF-8 text; save it as UTF-8")
    return lazy("not JSON")


def parse(data: dict[str, Any], file: CredentialFile, *, now: float) -> Credential:
    """The credential of a file that was read. Raises CredentialRejectedError."""
    if not file.named:
        refuse_unnamed(data, file.account.partition(":")[2])
    found = provider_module(file.provider).parse(data, file.account, now=now)
    if "api_key" in data and (other := file.contradicted) is not None:
        words = lazy(
            "its folder says {folder}, its name {other}: an API key goes to one of them only; rename it",
            folder=file.provider.value,
            other=other.value,
        )
        raise CredentialRejectedError(words)
    renames = Fields(data).names_for("renames")
    return msgspec.structs.replace(found, renames=renames) if renames else found


def _read_bytes(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise UnreadFileError(because(exc)) from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CredentialRejectedError(lazy("not a regular file"))
        try:
            raw = file.read(MAX_BYTES + 1)
        except OSError as exc:
            raise UnreadFileError(because(exc)) from None
    if len(raw) > MAX_BYTES:
        raise CredentialRejectedError(lazy("larger than 1 MiB"))
    return raw


def digest(raw: bytes) -> str:
    """A name for these exact bytes."""
    return hashlib.sha256(raw).hexdigest()[:24]


def options(data: dict[str, Any]) -> Options:
    """The optional fields of a file. Raises Rejected naming the field and what is allowed."""
    picked = {name: data[name] for name in Options.__struct_fields__ if data.get(name) is not None}
    for name, value in picked.items():
        if name in ("label", "plan_type", "proxy_url", "owner") and not isinstance(value, str):
            raise CredentialRejectedError(lazy("{name} must be a text", name=name))
    if not isinstance(picked.get("disabled", False), bool):
        raise CredentialRejectedError(lazy("disabled must be true or false"))
    _number(picked, "priority", whole=True, low=-1_000_000, high=1_000_000)
    _number(picked, "weight", low=0.01, high=1000)
    _number(picked, "reserve", low=0, high=1)
    if "terms" in picked:
        picked["terms"] = _terms(picked["terms"])
    people = picked.get("people")
    if people is not None:
        if not isinstance(people, list) or not all(isinstance(one, str) and one for one in people):
            raise CredentialRejectedError(lazy("people must be a list of user ids"))
        picked["people"] = tuple(dict.fromkeys(people))
    if "groups" in picked:
        picked["groups"] = _groups(picked["groups"])
    proxy = picked.get("proxy_url")
    if proxy is not None and proxy and not _usable_proxy(proxy):
        raise CredentialRejectedError(lazy("proxy_url must be an http://, https:// or socks5:// address"))
    picked["proxy_url"] = proxy or None
    return Options(**picked)


def _groups(said: object) -> tuple[str, ...]:
    if not isinstance(said, list):
        raise CredentialRejectedError(lazy("groups must be a list of names"))
    try:
        return group_names(said)
    except ValueError as wrong:
        raise CredentialRejectedError(lazy_of(wrong)) from None


def _minute(clock: str) -> int:
    return 60 * int(clock[:2]) + int(clock[3:])


def _terms(said: object) -> SharingTerms:
    if not isinstance(said, dict):
        raise CredentialRejectedError(lazy("terms must be an object"))
    given = {name: value for name, value in said.items() if value is not None}
    if given.get("until") == "":
        del given["until"]  # a field that was emptied
    if given.get("until"):
        until = moment(given["until"])
        if until is None:
            raise CredentialRejectedError(lazy("terms.until must be a moment: RFC 3339, or unix seconds"))
        given["until"] = until
    hours = given.get("hours")
    if isinstance(hours, str):
        given["hours"] = hours = hours.replace(",", " ").split()
    if isinstance(hours, list) and not all(isinstance(one, str) and _HOURS.fullmatch(one) for one in hours[:_SPANS]):
        raise CredentialRejectedError(lazy("terms.hours must be spans of a day such as 22:00-07:00"))
    if isinstance(hours, list) and any(one[:5] == one[6:] for one in hours[:_SPANS]):
        raise CredentialRejectedError(lazy("terms.hours has a span of no length; the whole day is 00:00-24:00"))
    if isinstance(hours, list) and len(hours) > _SPANS:
        raise CredentialRejectedError(lazy("terms.hours are at most {spans} spans", spans=_SPANS))
    if "share" in given:
        given["share"] = _share(given["share"])
    try:
        return msgspec.convert(given, SharingTerms)
    except msgspec.ValidationError as wrong:
        raise CredentialRejectedError(lazy_of(f"terms: {str(wrong).splitlines()[0]}")) from None


def _share(said: object) -> dict[str, float]:
    """Percentages of windows: one for all, an object by their names, or as written into a field: "5h 60, 7d 30".
    Raises CredentialRejectedError."""
    if isinstance(said, str):
        parts = [part.rsplit(None, 1) for part in said.replace("%", " ").split(",") if part.strip()]
        said = {part[0].strip() if len(part) == 2 else "": part[-1] for part in parts}
    told = said if isinstance(said, dict) else {"": said}
    found = {str(name): number(value) for name, value in told.items()}
    if not all(name == "" or _WINDOW.fullmatch(name) for name in found) or len(found) > _SPANS:
        raise CredentialRejectedError(lazy("terms.share names windows as 5h and 7d"))
    if not all(value is not None and 0 <= value <= 100 for value in found.values()):
        raise CredentialRejectedError(
            lazy("terms.share must be percentages from 0 to 100, such as 50, or 5h 60, 7d 30")
        )
    return {name: value for name, value in found.items() if value is not None}


def _number(picked: dict[str, Any], name: str, *, low: float, high: float, whole: bool = False) -> None:
    value = picked.get(name)
    if value is None:
        return
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = lazy("a whole number") if whole else lazy("a number")
        raise CredentialRejectedError(
            lazy("{name} must be {kind} from {low} to {high}", name=name, kind=kind, low=low, high=high)
        )


def _usable_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _PROXIES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def write_back(path: Path, updates: dict[str, Any], check: Callable[[dict[str, Any]], None] | None = None) -> str:
    """Set `updates` (nested as in the file) and keep every other field; returns the new content's digest.

    Atomic and durable: a 0600 temporary file in the same folder, fsync, rename, fsync of the folder. Whoever dies
    in between leaves the old file or the new one. `check` sees the present content, under the folder's lock, and may
    raise. Raises what it raises, Rejected when the present file is broken, OSError when the folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    with folder_held(target.parent) as folder:
        data, _, sealed = _read(target)
        if check is not None:
            check(data)
        merge_into(data, updates)
        raw = _content(data, sealed=sealed)
        _replace(target, raw, folder)
    return digest(raw)


def replace_content(path: Path, make: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Put what `make` makes of the present content into a file; atomic and durable like `write_back`. Raises what it
    raises."""
    target = Path(os.path.realpath(path))
    with folder_held(target.parent) as folder:
        data, _, sealed = _read(target)
        _replace(target, _content(make(data), sealed=sealed), folder)


def reseal(path: Path, *, sealed: bool) -> None:
    """Seal a file with the first key, or write it in plain again. Raises CredentialRejectedError and OSError."""
    target = Path(os.path.realpath(path))
    with folder_held(target.parent) as folder:
        _replace(target, _content(_read(target)[0], sealed=sealed), folder)


def create(path: Path, data: dict[str, Any]) -> None:
    """Write a new credential file, 0600, and sealed where there is a key. Raises FileExistsError rather than overwrite
    one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with folder_held(path.parent) as folder:
        if path.exists():
            raise FileExistsError(path.name)
        _replace(path, _content(data, sealed=bool(sealing.environment_keys().names)), folder)


def _replace(target: Path, raw: bytes, folder: int) -> None:
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}{TEMPORARY}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.fsync(folder)


def sweep(folder: Path, before: float) -> None:
    """Remove what a killed process left half-written before the moment `before` (unix seconds)."""
    for leftover in folder.rglob(f".*{TEMPORARY}"):
        try:
            if leftover.lstat().st_mtime < before:
                leftover.unlink()
        except OSError:
            continue  # another process was faster, or the folder may not be written
