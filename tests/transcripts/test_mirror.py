"""The mirror: everything arrives and is deleted in the end, whatever the place does meanwhile."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool_server.core.settings import TranscriptSettings
from pool_server.storage.encrypted_stream import decrypt
from pool_server.storage.object_store import ObjectStoreError, is_address, open_place
from pool_server.transcripts import archive
from pool_server.transcripts.mirror import LAST_RETRY_S, Mirror, Outbox
from tests.fakes.object_store import s3_server

KEY = {"k1": b"1" * 32}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server("bucket") as options:
        yield options


class Sender:
    """An outbox with its mirror at a place."""

    def __init__(self, folder: Path, place: str, options: dict[str, str] | None = None, **more: Any) -> None:
        self.folder, self.now = folder / "transcripts", 1000.0
        self.outbox = Outbox(self.folder)
        self.settings = TranscriptSettings(enabled=True, mirror=place, mirror_options=options or {})
        more.setdefault("keys", dict)
        self.mirror = Mirror(self.outbox, lambda: self.settings, clock=lambda: self.now, **more)
        self.place = place

    def put(self, user: str, exchange: str, talk: str = "c1") -> str:
        path = archive.place(self.folder, user, "Codex/1.0", talk, exchange)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(exchange.encode() * 1000)
        self.outbox.send(path)
        return path.relative_to(self.folder).as_posix()

    def there(self) -> list[str]:
        return sorted(one.name for one in open_place(self.place, self.settings.mirror_options).list(""))

    def got(self, name: str, folder: Path) -> bytes:
        target = folder / "fetched"
        open_place(self.place, self.settings.mirror_options).fetch(name, target)
        return target.read_bytes()


@pytest.fixture(params=["folder", "s3"])
def sender(request: pytest.FixtureRequest, tmp_path: Path) -> Sender:
    if request.param == "folder":
        return Sender(tmp_path, str(tmp_path / "mirror"))
    return Sender(tmp_path, f"s3://bucket/{tmp_path.name}", request.getfixturevalue("s3"))


def test_what_is_kept_is_sent_once_and_what_is_deleted_goes_there_too(sender: Sender, tmp_path: Path) -> None:
    names = [
        sender.put(user, exchange, talk)
        for user, exchange, talk in (("u_1", "e1", "c1"), ("u_1", "e2", "c2"), ("u_2", "e3", "c1"))
    ]
    sender.mirror.run()
    assert sender.there() == sorted(names) and sender.outbox.files() == []
    assert sender.got(names[0], tmp_path) == b"e1" * 1000
    sender.outbox.delete("u_1", "codex", "c1")
    sender.mirror.run()
    assert sender.there() == sorted(names[1:])
    again = sender.put("u_1", "e4")
    sender.outbox.delete("u_1")
    kept = sender.put("u_1", "e5", "c3")
    sender.mirror.run()
    assert sender.there() == sorted([kept, names[2]]) and again not in sender.there()
    assert sender.outbox.marks() == [] and sender.mirror.last_error == ""


def test_with_a_key_only_what_is_encrypted_leaves(sender: Sender, tmp_path: Path) -> None:
    sealed = Sender(tmp_path, sender.place, sender.settings.mirror_options, keys=lambda: KEY)
    name = sealed.put("u_1", "secret words")
    sealed.mirror.run()
    assert sealed.there() == [f"{name}.enc"]
    data = sealed.got(f"{name}.enc", tmp_path)
    assert b"secret words" not in data
    assert b"".join(decrypt(io.BytesIO(data).read, KEY)) == b"secret words" * 1000
    assert [path.name for path in (sealed.folder / ".outbox").iterdir()] == []


class Refusing:
    """A place that answers 403, then takes things."""

    def __init__(self) -> None:
        self.refuses, self.kept, self.calls = True, list[str](), 0

    def __call__(self, place: str, options: object) -> Refusing:
        return self

    def _asked(self) -> None:
        self.calls += 1
        if self.refuses:
            raise ObjectStoreError("403 Forbidden")

    def put(self, name: str, source: Path) -> None:
        self._asked()
        self.kept.append(name)

    def delete(self, name: str) -> None:
        self._asked()
        self.kept.remove(name)

    def list(self, prefix: str) -> list[Any]:
        self._asked()
        return []

    def fetch(self, name: str, target: Path) -> None: ...


def test_an_hour_of_403_loses_nothing_and_asks_ever_more_seldom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Refusing()
    sender = Sender(tmp_path, "s3://bucket", opened=place)
    names = [sender.put("u_1", f"e{number}") for number in range(3)]
    with caplog.at_level(logging.WARNING):
        for _ in range(1800):
            sender.now += 2
            sender.mirror.run()
    assert 5 < place.calls < 20 and len(caplog.records) == 1 and "403" in caplog.text
    place.refuses = False
    sender.now += LAST_RETRY_S
    sender.mirror.run()
    assert place.kept == names


def test_what_its_person_deletes_while_the_place_refuses_never_arrives(tmp_path: Path) -> None:
    place = Refusing()
    sender = Sender(tmp_path, "s3://bucket", opened=place)
    sender.put("u_1", "e1")
    sender.mirror.run()
    sender.outbox.delete("u_1")
    place.refuses = False
    sender.now += LAST_RETRY_S
    sender.mirror.run()
    assert place.kept == [] and sender.outbox.marks() == []


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    sender = Sender(tmp_path, "s3://bucket", opened=Refusing())
    for number in range(5):
        sender.put("u_1", f"e{number}")
    assert sender.outbox.prune(5000) == 3 and len(sender.outbox.files()) == 2


def test_a_wrong_key_variable_sends_nothing_in_the_clear(tmp_path: Path) -> None:
    def broken() -> dict[str, bytes]:
        raise ValueError("POOL_STORE_KEY must be NAME:KEY")

    sender = Sender(tmp_path, str(tmp_path / "mirror"), keys=broken)
    sender.put("u_1", "e1")
    sender.mirror.run()
    assert "POOL_STORE_KEY" in sender.mirror.last_error and not (tmp_path / "mirror").exists()


@pytest.mark.parametrize("address", ["s3://", "s3://bucket", "gs://b/c", "az://b"])
def test_an_address_is_told_from_a_folder(address: str) -> None:
    assert is_address(address) and not is_address(f"/{address}")


def test_options_that_are_none_are_one_line(tmp_path: Path, s3: dict[str, str]) -> None:
    with pytest.raises(ObjectStoreError) as wrong:
        open_place("s3://bucket", s3 | {"bogus": "a-secret-value"})
    assert "\n" not in str(wrong.value) and "a-secret-value" not in str(wrong.value)
    with pytest.raises(ObjectStoreError):
        open_place("s3://no-such-bucket", s3).list("")
